"""What the book says about a finding or a cause, as text: the command ``python -m bnlib explain``."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator

from bnlib.arguments import check_one_of
from bnlib.doctor.advice import ADVICE
from bnlib.doctor.headings import book_address, described_section, section_address
from bnlib.doctor.symptoms import SYMPTOM_GROUPS, TEST_SETUP, all_advice

_LINE_WIDTH = 100
_IMPORTS = {
    "copy": "import copy",
    "bnlib": "import bnlib",
    "torch": "import torch",
    "losses_by_mode": "from bnlib.doctor import losses_by_mode",
    "nn": "from torch import nn",
    "F": "from torch.nn import functional as F",
}


def explain(code: str, *, book: str | None = None) -> str:
    """Return what is known about a finding: what one sees, the cause, a test, the cure, and the section to read.

    Arguments:
        code: code of a finding, such as ``"zero-gamma"``, or the name of a cause that the doctor does not look for; see
            ``all_advice``.
        book: address of the book's site, for a link to the section; see ``Report.to_text``.

    Raises:
        ValueError: there is no such code; the message suggests the nearest one.

    Example:
        >>> print(doctor.explain("zero-gamma").partition("How to tell")[0].rstrip())
        zero-gamma, a finding of bnlib.diagnose
        <BLANKLINE>
        What you see
          The network does not learn: the loss stays at that of guessing (2.3 for ten classes), and
          gradients are exactly zero.
        <BLANKLINE>
        Why
          Gamma and beta of a layer in front of a ReLU are 0.
    """
    known = all_advice()
    check_one_of("code", code, known)
    advice, address = known[code], section_address(known[code].section, book_address(book))
    kind = "a finding of bnlib.diagnose" if code in ADVICE else "a cause that bnlib.diagnose does not look for"
    parts = [
        f"{code}, {kind}",
        "What you see\n" + _indented(_sentence(advice.symptom)),
        "Why\n" + _indented(advice.cause),
        "How to tell\n"
        + _indented(
            "If the last line is true, this is the likely cause. Put your model and batches in place of the dots."
        )
        + "\n\n"
        + textwrap.indent("\n".join([*_before(advice.test), advice.test]), "    "),
        "What to do\n" + _indented(advice.remedy),
        f"Read on\n  The Batch Norm Book, {described_section(advice.section)}" + (f"\n  {address}" if address else ""),
    ]
    return "\n\n".join(parts)


def list_explanations() -> str:
    """Return all codes that ``explain`` knows, with what one sees, in the groups of the symptom table.

    Example:
        >>> print(doctor.list_explanations().splitlines()[0])
        The codes marked * are findings of bnlib.diagnose. Of the others it knows only the explanation.
    """
    first = "The codes marked * are findings of bnlib.diagnose. Of the others it knows only the explanation."
    return "\n\n".join([first, *_groups()])


def _before(test: str) -> list[str]:
    """Return the lines of code that a test needs before it: imports, and what defines its names."""
    needed, lines = _names(test), []
    for line in reversed(TEST_SETUP.splitlines()):
        if _names(line, ast.Store) & needed or (".grad" in test and ".backward(" in line):
            lines.insert(0, line)
            needed |= _names(line)
    return [each for name, each in _IMPORTS.items() if name in needed] + ["model, batches = ...", *lines]


def _names(code: str, context: type = ast.Load) -> set[str]:
    """Return the names that some code reads or, in the context ``ast.Store``, defines."""
    return {
        each.id for each in ast.walk(ast.parse(code)) if isinstance(each, ast.Name) and isinstance(each.ctx, context)
    }


def _groups() -> Iterator[str]:
    for key, title in SYMPTOM_GROUPS.items():
        lines = [title]
        for code, advice in all_advice().items():
            if advice.group == key:
                lines.append(f"  {'*' if code in ADVICE else ' '} {code}")
                lines.append(_indented(_sentence(advice.symptom), "      "))
        yield "\n".join(lines)


def _sentence(text: str) -> str:
    return text if text.endswith(("”", "?", ".")) else f"{text}."


def _indented(text: str, by: str = "  ") -> str:
    """Return a text in Markdown as lines of plain text; calls and names with hyphens stay on one line."""
    plain = text.replace("`", "")
    return textwrap.fill(plain, _LINE_WIDTH, initial_indent=by, subsequent_indent=by, break_on_hyphens=False)
