"""What to do about each kind of finding, and which chapter explains it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Advice:
    """What to do about one kind of finding.

    Attributes:
        remedy: what to do, in one or two sentences.
        chapter: path of the notebook that explains the problem.
    """

    remedy: str
    chapter: str


_FORMULA, _OBJECTIVE, _PERILS, _FAILING, _DEPTH = (
    f"chapters/{stem}.ipynb"
    for stem in ("01_the_formula", "04_the_objective", "06_perils", "07_why_is_my_bn_failing", "08_deep_stacks")
)

ADVICE: dict[str, Advice] = {
    "one-value-per-channel": Advice(
        "For training, use larger batches and drop an incomplete last batch (DataLoader(drop_last=True)), or use a "
        "norm that works with one sample: bnlib.FullNorm, GroupNorm or LayerNorm. For predictions, "
        "call model.eval() first.",
        _FORMULA,
    ),
    "train-mode-at-inference": Advice(
        "Call model.eval() before predicting. If the model was traced or exported in train mode, export it again in "
        "eval mode.",
        _PERILS,
    ),
    "no-running-statistics": Advice(
        "Set track_running_stats=True and train again, or use a norm that does not depend on the batch, such as "
        "GroupNorm.",
        _FORMULA,
    ),
    "running-statistics-never-updated": Advice(
        "Train in train mode with a momentum above 0, or load the buffers together with the weights. To compute the "
        "statistics now, call torch.optim.swa_utils.update_bn(batches, model); for FullNorm and BatchRenorm, call the "
        "model on batches in train mode.",
        _FAILING,
    ),
    "running-statistics-mismatch": Advice(
        "Recompute the statistics on data like these: call torch.optim.swa_utils.update_bn(batches, model); for "
        "FullNorm and BatchRenorm, call the model on batches in train mode. Then look for the cause: different "
        "preprocessing, a learning rate too large for the momentum, or buffers of another checkpoint.",
        _FAILING,
    ),
    "shared-layer": Advice(
        "Use a separate norm layer for each kind of input (bnlib.DomainBatchNorm, or one layer per time step), or pass "
        "all inputs through the layer in one batch.",
        _PERILS,
    ),
    "domain-statistics-differ": Advice(
        "Mix the domains in each batch, or keep statistics for each domain with bnlib.DomainBatchNorm. If you cannot "
        "train again, recompute the statistics on each domain separately; statistics of the pooled data do not help.",
        _PERILS,
    ),
    "batches-not-representative": Advice(
        "Shuffle the samples (DataLoader(shuffle=True)) so that each batch looks like the data set. If the batches "
        "cannot be changed, use bnlib.FullNorm or a norm that does not depend on the batch.",
        _OBJECTIVE,
    ),
    "batch-composition-memorised": Advice(
        "Shuffle the samples again in each epoch (DataLoader(shuffle=True)), so that each sample is in a batch with "
        "other samples each time.",
        _FAILING,
    ),
    "eval-depends-on-batch": Advice(
        "Make each layer follow its own mode: call F.batch_norm(..., training=self.training), keep layers in "
        "nn.ModuleList or nn.Sequential instead of a list, and do not call train() on a submodule in forward() or "
        "train().",
        _FAILING,
    ),
    "relies-on-batch-statistics": Advice(
        "Train with more samples in each batch, because the statistics of one or two images mostly describe these "
        "images. Or use a norm that is the same in both modes: GroupNorm, or InstanceNorm, which does what BN does to "
        "a single image.",
        _FAILING,
    ),
    "zero-gamma": Advice(
        "Initialise gamma to 1. Use 0 only in the last norm of a residual branch, where the skip connection passes the "
        "gradient on.",
        _FAILING,
    ),
    "variance-below-eps": Advice(
        "Scale the inputs to a variance near 1, remove constant features, and look for dead units below this layer. A "
        "smaller eps would only amplify noise.",
        _FAILING,
    ),
    "gradient-explosion": Advice(
        "Use fewer layers, or residual connections with a small gamma (0 or 0.1) in the last norm of each branch. "
        "Rescaling the weights, a larger eps or a learning rate warm-up do not help.",
        _DEPTH,
    ),
    "small-batches": Advice(
        "If the model is bad in eval mode as well, use larger batches, SyncBatchNorm over several devices, "
        "bnlib.FullNorm, or a norm that does not depend on the batch. Accumulating gradients does not help, because "
        "the statistics are still those of each micro-batch.",
        _FAILING,
    ),
    "frozen-layer-updates-statistics": Advice(
        "Call eval() on frozen norm layers after each model.train(), because requires_grad_(False) does not stop the "
        "updates of the running statistics.",
        _PERILS,
    ),
    "half-precision-statistics": Advice(
        "Keep norm layers in float32: call layer.float() on them after model.half(), or train with torch.autocast, "
        "which keeps them in float32.",
        _FORMULA,
    ),
    "unusual-momentum": Advice(
        "Use a momentum of about 0.1. PyTorch's momentum is the weight of the newest batch, so Keras's 0.99 is 0.01 in "
        "PyTorch.",
        _FAILING,
    ),
    "non-finite-values": Advice(
        "Reset the layer (layer.reset_running_stats()) and look for the cause: a batch without variance, an overflow, "
        "or a learning rate at which training diverged.",
        _FORMULA,
    ),
}
"""The advice for each finding, by the finding's code."""
