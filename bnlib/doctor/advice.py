"""What is known about each kind of finding: how it shows, how to test for it, what to do, and where to read on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Advice:
    """What is known about one cause of trouble with batch norm.

    Attributes:
        group: what one sees first, a key of ``SYMPTOM_GROUPS``.
        symptom: what one sees, in the words that people search for; Markdown.
        cause: why; Markdown.
        test: a Python expression that is true if this is the cause; ``TEST_SETUP`` defines its names.
        remedy: what to do; Markdown.
        section: path of the notebook that explains the problem, with the anchor of the section.
    """

    group: str
    symptom: str
    cause: str
    test: str
    remedy: str
    section: str


_FORMULA, _OBJECTIVE, _PERILS, _FAILING, _DEPTH, _TRAINING = (
    f"chapters/{stem}.ipynb"
    for stem in (
        "01_the_formula",
        "04_the_objective",
        "06_perils",
        "07_why_is_my_bn_failing",
        "08_deep_stacks",
        "11_training_code",
    )
)

ADVICE: dict[str, Advice] = {
    "one-value-per-channel": Advice(
        group="error",
        symptom=(
            "Training stops with “Expected more than 1 value per channel when training, got input size "
            "torch.Size([1, 512])”"
        ),
        cause=(
            "A batch gives a layer one value per channel: one sample after a linear layer, or after pooling to one "
            "position. Often it is the incomplete last batch of an epoch."
        ),
        test="min(len(x) for x, y in batches) == 1",
        remedy=(
            "For training, use larger batches and drop an incomplete last batch (`DataLoader(drop_last=True)`), or "
            "use a norm that works with one sample: `bnlib.FullNorm`, GroupNorm or LayerNorm. For predictions, call "
            "`model.eval()` first."
        ),
        section=_FORMULA + "#forward",
    ),
    "train-mode-at-inference": Advice(
        group="batch",
        symptom=(
            "The same image gets a different prediction in each batch, or with batch size 1 a single image gets the "
            "same output as any other: always the same class"
        ),
        cause="The network predicts in train mode, because `model.eval()` was not called.",
        test="any(bn.training for bn in bns)",
        remedy=(
            "Call `model.eval()` before predicting. If the model was traced or exported in train mode, export it "
            "again in eval mode."
        ),
        section=_PERILS + "#predictions-in-train-mode",
    ),
    "no-running-statistics": Advice(
        group="batch",
        symptom=(
            "Predictions change with the batch although `model.eval()` was called, and the layers have "
            "`track_running_stats=False`"
        ),
        cause="The layers keep no running averages, so eval mode uses the statistics of the batch.",
        test="any(bn.running_mean is None for bn in bns)",
        remedy=(
            "Set `track_running_stats=True` and train again, or use a norm that does not depend on the batch, such as"
            " GroupNorm."
        ),
        section=_FORMULA + "#two-modes-and-the-averages-between-them",
    ),
    "eval-mode-distorted": Advice(
        group="eval",
        symptom=(
            "Eval mode is much worse than train mode, although the running statistics of no single layer look wrong"
        ),
        cause=(
            "The running averages do not belong to these weights or these data: they come from another model, as with "
            "averaged weights or federated clients, or from other data. Small errors in many layers add up."
        ),
        test='loss["eval"] > 1.5 * loss["eval_recomputed"]',
        remedy=(
            "Recompute the statistics: `torch.optim.swa_utils.update_bn(batches, model)`. For FullNorm and BatchRenorm,"
            " call the model on batches in train mode. Then look for the cause: averaged or loaded weights with the "
            "buffers of another model, too few batches in train mode, or inputs that are not those of training."
        ),
        section=_FAILING + "#running-averages",
    ),
    "eval-worse-than-train": Advice(
        group="eval",
        symptom="Eval mode is worse than train mode, and recomputing the running statistics does not help",
        cause="Train mode uses something that eval mode does not have, such as the statistics of these very batches.",
        test='loss["eval"] > 1.5 * loss["train"]',
        remedy=(
            "Compare the four losses of `bnlib.doctor.losses_by_mode` on several shuffled batches: they tell which "
            "statistics the network relies on."
        ),
        section=_FAILING + "#running-averages",
    ),
    "running-statistics-never-updated": Advice(
        group="eval",
        symptom=(
            "After `model.eval()` the network is as bad as without training, and `running_var` is still 1 in all "
            "channels"
        ),
        cause=(
            "The running averages have their initial values: the layer was never called in train mode, or its "
            "buffers were not loaded."
        ),
        test="any((bn.running_var == 1).all() for bn in bns)",
        remedy=(
            "Train in train mode with a momentum above 0, or load the buffers together with the weights. To compute "
            "the statistics now, call `torch.optim.swa_utils.update_bn(batches, model)`; for FullNorm and "
            "BatchRenorm, call the model on batches in train mode."
        ),
        section=_FAILING + "#running-averages",
    ),
    "running-statistics-mismatch": Advice(
        group="eval",
        symptom=(
            "The training loss goes down, but the validation loss explodes or jumps; accuracy drops when I call "
            "`model.eval()`"
        ),
        cause=(
            "The running averages do not describe the current network: they have seen too few batches, they are "
            "late (the weights have changed since), or the data have changed."
        ),
        test='loss["eval"] > 1.5 * loss["eval_recomputed"]',
        remedy=(
            "Recompute the statistics on data like these: call `torch.optim.swa_utils.update_bn(batches, model)`; for"
            " FullNorm and BatchRenorm, call the model on batches in train mode. Then look for the cause: different "
            "preprocessing, a learning rate too large for the momentum, or buffers of another checkpoint."
        ),
        section=_FAILING + "#running-averages",
    ),
    "shared-layer": Advice(
        group="eval",
        symptom=(
            "Eval mode is bad even with recomputed statistics, in a Siamese network, a recurrent network or another "
            "network that uses a layer several times"
        ),
        cause="The network calls one BN layer several times in a pass, on inputs with different statistics.",
        test='"shared-layer" in bnlib.diagnose(model, batches).codes',
        remedy=(
            "Use a separate norm layer for each kind of input (`bnlib.DomainBatchNorm`, or one layer per time step), "
            "or pass all inputs through the layer in one batch."
        ),
        section=_PERILS + "#two-towers",
    ),
    "domain-statistics-differ": Advice(
        group="eval",
        symptom="Training on several data sets works in train mode, but eval mode is bad on each data set",
        cause=(
            "Each training batch comes from one domain, but the running averages pool all domains. `domains` holds "
            "the batches of each domain by its name."
        ),
        test='"domain-statistics-differ" in bnlib.diagnose(model, batches, domains=domains).codes',
        remedy=(
            "Mix the domains in each batch, or keep statistics for each domain with `bnlib.DomainBatchNorm`. If you "
            "cannot train again, recompute the statistics on each domain separately; statistics of the pooled data do"
            " not help."
        ),
        section=_PERILS + "#why-no-single-statistic-is-right",
    ),
    "batches-not-representative": Advice(
        group="eval",
        symptom=(
            "The training accuracy is nearly 100 %, but eval mode guesses, even on the training set; the data are "
            "sorted by class"
        ),
        cause="Each batch holds one kind of sample, so its statistics give away the label.",
        test="any(len(y.unique()) == 1 for x, y in batches)",
        remedy=(
            "Shuffle the samples (`DataLoader(shuffle=True)`) so that each batch looks like the data set. If the "
            "batches cannot be changed, use `bnlib.FullNorm` or a norm that does not depend on the batch."
        ),
        section=_OBJECTIVE + "#objective-and-evaluation",
    ),
    "batch-composition-memorised": Advice(
        group="eval",
        symptom="The training loss is low, but it rises when I reshuffle the same samples; test accuracy is bad",
        cause=(
            "The batches are the same in each epoch (`shuffle=False`, cached batches, no `set_epoch`), and the "
            "network has memorised them."
        ),
        test='loss["train_reshuffled"] > 1.5 * loss["train"]',
        remedy=(
            "Shuffle the samples again in each epoch (`DataLoader(shuffle=True)`), so that each sample is in a batch "
            "with other samples each time."
        ),
        section=_FAILING + "#batches-that-are-never-reshuffled",
    ),
    "eval-depends-on-batch": Advice(
        group="batch",
        symptom="After `model.eval()` the output for an image still depends on the other images in the batch",
        cause=(
            "A layer does not follow the mode: `F.batch_norm(training=True)`, layers in a plain list, or a call of "
            "`train()` in `forward`."
        ),
        test="not torch.allclose(model.eval()(x)[:2], model(x[:2]), atol=1e-3)",
        remedy=(
            "Make each layer follow its own mode: call `F.batch_norm(..., training=self.training)`, keep layers in "
            "`nn.ModuleList` or `nn.Sequential` instead of a list, and do not call `train()` on a submodule in "
            "`forward()` or `train()`."
        ),
        section=_FAILING + "#the-mode-is-read-from-the-wrong-place",
    ),
    "relies-on-batch-statistics": Advice(
        group="eval",
        symptom=(
            "With one or two images per batch, training works and eval mode is bad; recomputing the statistics does "
            "not help"
        ),
        cause="In train mode, the statistics of a tiny batch tell the network something about its images.",
        test='loss["eval_recomputed"] > 1.5 * loss["train"]',
        remedy=(
            "Train with more samples in each batch, because the statistics of one or two images mostly describe these"
            " images. Or use a norm that is the same in both modes: GroupNorm, or InstanceNorm, which does what BN "
            "does to a single image."
        ),
        section=_FAILING + "#small-batches",
    ),
    "zero-gamma": Advice(
        group="training",
        symptom=(
            "The network does not learn: the loss stays at that of guessing (2.3 for ten classes), and gradients are"
            " exactly zero"
        ),
        cause="Gamma and beta of a layer in front of a ReLU are 0.",
        test="any(not bn.weight.grad.any() for bn in bns)",
        remedy=(
            "Initialise gamma to 1. Use 0 only in the last norm of a residual branch, where the skip connection "
            "passes the gradient on."
        ),
        section=_FAILING + "#gamma-is-zero",
    ),
    "variance-below-eps": Advice(
        group="training",
        symptom="Training is slow with inputs in tiny units, such as metres instead of millimetres",
        cause="The variance of the input is smaller than `eps`, so the layer does not normalise.",
        test="any(bn.running_var.median() < bn.eps for bn in bns)",
        remedy=(
            "Scale the inputs to a variance near 1, remove constant features, and look for dead units below this "
            "layer. Do not only lower eps: then rounding errors grow, in dead units and in a bias in front of BN."
        ),
        section=_FAILING + "#inputs-in-other-units",
    ),
    "gradient-explosion": Advice(
        group="training",
        symptom="A deep network without skip connections does not train, and the gradients of its first layers explode",
        cause="With BN and ReLU, the gradient grows by a factor of about 1.2 in each layer.",
        test="bns[0].weight.grad.norm() > 1000 * bns[-1].weight.grad.norm()",
        remedy=(
            "Use fewer layers, or residual (skip) connections. A residual network trains at large learning rates if "
            "it has a norm before its last layer, as with pre-activation blocks, or gamma 0 in the last norm of each "
            "branch; with neither, only at small ones. Rescaling the weights, a larger eps, Batch Renorm, gradient "
            "clipping or warm-up do not help."
        ),
        section=_DEPTH + "#why-the-gradient-grows",
    ),
    "small-batches": Advice(
        group="training",
        symptom=(
            "Training is erratic or inaccurate with a small batch size, as in detection or segmentation; gradient "
            "accumulation does not help"
        ),
        cause="The statistics of a few samples are noisy.",
        test="len(x) < 16",
        remedy=(
            "If the model is bad in eval mode as well, use larger batches, SyncBatchNorm over several devices, "
            "`bnlib.FullNorm`, or a norm that does not depend on the batch. Accumulating gradients does not help, "
            "because BN still computes its statistics from each micro-batch."
        ),
        section=_FAILING + "#small-batches",
    ),
    "loss-higher-in-train-mode": Advice(
        group="training",
        symptom="The training loss is higher than the validation loss",
        cause="In train mode, the noise of small batches raises the loss; eval mode does not have this noise.",
        test='loss["train"] > 1.5 * loss["eval"]',
        remedy="No cure is needed. Judge the network by its loss in eval mode.",
        section=_FAILING + "#small-batches",
    ),
    "frozen-layer-updates-statistics": Advice(
        group="after",
        symptom="I froze the backbone with `requires_grad_(False)`, but its outputs still change during fine-tuning",
        cause="In train mode a frozen layer still updates its running averages.",
        test="any(bn.training and not bn.weight.requires_grad for bn in bns)",
        remedy=(
            "Call `eval()` on frozen norm layers after each `model.train()`, because `requires_grad_(False)` does not"
            " stop the updates of the running statistics."
        ),
        section=_PERILS + "#exercise-1-find-the-bug",
    ),
    "half-precision-statistics": Advice(
        group="after",
        symptom="Eval mode is inaccurate after training with `model.half()` or with all weights in bfloat16",
        cause=(
            "The running averages have 16 bits. Rounding swallows small updates, so the averages stop short of the "
            "data. In float16, variances above 65,504 overflow."
        ),
        test="any(bn.running_var.itemsize < 4 for bn in bns)",
        remedy=(
            "Keep norm layers in float32: call `layer.float()` on them after `model.half()`, or train with "
            "`torch.autocast`, which keeps them in float32."
        ),
        section=_TRAINING + "#running-statistics-in-half-precision",
    ),
    "unusual-momentum": Advice(
        group="eval",
        symptom=(
            "The validation accuracy jumps from one epoch to the next, with a momentum copied from Keras or TensorFlow"
        ),
        cause="The momentum is near 1, so the running averages describe the last batch only.",
        test="max(bn.momentum or 0 for bn in bns) > 0.5",
        remedy=(
            "Use a momentum of about 0.1. PyTorch's momentum is the weight of the newest batch, so Keras's 0.99 is "
            "0.01 in PyTorch."
        ),
        section=_FORMULA + "#two-modes-and-the-averages-between-them",
    ),
    "non-finite-values": Advice(
        group="error",
        symptom="The loss is NaN in eval mode only, or `running_mean` or `running_var` is NaN or inf",
        cause="One batch with NaN or huge values was enough: train mode forgets it, the running averages do not.",
        test="any(not value.isfinite().all() for value in model.buffers())",
        remedy=(
            "Recompute the statistics: `torch.optim.swa_utils.update_bn(batches, model)` resets them first. Then look "
            "for the cause: an infinite input, an overflow, or a learning rate at which training diverged."
        ),
        section=_TRAINING + "#one-bad-batch-and-eval-mode-is-nan",
    ),
}
"""The advice for each finding, by the finding's code."""
