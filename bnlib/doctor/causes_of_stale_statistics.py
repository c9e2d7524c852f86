"""Running averages that are not updated: causes that ``bnlib.diagnose`` does not look for."""

from __future__ import annotations

from bnlib.doctor.advice_form import TRAINING, Advice

CAUSES_OF_STALE_STATISTICS: dict[str, Advice] = {
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
    "too-few-updates": Advice(
        group="eval",
        symptom=(
            "The training accuracy is 100 % after a few epochs, and Keras's `evaluate` (or eval mode, "
            "`set_learning_phase(0)`) guesses, even on the training data: small data set, few steps, and momentum "
            "(decay) 0.99 or 0.999"
        ),
        cause=(
            "The running averages are still near their initial values, mean 0 and variance 1. With Keras's momentum "
            "0.99 (PyTorch's 0.01), the initial values still have a weight of 37 % after 100 steps, and 90 % after 10."
        ),
        test="any((1 - (bn.momentum or 1)) ** int(bn.num_batches_tracked) > 0.1 for bn in bns)",
        remedy=(
            "Use momentum 0.1 (Keras 0.9), or train for more steps. To repair a trained model, recompute the "
            "statistics: `torch.optim.swa_utils.update_bn(batches, model)`; in Keras, build the layers with momentum "
            "0.9 and call `model(x, training=True)` on 50 batches."
        ),
        section="chapters/07_why_is_my_bn_failing.ipynb#running-averages",
    ),
    "two-passes-per-step": Advice(
        group="eval",
        symptom=(
            "SAM (sharpness-aware minimisation) or another optimiser with two forward passes per step: the running "
            "averages are updated twice, and they contain statistics of perturbed weights"
        ),
        cause=(
            "The second pass runs in train mode with weights that were moved for the gradient only, so its statistics "
            "belong to a network that you do not keep. Here `steps` counts the training steps."
        ),
        test="any(bn.num_batches_tracked > 1.5 * steps for bn in bns)",
        remedy=(
            "Set `momentum = 0` on the BN layers for the second pass, and set it back after the pass. Do not call "
            "`eval()` for it, because BN would then normalise with the running averages."
        ),
        section="chapters/torch_parts.ipynb#what-runs-the-forward-pass-again",
    ),
    "unfrozen-later": Advice(
        group="after",
        symptom=(
            "The loss jumps (is huge) when I unfreeze batch norm, after a training with frozen batch norm, or when I "
            "resume it in train mode"
        ),
        cause=(
            "The weights were trained with the frozen statistics. In train mode, BN uses the statistics of the batch, "
            "which differ from the frozen ones, so each layer gets other inputs than before."
        ),
        test='loss["train"] > 1.5 * loss["eval"]',
        remedy=(
            "Keep BN frozen to the end: call `eval()` on its layers after each `model.train()` (Keras: "
            "`layer.trainable = False`). If you want to train with BN, unfreeze it from the start."
        ),
        section=f"{TRAINING}#should-i-freeze-batch-norm-when-i-fine-tune",
    ),
    "adapter-without-buffers": Advice(
        group="after",
        symptom=(
            "LoRA (PEFT) or another adapter in a network with batch norm: the outputs differ after saving and loading"
        ),
        cause=(
            "The file of the adapter has the trained parameters only. But BN's running averages changed in training, "
            "too, because the network was in train mode. Here `adapter` is the loaded dictionary."
        ),
        test=(
            'any(key.endswith("running_mean") for key in model.state_dict()) and not any(key.endswith("running_mean") '
            "for key in adapter)"
        ),
        remedy=(
            "Keep BN in eval mode in training: call `eval()` on its layers after each `model.train()`. Or save the "
            "buffers as well; PEFT does so for the layers named in `modules_to_save`."
        ),
        section=f"{TRAINING}#should-i-freeze-batch-norm-when-i-fine-tune",
    ),
}
"""Causes of running averages that are not updated, by a short name."""
