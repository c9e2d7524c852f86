"""Findings and the report that holds them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bnlib.doctor.advice import ADVICE

SEVERITIES = ("error", "warning", "note")
"""From the most to the least severe."""

_LINE_WIDTH = 100


@dataclass(frozen=True)
class Finding:
    """One problem, or one fact worth knowing, about the batch normalisation of a model.

    Attributes:
        code: the kind of finding, a key of ``ADVICE``.
        layer: name of the layer, as in ``model.named_modules()``; "" if it concerns the whole model or the batches.
        severity: "error" (results are wrong), "warning" (results may be wrong) or "note".
        evidence: what was measured.
        remedy: what to do.
        section: path of the notebook that explains the problem, with the anchor of the section.
    """

    code: str
    layer: str
    severity: str
    evidence: str
    remedy: str
    section: str


def make_finding(code: str, layer: str, severity: str, evidence: str) -> Finding:
    """Make a finding with the advice for its code, as plain text."""
    return Finding(code, layer, severity, evidence, ADVICE[code].remedy.replace("`", ""), ADVICE[code].section)


class Report(Sequence[Finding]):
    """The findings of a diagnosis, the most severe first.

    A report is a sequence: ``if report`` asks whether there are findings, ``report[0]`` is the first. Print a report to
    read it; at the end of a notebook cell it is shown as printed.

    Arguments:
        findings: in any order.
        remarks: sentences about what could not be checked.

    Attributes:
        remarks: as passed, as a tuple.

    Example:
        >>> report = bnlib.diagnose(bnlib.BatchNorm(3), [torch.ones(1, 3)])
        >>> len(report), report.codes
        (2, ['one-value-per-channel', 'running-statistics-never-updated'])
        >>> print(doctor.Report(report.by_code("one-value-per-channel")))
        1 error
        <BLANKLINE>
        ERROR one-value-per-channel
          In train mode, 1 of 1 batches give this layer one value per channel. That value is its own mean,
          so the output is beta for any input.
          For training, use larger batches and drop an incomplete last batch (DataLoader(drop_last=True)),
          or use a norm that works with one sample: bnlib.FullNorm, GroupNorm or LayerNorm. For predictions,
          call model.eval() first.
          See chapters/01_the_formula.ipynb#forward
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

    def _repr_pretty_(self, printer, cycle: bool) -> None:
        """Show the printed form in IPython and Jupyter."""
        printer.text(str(self))

    @property
    def codes(self) -> list[str]:
        """The codes of the findings, each once, the most severe first."""
        return list(dict.fromkeys(each.code for each in self))

    def by_code(self, code: str) -> list[Finding]:
        """Return all findings with a code.

        Raises:
            ValueError: the code is not a key of ``ADVICE``.
        """
        if code not in ADVICE:
            raise ValueError(f"code must be one of {', '.join(ADVICE)}, got {code!r}")
        return [each for each in self if each.code == code]

    def __str__(self) -> str:
        counts = {severity: sum(each.severity == severity for each in self) for severity in SEVERITIES}
        totals = [f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items() if count]
        groups: dict[tuple[str, str], list[Finding]] = {}
        for each in self:
            groups.setdefault((each.severity, each.code), []).append(each)
        nothing = "No problems found by the checks that ran." if self.remarks else "No problems found."
        lines = [", ".join(totals) if totals else nothing]
        lines += [_paragraph(group) for group in groups.values()]
        lines += [textwrap.fill(remark, _LINE_WIDTH) for remark in self.remarks]
        return "\n\n".join(lines)


def _paragraph(group: Sequence[Finding]) -> str:
    """Return the text for all findings of one code: the evidence for the first layer and the names of the others."""
    first, *others = group
    where = f" in layer {first.layer}" if first.layer else ""
    lines = [f"{first.severity.upper()} {first.code}{where}"]
    texts = [first.evidence]
    if others:
        names = [each.layer for each in others[:8]] + ["..."] * (len(others) > 8)
        texts.append(f"Also in {len(others)} other layer{'s' * (len(others) > 1)}: {', '.join(names)}.")
    texts += [first.remedy, f"See {first.section}"]
    for text in texts:
        # Paths and calls stay on one line, so that they can be copied.
        lines.append(
            textwrap.fill(text, _LINE_WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        )
    return "\n".join(lines)
