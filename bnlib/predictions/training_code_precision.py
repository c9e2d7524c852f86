"""Predictions of chapter 11 about a skipped step, checkpointing and quantisation. Errors are in per cent."""

from bnlib.predictions.prediction import Prediction

PREDICTIONS = [
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
        "quantised-scales",
        "Two networks compute the same function with a test error of {real:.1f} %. In the second one some channels are "
        "up to 100 times larger, which the next batch norm undoes. Batch norm is folded, and the weights are rounded "
        "to 6 bits, with one scale per tensor. Which test error does the second network have?",
        {
            "Within 2 points of the error without rounding": lambda real, tensor: tensor <= real + 2,
            "More than 2 points above it, but below 20 %": lambda real, tensor: real + 2 < tensor < 20,
            "20 % or more": lambda real, tensor: tensor >= max(20, real + 2),
        },
        reason="The median test error is {tensor:.0f} %. With one scale per channel it is {channel:.1f} %, because "
        "each channel then has a rounding step of its own.",
    ),
]
