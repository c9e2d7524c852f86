"""Sphinx hook: a folded cell says whether it contains a check, the code of the result below it, or a long table."""

from __future__ import annotations

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode, depart_HideCellInput, visit_HideCellInput
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

# The parts of a cell that myst-nb folds, and the labels of the closed and the open fold.
WORDS = {
    "all": ("Show the check", "Hide the check"),
    "input": ("Show the code", "Hide the code"),
    "output": ("Show the table", "Hide the table"),
}


class NameFolds(SphinxTransform):
    """Set the labels of cells before myst-nb folds them; do not fold code in solutions, which are folded already."""

    default_priority = 390  # before solutions.py, which replaces the sections of solutions

    def apply(self) -> None:
        """Replace the labels of every folded cell."""
        for cell in self.document.findall(nodes.container):
            if cell.get("hide_mode") in WORDS:
                cell["prompt_show"], cell["prompt_hide"] = WORDS[cell["hide_mode"]]
            if "tag_solution" in cell["classes"]:
                cell["hide_mode"] = None


def visit_fold(translator, node: HideCodeCellNode) -> None:
    """Open a fold whose name, for a screen reader too, is the words that it shows."""
    start = len(translator.body)
    visit_HideCellInput(translator, node)
    opened = [part.replace(' aria-label="Toggle hidden content"', "") for part in translator.body[start:]]
    translator.body[start:] = opened


def setup(app: Sphinx) -> dict:
    """Connect the hook."""
    app.add_transform(NameFolds)
    app.add_node(HideCodeCellNode, override=True, html=(visit_fold, depart_HideCellInput))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
