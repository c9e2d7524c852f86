"""The sections of the book that explain problems: their headings, and their addresses where the book has one."""

import os
import re
from functools import cache
from importlib import metadata

HEADINGS: dict[str, tuple[str, ...]] = {
    "01_the_formula": (
        "Convolutions",
        "Epsilon, and features that hardly vary",
        "Exercise 3: find the bug",
        "Forward",
        "Three consequences",
        "Two modes, and the averages between them",
    ),
    "03_lipschitz_smoothness": ("Scale invariance and the effective learning rate",),
    "04_the_objective": ("Objective and evaluation",),
    "06_perils": (
        "Different data at inference",
        "Exercise 1: find the bug",
        "Predictions in train mode",
        "Stuck in train mode",
        "Target networks",
        "Test-time adaptation",
        "The discriminator",
        "Two towers",
        "Which promise was broken?",
        "Why no single statistic is right",
    ),
    "07_why_is_my_bn_failing": (
        "Batches that are never reshuffled",
        "Four numbers",
        "Gamma is zero",
        "Inputs in other units",
        "Running averages",
        "Small batches",
        "The mode is read from the wrong place",
    ),
    "08_deep_stacks": ("Why: the gradient grows",),
    "09_alternatives": (
        "Can RMSNorm or dynamic tanh replace layer norm?",
        "Exercise 4: sentences",
        "Which one?",
        "Which values are normalised together?",
    ),
    "10_many_machines": (
        "Joining the batches",
        "Local steps",
        "What it costs",
        "Whose statistics?",
    ),
    "11_training_code": (
        "Folding batch norm into the convolution",
        "Gradient checkpointing updates the statistics twice",
        "One bad batch, and eval mode is NaN",
        "Quantised weights after folding",
        "Running statistics in half precision",
        "Should I freeze batch norm when I fine-tune?",
        "Which statistics belong to averaged weights?",
    ),
    "frameworks": (
        "Port a layer",
        "What does my framework do?",
        "Which momentum is mine?",
        "Why is my ported network worse?",
    ),
    "torch_parts": (
        "What changes with the number format?",
        "What do compilers and exporters keep?",
        "What do functional transforms do?",
        "What is copied, loaded or frozen?",
        "What runs the forward pass again?",
        "What was not measured?",
        "When can batch norm be folded or quantised?",
    ),
}
"""Headings by the name of the notebook that has them."""


def heading(section: str) -> str:
    """Return the heading of a section from the path of its notebook and its anchor.

    Example:
        >>> heading("chapters/11_training_code.ipynb#one-bad-batch-and-eval-mode-is-nan")
        'One bad batch, and eval mode is NaN'
    """
    page, _, anchor = section.removeprefix("chapters/").partition(".ipynb#")
    (found,) = (each for each in HEADINGS[page] if _anchor(each) == anchor)
    return found


def described_section(section: str) -> str:
    """Return a section in words, from the path of its notebook and its anchor; the path, if it is not in this version.

    Example:
        >>> described_section("chapters/01_the_formula.ipynb#forward")
        'chapter 1, “Forward”'
    """
    page, _, anchor = section.removeprefix("chapters/").partition(".ipynb#")
    if anchor not in map(_anchor, HEADINGS.get(page, ())):
        return section
    return f"{place(section)}, “{heading(section)}”"


def place(section: str) -> str:
    """Return the chapter or the appendix of a section, in words, from the path of its notebook.

    Example:
        >>> place("chapters/01_the_formula.ipynb#forward"), place("chapters/frameworks.ipynb#port-a-layer")
        ('chapter 1', 'Appendix C')
    """
    number = section.removeprefix("chapters/")[:2]
    return f"chapter {int(number)}" if number.isdigit() else "Appendix C"


def section_address(section: str, book: str) -> str:
    """Return the address of a section on the book's site; empty if the address ``book`` of the site is.

    Example:
        >>> section_address("chapters/01_the_formula.ipynb#forward", "https://example.org/book/")
        'https://example.org/book/chapters/01_the_formula.html#forward'
    """
    return f"{book.rstrip('/')}/{section.replace('.ipynb', '.html')}" if book else ""


def book_address(book: str | None = None) -> str:
    """Return the address of the book's site: ``book``, or what BNLIB_BOOK or the package names; empty if none does.

    The package names the site if ``baseurl`` in ``_config.yml`` was set when it was built.

    Raises:
        TypeError: ``book`` is not a text.
    """
    if book is not None and not isinstance(book, str):
        raise TypeError(f"book must be the address of the book's site as a text, or None, got {book!r}")
    named = os.environ.get("BNLIB_BOOK") if book is None else book
    return _address_in_package() if named is None else named


@cache
def _address_in_package() -> str:
    try:
        urls = metadata.metadata("bnlib").get_all("Project-URL") or []
    except metadata.PackageNotFoundError:
        return ""
    return next((each.partition(",")[2].strip() for each in urls if each.startswith("Documentation,")), "")


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
