"""Predictions of chapter 11 about fine-tuning, checkpointing and a skipped step. Errors are in per cent."""

from bnlib.predictions.prediction import Prediction

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
        "second-update",
        "With gradient checkpointing, each step updates the running statistics of batch norm twice, with the same "
        "batch. The weights are the same as without. After 20 steps with momentum 0.1, how does the test error in eval "
        "mode compare?",
        {
            "It is more than 2 points lower with checkpointing": lambda off, on: off - on > 2,
            "The two are within 2 points": lambda off, on: abs(off - on) <= 2,
            "It is more than 2 points higher with checkpointing": lambda off, on: on - off > 2,
        },
        reason="The median test error is {on:.0f} % with checkpointing and {off:.0f} % without. Two updates act like a "
        "larger momentum. Early in training the averages lag behind the network, so faster averages are better.",
    ),
    Prediction(
        "skipped-step",
        "In one batch of a training with batch norm, a pixel is infinite. The gradient scaler notices that the "
        "gradients are not finite and skips this step, so the weights do not change. After 130 more normal steps, what "
        "is wrong with the network?",
        {
            "Nothing: the loss in train mode and the predictions in eval mode are as good as without that batch": (
                lambda ratio, error: ratio < 1.1 and error < 10
            ),
            "The loss in train mode is as low as without that batch, but the predictions in eval mode are useless": (
                lambda ratio, error: ratio < 1.1 and error >= 10
            ),
            "Both are bad": lambda ratio, error: ratio >= 1.1,
        },
        reason="The training loss is {ratio:.2f} times that of a training without the batch, and the test error in "
        "eval mode is {error:.0f} %. The forward pass wrote NaN into the running statistics, and only eval mode uses "
        "them.",
    ),
]
