"""What the doctor says: findings, the advice for each kind of them, and the report that holds them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SEVERITIES = ("error", "warning", "note")
"""From the worst to what is only worth knowing."""

_WIDTH = 100


@dataclass(frozen=True)
class Advice:
    """What to do about one kind of finding, and where the book explains it.

    Attributes:
        remedy: a sentence or two.
        chapter: path of the notebook.
    """

    remedy: str
    chapter: str


_FORMULA, _OBJECTIVE, _PERILS, _FAILING, _DEPTH = (
    f"chapters/{stem}.ipynb"
    for stem in ("01_the_formula", "04_the_objective", "06_perils", "07_why_is_my_bn_failing", "08_deep_stacks")
)

ADVICE: dict[str, Advice] = {
    "one-value-per-channel": Advice(
        "Use larger batches and drop the incomplete last one (drop_last=True), or a norm that takes one sample: "
        "bnlib.FullNorm, GroupNorm, LayerNorm. To predict, call model.eval() first.",
        _FORMULA,
    ),
    "train-mode-inference": Advice(
        "Call model.eval() before predicting. A model that was traced or exported in train mode must be exported anew.",
        _PERILS,
    ),
    "no-running-statistics": Advice(
        "Set track_running_stats=True and train, or take a norm that does not depend on the batch, such as GroupNorm.",
        _FORMULA,
    ),
    "statistics-never-updated": Advice(
        "Train in train mode with momentum above 0, load the buffers with the weights, or estimate them now: "
        "torch.optim.swa_utils.update_bn(batches, model); for FullNorm and BatchRenorm, batches in train mode.",
        _FAILING,
    ),
    "statistics-far-from-data": Advice(
        "Estimate the statistics anew from data like these (torch.optim.swa_utils.update_bn(batches, model); for "
        "FullNorm and BatchRenorm, batches in train mode), and look for what differs: preprocessing, a learning rate "
        "too large for the momentum, buffers of another checkpoint.",
        _FAILING,
    ),
    "shared-layer": Advice(
        "Give each use a norm layer of its own (bnlib.DomainBatchNorm, or one layer a time step), or send all inputs "
        "through as one batch.",
        _PERILS,
    ),
    "domains-differ": Advice(
        "Mix the domains in each batch, or keep statistics for each with bnlib.DomainBatchNorm; without training "
        "again, estimate the statistics of each domain by itself. Statistics of the pooled data do not help.",
        _PERILS,
    ),
    "batches-not-representative": Advice(
        "Shuffle the samples (DataLoader(shuffle=True)) so that each batch looks like the data set; where batches must "
        "be as they are, use bnlib.FullNorm or a norm that does not depend on the batch.",
        _OBJECTIVE,
    ),
    "company-memorised": Advice(
        "Shuffle the samples anew in each epoch (DataLoader(shuffle=True)), so that no sample keeps its company.",
        _FAILING,
    ),
    "eval-depends-on-batch": Advice(
        "Let each layer go by its own mode: F.batch_norm(..., training=self.training), layers in nn.ModuleList or "
        "nn.Sequential instead of a list, and no train() of a child in forward() or train().",
        _FAILING,
    ),
    "batch-statistics-needed": Advice(
        "Train with more samples in each batch: statistics of one or two pictures are mostly their own. Or use a norm "
        "that is the same in both modes: GroupNorm, or InstanceNorm, which is what BN does to a single picture.",
        _FAILING,
    ),
    "zero-gamma": Advice(
        "Start gamma at 1. At 0 it belongs only into the last norm of a residual branch, where the shortcut passes "
        "the gradient on.",
        _FAILING,
    ),
    "variance-near-eps": Advice(
        "Scale the inputs to a variance near 1, remove constant features, or look for dead units below the layer; a "
        "smaller eps only amplifies noise.",
        _FAILING,
    ),
    "gradient-explosion": Advice(
        "Use fewer layers, or residual connections with a small gamma, 0 or 0.1, in the last norm of each branch. "
        "Another scale of the weights, a larger eps or a warm-up do not help.",
        _DEPTH,
    ),
    "tiny-batches": Advice(
        "Where eval mode is bad, too, use larger batches, SyncBatchNorm over the devices, bnlib.FullNorm, or a norm "
        "that does not depend on the batch. Accumulating gradients does not help: statistics are those of each "
        "micro-batch.",
        _FAILING,
    ),
    "frozen-but-updating": Advice(
        "Put frozen norm layers into eval mode after each model.train(): requires_grad_(False) does not stop the "
        "running statistics.",
        _PERILS,
    ),
    "half-precision-statistics": Advice(
        "Keep norm layers in float32 (layer.float() after model.half()), or train with torch.autocast, which does.",
        _FORMULA,
    ),
    "odd-momentum": Advice(
        "torch's momentum is the weight of the newest batch: 0.1 is usual. Keras's 0.99 is torch's 0.01.", _FAILING
    ),
    "not-finite": Advice(
        "Reset the layer (reset_running_stats) and look for the batch that did it: one without variance, an overflow, "
        "or a learning rate that diverged.",
        _FORMULA,
    ),
}
"""By the code of the finding."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        code: its kind, a key of ``ADVICE``.
        layer: qualified name of the layer; "" if it is about the whole model or the batches.
        severity: "error" (results are wrong), "warning" (they may be) or "note".
        evidence: what was measured.
        remedy: what to do.
        chapter: path of the notebook that explains it.
    """

    code: str
    layer: str
    severity: str
    evidence: str
    remedy: str
    chapter: str


def finding(code: str, layer: str, severity: str, evidence: str) -> Finding:
    """Make a finding with the advice for its code."""
    return Finding(code, layer, severity, evidence, ADVICE[code].remedy, ADVICE[code].chapter)


class Report(Sequence[Finding]):
    """Findings, the worst first; true if there are any, and readable when printed.

    Arguments:
        findings: in any order.
        remarks: sentences on what could not be looked at.

    Attributes:
        remarks: as given.

    Example:
        >>> report = bnlib.diagnose(bnlib.BatchNorm(3), [torch.ones(1, 3)])
        >>> len(report), report.codes
        (2, ['one-value-per-channel', 'statistics-never-updated'])
        >>> print(doctor.Report(report.by_code("one-value-per-channel")))
        1 error
        <BLANKLINE>
        ERROR one-value-per-channel
          In train mode 1 of 1 batches give it one value a channel, which is its own mean: the output is
          beta, whatever the input.
          Use larger batches and drop the incomplete last one (drop_last=True), or a norm that takes one
          sample: bnlib.FullNorm, GroupNorm, LayerNorm. To predict, call model.eval() first.
          See chapters/01_the_formula.ipynb.
    """

    def __init__(self, findings: Iterable[Finding] = (), remarks: Iterable[str] = ()) -> None:
        self._findings = tuple(sorted(findings, key=lambda each: SEVERITIES.index(each.severity)))
        self.remarks = tuple(remarks)

    def __getitem__(self, index):
        return self._findings[index]

    def __len__(self) -> int:
        return len(self._findings)

    def __repr__(self) -> str:
        return f"Report({list(self._findings)!r}, remarks={list(self.remarks)!r})"

    @property
    def codes(self) -> list[str]:
        """The codes that were found, each once, the worst first."""
        return list(dict.fromkeys(each.code for each in self))

    def by_code(self, code: str) -> list[Finding]:
        """All findings of a kind.

        Raises:
            ValueError: there is no such kind.
        """
        if code not in ADVICE:
            raise ValueError(f"code must be one of {', '.join(ADVICE)}, got {code!r}")
        return [each for each in self if each.code == code]

    def __str__(self) -> str:
        counts = {severity: sum(each.severity == severity for each in self) for severity in SEVERITIES}
        said = [f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items() if count]
        groups: dict[tuple[str, str], list[Finding]] = {}
        for each in self:
            groups.setdefault((each.severity, each.code), []).append(each)
        lines = [", ".join(said) if said else "Nothing found."]
        lines += [_paragraph(group) for group in groups.values()]
        lines += [textwrap.fill(remark, _WIDTH) for remark in self.remarks]
        return "\n\n".join(lines)


def _paragraph(group: Sequence[Finding]) -> str:
    """One kind of finding: the evidence of its first layer, and the names of the others."""
    first, *others = group
    where = f" at {first.layer}" if first.layer else ""
    lines = [f"{first.severity.upper()} {first.code}{where}"]
    texts = [first.evidence]
    if others:
        names = [each.layer for each in others[:8]] + ["..."] * (len(others) > 8)
        texts.append(f"Also at {len(others)} other{'s' * (len(others) > 1)}: {', '.join(names)}.")
    texts += [first.remedy, f"See {first.chapter}."]
    for text in texts:
        # A path or a call is to be copied, not broken.
        lines.append(textwrap.fill(text, _WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False))
    return "\n".join(lines)
