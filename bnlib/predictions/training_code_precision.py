"""Predictions of chapter 11 about averaged weights and quantisation. Errors are in per cent."""

from bnlib.predictions.prediction import Prediction

_MANY = 20  # per cent of test errors

PREDICTIONS = [
    Prediction(
        "averaged-statistics",
        "We train a network with batch norm for 880 steps and average its weights (EMA, decay 0.999). With running "
        "statistics that are recomputed from the training data, the averaged network has a test error of "
        "{recomputed:.1f} %. What is its test error if the running statistics are averaged in the same way as the "
        "weights?",
        {
            "At most two percentage points higher": lambda recomputed, averaged: averaged <= recomputed + 2,
            "Higher, but at most 20 %": lambda recomputed, averaged: recomputed + 2 < averaged <= _MANY,
            "More than 20 %": lambda recomputed, averaged: averaged > max(_MANY, recomputed + 2),
        },
        reason="The test error is {averaged:.1f} %. The average of the running variances still contains their initial "
        "value, 1, with a large weight, and here the true variances are much smaller than 1.",
    ),
    Prediction(
        "quantised-scales",
        "Two networks compute the same function with a test error of {real:.1f} %. In the second network, some "
        "channels are up to 100 times larger, but the next batch norm removes this factor. Batch norm is folded, and "
        "the weights are rounded to 6 bits, with one scale per tensor. What is the test error of the second network?",
        {
            "At most 2 percentage points above the error without rounding": lambda real, tensor: tensor <= real + 2,
            "More than 2 percentage points above it, but below 20 %": lambda real, tensor: real + 2 < tensor < 20,
            "20 % or more": lambda real, tensor: tensor >= max(20, real + 2),
        },
        reason="The median test error is {tensor:.0f} %. With one scale per channel it is {channel:.1f} %, because "
        "each channel then has a rounding step of its own.",
    ),
]
