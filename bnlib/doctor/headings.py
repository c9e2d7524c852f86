"""The headings of the sections that the symptom table links to."""

import re

HEADINGS: dict[str, tuple[str, ...]] = {
    "01_the_formula": (
        "Epsilon, and features that hardly vary",
        "Exercise 3: find the bug",
        "Forward",
        "Two modes, and the averages between them",
    ),
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
        "Why no single statistic is right",
    ),
    "07_why_is_my_bn_failing": (
        "Batches that are never reshuffled",
        "Gamma is zero",
        "Inputs in other units",
        "Running averages",
        "Small batches",
        "The mode is read from the wrong place",
    ),
    "08_deep_stacks": ("Why: the gradient grows",),
    "10_many_machines": (
        "Joining the batches",
        "Local steps",
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


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
