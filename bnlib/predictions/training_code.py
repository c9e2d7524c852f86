"""Predictions of chapter 11 about fine-tuning, checkpointing and a skipped step. Errors are in per cent."""

from bnlib.predictions.prediction import Prediction

PREDICTIONS = [
    Prediction(
        "freeze-or-train",
        "A network with batch norm has learned upright digits. We fine-tune it on 200 transposed digits, in batches of "
        "two. With batch norm in train mode, it ends with a test error of {trained:.0f} %. How high is the test "
        "error if we freeze batch norm instead, with the running statistics of the upright digits?",
        {
            "Less than half as high": lambda trained, frozen: frozen < trained / 2,
            "Lower, but at least half as high": lambda trained, frozen: trained / 2 <= frozen < trained,
            "As high or higher": lambda trained, frozen: frozen >= trained,
        },
        reason="With frozen batch norm the test error is {frozen:.0f} %. The running statistics are those of other "
        "images, but they are the same for every batch, so the weights can adapt to them. In train mode, the "
        "statistics of each batch come from only two images.",
    ),
    Prediction(
        "second-update",
        "With gradient checkpointing, each step updates the running statistics of batch norm twice, with the same "
        "batch. The weights are the same as without checkpointing. After 20 steps with a momentum of 0.1, how does the "
        "test error in eval mode with checkpointing compare with the error without checkpointing?",
        {
            "It is more than 2 percentage points lower": lambda off, on: off - on > 2,
            "The two errors differ by at most 2 percentage points": lambda off, on: abs(off - on) <= 2,
            "It is more than 2 percentage points higher": lambda off, on: on - off > 2,
        },
        reason="The median test error is {on:.0f} % with checkpointing and {off:.0f} % without. Two updates act like a "
        "larger momentum. Early in training the running averages lag behind the network, so a larger momentum helps.",
    ),
    Prediction(
        "skipped-step",
        "A network with batch norm is trained, and one pixel of one batch is infinite. The gradient scaler notices "
        "that the gradients are not finite and skips this step, so the weights do not change. After 130 more normal "
        "steps, what is wrong with the network?",
        {
            "Nothing: the loss in train mode and the predictions in eval mode are as good as without that batch": (
                lambda ratio, error: ratio < 1.1 and error < 10
            ),
            "The loss in train mode is as low as without that batch, but the predictions in eval mode are useless": (
                lambda ratio, error: ratio < 1.1 and error >= 10
            ),
            "The loss in train mode is higher than without that batch, too": lambda ratio, error: ratio >= 1.1,
        },
        reason="The training loss is {ratio:.2f} times that of a training without the batch, and the test error in "
        "eval mode is {error:.0f} %. The forward pass wrote NaN into the running statistics, and only eval mode uses "
        "them.",
    ),
]
