"""Running averages that are not updated: causes that ``bnlib.diagnose`` does not look for."""

from __future__ import annotations

from bnlib.doctor.advice_form import TRAINING, Advice

CAUSES_OF_STALE_STATISTICS: dict[str, Advice] = {
    "tracking-off-is-not-freezing": Advice(
        group="after",
        symptom=(
            "I set `track_running_stats=False` to freeze batch norm (Lightning's `BackboneFinetuning` with "
            "`train_bn=False` does so, too): the training loss stays low, and the validation loss explodes"
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
    "weights-changed-afterwards": Advice(
        group="after",
        symptom=(
            "The accuracy collapses after pruning, or after another change of a trained network's weights, such as "
            "interpolation between two networks, or in a subnet of a supernet (once-for-all, slimmable networks, NAS)"
        ),
        cause=(
            "The weights changed, and the running averages are still those of the old weights. Here `model` is the "
            "changed network."
        ),
        test='loss["eval"] > 1.5 * loss["eval_recomputed"]',
        remedy=(
            "Recompute the statistics: `torch.optim.swa_utils.update_bn(batches, model)`. The loss of accuracy that "
            "remains after that comes from the weights."
        ),
        section="chapters/07_why_is_my_bn_failing.ipynb#running-averages",
    ),
    "average-too-long": Advice(
        group="after",
        symptom=(
            "The validation accuracy of the EMA model lags far behind that of the model, or stays at that of guessing "
            "(with a diffusion model: its samples are noise), and recomputing the statistics does not help"
        ),
        cause=(
            "The decay is too long for this number of steps. With a decay of 0.9998, the initial weights still count "
            "19 % after 8,370 steps. Here `decay` is the decay, `steps` counts the updates."
        ),
        test="decay**steps > 0.01",
        remedy=(
            "Use a smaller decay, so that the training has at least 5 / (1 - decay) steps. Or start with a small decay "
            "(warm-up): `min(decay, (1 + step) / (10 + step))`."
        ),
        section=f"{TRAINING}#which-statistics-belong-to-averaged-weights",
    ),
    "frozen-before-training": Advice(
        group="training",
        symptom=(
            "A detector (Detectron2, MMDetection, YOLACT) with a new backbone does not train: the losses stay high and "
            "mAP is 0, perhaps with small batches only, or it stops with “Predicted boxes or scores contain Inf/NaN. "
            "Training has diverged”"
        ),
        cause=(
            "Detection code freezes BN in the backbone: Detectron2 (`FrozenBN`, or `FrozenBatchNorm2d`), MMDetection "
            "(`norm_eval`), and YOLACT with fewer than 6 images per GPU. A backbone that was not pretrained, or loaded "
            "without its statistics, is then frozen at mean 0 and variance 1, so BN does not normalise."
        ),
        test='any((v == 1).all() for key, v in model.named_buffers() if key.endswith("running_var"))',
        remedy=(
            "Load a pretrained backbone with its running averages. To train from scratch, do not freeze BN "
            '(`norm_eval=False`, `MODEL.RESNETS.NORM: "SyncBN"` and `FREEZE_AT: 0`), and use larger batches or '
            "GroupNorm. For the error with a pretrained backbone, Detectron2's maintainers "
            "suggest a smaller learning rate."
        ),
        section=f"{TRAINING}#should-i-freeze-batch-norm-when-i-fine-tune",
    ),
}
"""Causes of running averages that are not updated, by a short name."""
