"""What is known about one cause of trouble with batch norm: how it shows, what to do, and where to read on."""

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


FORMULA, OBJECTIVE, PERILS, FAILING, DEPTH, ALTERNATIVES, TRAINING = (
    f"chapters/{stem}.ipynb"
    for stem in (
        "01_the_formula",
        "04_the_objective",
        "06_perils",
        "07_why_is_my_bn_failing",
        "08_deep_stacks",
        "09_alternatives",
        "11_training_code",
    )
)
"""The notebooks that explain the causes."""
