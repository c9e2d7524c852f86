"""Findings and the report that holds them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bnlib.arguments import check_one_of
from bnlib.doctor.advice import ADVICE
from bnlib.doctor.headings import book_address, described_section, section_address

SEVERITIES = ("error", "warning", "note")
"""From the most to the least severe."""

_LINE_WIDTH = 100
_NO_BREAK = "\N{NO-BREAK SPACE}"


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
        values: the measured numbers behind the evidence by name, from which a report draws its pictures; the page on
            the doctor in the reference describes them. Numbers, texts, lists and dictionaries only.
    """

    code: str
    layer: str
    severity: str
    evidence: str
    remedy: str
    section: str
    values: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


def make_finding(
    code: str, layer: str, severity: str, evidence: str, values: Mapping[str, Any] | None = None
) -> Finding:
    """Make a finding with the advice for its code, as plain text."""
    advice = ADVICE[code]
    return Finding(code, layer, severity, evidence, advice.remedy.replace("`", ""), advice.section, values or {})


class Report(Sequence[Finding]):
    """The findings of a diagnosis, the most severe first.

    A report is a sequence: ``if report`` asks whether there are findings, ``report[0]`` is the first. Print a report to
    read it. At the end of a notebook cell it is shown with pictures, as ``to_html`` writes them.

    Arguments:
        findings: in any order.
        remarks: sentences about what could not be checked.
        checked: False if there was nothing to check: the model has no layer with batch statistics, or calls none.

    Attributes:
        remarks: as passed, as a tuple.
        checked: as passed.

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
          See chapter 1, “Forward”, or run: python -m bnlib explain one-value-per-channel
    """

    def __init__(self, findings: Iterable[Finding] = (), remarks: Iterable[str] = (), *, checked: bool = True) -> None:
        self._findings = tuple(sorted(findings, key=lambda each: SEVERITIES.index(each.severity)))
        self.remarks, self.checked = tuple(remarks), checked

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

    def at_least(self, severity: str) -> list[Finding]:
        """Return the findings that are at least as severe as "error", "warning" or "note".

        Raises:
            ValueError: there is no such severity.
        """
        check_one_of("severity", severity, SEVERITIES)
        return [each for each in self if SEVERITIES.index(each.severity) <= SEVERITIES.index(severity)]

    def groups(self) -> list[list[Finding]]:
        """Return the findings grouped by severity and code: one problem that was found in several layers."""
        found: dict[tuple[str, str], list[Finding]] = {}
        for each in self:
            found.setdefault((each.severity, each.code), []).append(each)
        return list(found.values())

    @property
    def summary(self) -> str:
        """How many problems there are of each severity, such as ``2 errors, 1 note``; or that there is none.

        A problem that was found in several layers counts once.
        """
        problems = [group[0].severity for group in self.groups()]
        counts = {severity: problems.count(severity) for severity in SEVERITIES}
        totals = [f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items() if count]
        if totals:
            return ", ".join(totals)
        if not self.checked:
            return "Nothing was checked."
        return "No problems found by the checks that ran." if self.remarks else "No problems found."

    def __str__(self) -> str:
        return self.to_text()

    def to_text(self, *, book: str | None = None) -> str:
        """Return the report as text; ``print(report)`` prints the same.

        Arguments:
            book: address of the book's site, for links to its sections. By default it is what the environment variable
                ``BNLIB_BOOK`` or the installed package names; without one, the text names the command that explains.
        """
        address = book_address(book)
        lines = [self.summary, *(_paragraph(group, address) for group in self.groups())]
        return "\n\n".join([*lines, *(textwrap.fill(remark, _LINE_WIDTH) for remark in self.remarks)])

    def as_dict(self, *, book: str | None = None) -> dict[str, Any]:
        """Return the report as dictionaries, lists, texts and numbers, in the schema that the reference documents.

        Arguments:
            book: see ``to_text``.
        """
        from bnlib.doctor.report_json import as_dict  # imported here because that file imports this one

        return as_dict(self, book_address(book))

    def to_json(self, path: str | Path | None = None, *, book: str | None = None) -> str | None:
        """Return the report as JSON, or write it to a file.

        Arguments:
            path: file to write; None to return the text.
            book: see ``to_text``.

        Raises:
            OSError: the file cannot be written.

        Example:
            >>> report = bnlib.diagnose(bnlib.BatchNorm(3), [torch.ones(1, 3)])
            >>> doctor.Report.from_json(report.to_json()).codes == report.codes
            True
        """
        return _written(json.dumps(self.as_dict(book=book), allow_nan=False), path)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Return the report that ``to_json`` has written.

        Raises:
            ValueError: the text is no such report, or one with another version of the schema.
        """
        from bnlib.doctor.report_json import from_json

        return from_json(text)

    def to_html(self, path: str | Path | None = None, *, book: str | None = None) -> str | None:
        """Return the report as a web page that needs no other file, with pictures; or write it to a file.

        The pictures need matplotlib; without it the page says so.

        Arguments:
            path: file to write; None to return the text.
            book: see ``to_text``.

        Raises:
            OSError: the file cannot be written.

        Example:
            >>> report = bnlib.diagnose(bnlib.BatchNorm(3), [torch.ones(1, 3)])
            >>> page = report.to_html(book="https://example.org/book")
            >>> 'href="https://example.org/book/chapters/01_the_formula.html#forward"' in page
            True
        """
        from bnlib.doctor.report_html import page

        return _written(page(self, book_address(book)), path)

    def _repr_html_(self) -> str:
        from bnlib.doctor.report_html import fragment

        return fragment(self, book_address(None))


def _written(text: str, path: str | Path | None) -> str | None:
    if path is None:
        return text
    Path(path).write_text(text, encoding="utf-8")
    return None


def _paragraph(group: Sequence[Finding], book: str) -> str:
    """Return the text for all findings of one code: the evidence for the first layer and the names of the others."""
    first, *others = group
    where = f" in layer {first.layer}" if first.layer else ""
    lines = [f"{first.severity.upper()} {first.code}{where}"]
    texts = [first.evidence]
    if others:
        names = ", ".join(each.layer for each in others[:8]) + f" and {len(others) - 8} more" * (len(others) > 8)
        texts.append(f"Also in {len(others)} other layer{'s' * (len(others) > 1)}: {names}.")
    address = section_address(first.section, book)
    command = f"python -m bnlib explain {first.code}".replace(" ", _NO_BREAK)
    where = f": {address}" if address else f", or run: {command}"
    texts += [first.remedy, f"See {described_section(first.section)}{where}"]
    for text in texts:
        # Paths and calls stay on one line, so that they can be copied.
        lines.append(
            textwrap.fill(text, _LINE_WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        )
    return "\n".join(lines).replace(_NO_BREAK, " ")
