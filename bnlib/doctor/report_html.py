"""A report as HTML: a part of a notebook, or a page of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from bnlib.doctor.advice import ADVICE
from bnlib.doctor.headings import described_section, section_address
from bnlib.doctor.report import Finding, Report

_MARKS = {"error": "✖", "warning": "▲", "note": "●"}

_STYLE = """
.bnb-report { max-width: 46rem; line-height: 1.5; overflow-wrap: anywhere; }
.bnb-report article { border: 1px solid #8888; border-left: 5px solid #6c6c6c; border-radius: 4px; padding: 0 0.7rem;
  margin: 1rem 0; }
.bnb-report article.error { border-left-color: #d55e00; }
.bnb-report article.warning { border-left-color: #e69f00; }
.bnb-report :is(p, h2) { margin: 0.7rem 0; font-size: 1rem; }
.bnb-report figure { margin: 1rem 0; }
.bnb-report figcaption { font-size: 0.9em; }
.bnb-report code { overflow-wrap: anywhere; white-space: normal; }
.bnb-report cite { font-style: normal; }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Batch normalisation: {summary}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ background: Canvas; color: CanvasText; font-family: system-ui, sans-serif; margin: 1.5rem auto;
  max-width: 46rem; padding: 0 1rem; }}
h1 {{ font-size: 1.4rem; }}
a {{ color: LinkText; }}
</style>
</head>
<body>
<main>
<h1>The batch normalisation of a model</h1>
{report}
</main>
</body>
</html>
"""


def page(report: Report, book: str) -> str:
    """Return a web page that needs no other file; ``book`` is the address of the book's site, or empty."""
    return _PAGE.format(summary=escape(report.summary), report=_element(report, book, "h2"))


def fragment(report: Report, book: str) -> str:
    """Return an element for a notebook, in the colours of what is around it; it has no headings."""
    return _element(report, book, "p")


def _element(report: Report, book: str, heading: str) -> str:
    parts = [f'<div class="bnb-report"><style>{_STYLE}</style>', f"<p><strong>{escape(report.summary)}</strong></p>"]
    missing = ""
    for group in report.groups():
        pictures, missing = _pictures(group)
        parts.append(_article(group, pictures, book, heading))
    parts += [f"<p>{escape(remark)}</p>" for remark in report.remarks]
    if missing:
        parts.append(f"<p>Pictures are left out: {escape(missing)}.</p>")
    return "\n".join([*parts, "</div>"])


def _article(group: Sequence[Finding], pictures: list[str], book: str, heading: str) -> str:
    first, *others = group
    where = f" in layer <code>{escape(first.layer)}</code>" if first.layer else ""
    lines = [
        f'<article class="{first.severity}">',
        f'<{heading}><strong><span aria-hidden="true">{_MARKS[first.severity]}</span> {first.severity.upper()}: '
        f"<code>{escape(first.code)}</code>{where}</strong></{heading}>",
        f"<p>{escape(first.evidence)}</p>",
    ]
    if others:
        count = f"{len(others)} other layer{'s' * (len(others) > 1)}"
        items = "".join(f"<li><code>{escape(each.layer)}</code>: {escape(each.evidence)}</li>" for each in others)
        lines.append(f"<details><summary>Also in {count}</summary><ul>{items}</ul></details>")
    lines += [*pictures, f"<p><strong>What to do.</strong> {_remedy(first)}</p>", f"<p>{_read_on(first, book)}</p>"]
    return "\n".join([*lines, "</article>"])


def _pictures(group: Sequence[Finding]) -> tuple[list[str], str]:
    """Return the pictures of a group as HTML, and why they are missing, if they are."""
    if not any(each.values for each in group):
        return [], ""
    try:
        from bnlib.figures.report_pictures import pictures  # needs matplotlib, which may be missing
    except ModuleNotFoundError as error:
        return [], str(error)
    found = [
        f'<figure class="bnb-figure">{picture.html}<figcaption>{escape(caption)}</figcaption></figure>'
        for picture, caption in pictures(group)
    ]
    return found, ""


def _remedy(finding: Finding) -> str:
    """Return what to do as HTML, with the code in it marked if it is the advice of this version."""
    advice = ADVICE.get(finding.code)
    known = advice is not None and advice.remedy.replace("`", "") == finding.remedy
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(advice.remedy if known else finding.remedy))


def _read_on(finding: Finding, book: str) -> str:
    # On the book's own pages, the attribute becomes a link.
    section = f'<cite data-section="{escape(finding.section)}">{escape(described_section(finding.section))}</cite>'
    if address := section_address(finding.section, book):
        section = f'<a href="{escape(address)}">{escape(described_section(finding.section))}</a>'
    return f"See {section}, or run: <code>python -m bnlib explain {escape(finding.code)}</code>"
