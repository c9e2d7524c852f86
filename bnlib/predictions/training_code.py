"""Predictions of chapter 11, batch norm in training code. Errors are in per cent."""

from bnlib.predictions.prediction import Prediction

_MANY = 20  # per cent of test errors

PREDICTIONS = [
    Prediction(
        "freeze-or-train",
        "A network with batch norm has learned upright digits. We fine-tune it on 200 transposed digits, in batches of "
        "two. With batch norm in train mode, it ends with {trained:.0f} % test errors. How many errors are left if we "
        "freeze batch norm instead, with the running statistics of the upright digits?",
        {
            "Less than half as many": lambda trained, frozen: frozen < trained / 2,
            "Somewhat fewer": lambda trained, frozen: trained / 2 <= frozen < trained,
            "As many or more": lambda trained, frozen: frozen >= trained,
        },
        reason="With frozen batch norm the test error is {frozen:.0f} %. The statistics are those of other images, but "
        "they are the same for every batch, so the weights can adapt to them. In batches of two, the statistics "
        "are mainly noise.",
    ),
    Prediction(
        "averaged-statistics",
        "We train a network with batch norm for 880 steps and average its weights (EMA, decay 0.999). With running "
        "statistics that are recomputed from the training data, the averaged network has {recomputed:.1f} % test "
        "errors. How many does it have if the running statistics are averaged in the same way as the weights?",
        {
            "About as many: at most two points more": lambda recomputed, averaged: averaged <= recomputed + 2,
            "More, but at most 20 %": lambda recomputed, averaged: recomputed + 2 < averaged <= _MANY,
            "More than 20 %": lambda recomputed, averaged: averaged > max(_MANY, recomputed + 2),
        },
        reason="The test error is {averaged:.0f} %. The average of the running variances still contains their initial "
        "value, 1, with a large weight, and here the true variances are much smaller than 1.",
    ),
]
