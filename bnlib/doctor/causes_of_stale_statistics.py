"""Running averages that are not updated: causes that ``bnlib.diagnose`` does not look for."""

from __future__ import annotations

from bnlib.doctor.advice_form import TRAINING, Advice

CAUSES_OF_STALE_STATISTICS: dict[str, Advice] = {
    "update-operations-not-run": Advice(
        group="eval",
        symptom=(
            "TensorFlow 1 (`tf.compat.v1`, slim): after training, every moving mean is still 0 and every moving "
            "variance 1, and with `is_training=False` the accuracy is that of guessing"
        ),
        cause=(
            "In a graph of TensorFlow 1, the updates of the moving averages are operations of their own, in the "
            "collection `UPDATE_OPS`, and the training step does not depend on them, so they never run. Here `moving` "
            "holds the moving mean and the moving variance of each layer, as arrays."
        ),
        test="all((mean == 0).all() and (variance == 1).all() for mean, variance in moving)",
        remedy=(
            "Create the training step inside "
            "`with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):` (in slim, "
            "`updates_collections=None` or `slim.learning.create_train_op`), and train again. Keras's `fit` in "
            "TensorFlow 2 updates them by itself."
        ),
        section="chapters/frameworks.ipynb#what-does-my-framework-do",
    ),
    "tracking-off-is-not-freezing": Advice(
        group="after",
        symptom=(
            "I set `track_running_stats=False` to freeze batch norm: the training loss stays low, and the validation "
            "loss explodes"
        ),
        cause=(
            "`track_running_stats=False` does not freeze BN: train mode still normalises with the statistics of the "
            "batch. If you change the flag of a pretrained layer, eval mode uses the old running averages, which need "
            "not fit the fine-tuned weights. If you pass it to the constructor, there are none, and eval mode uses "
            "the batch, too."
        ),
        test="any(not bn.track_running_stats for bn in bns)",
        remedy=(
            "Leave `track_running_stats=True`, load the pretrained checkpoint again, and call `eval()` on the BN "
            "layers after each `model.train()`, or use `torchvision.ops.FrozenBatchNorm2d`."
        ),
        section=f"{TRAINING}#should-i-freeze-batch-norm-when-i-fine-tune",
    ),
}
"""Causes of running averages that are not updated, by a short name."""
