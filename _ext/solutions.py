"""Sphinx hook: fold the solution of an exercise with its text, its code and the output of the code; proofs; details.

In the notebook a solution is a section, ``#### Solution``, a proof is one such as ``#### Proof of Lemma 1``, and what
only some readers need is one such as ``#### Details of the contest``. JupyterLab collapses these sections. This hook
replaces each of them by a ``<details>`` element before Sphinx builds the table of contents.
"""

from __future__ import annotations

import html
import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

KINDS = {r"Solution$": "bnb-solution", "Proof": "bnb-proof", "Details ": "bnb-details"}
"""The class of a folded element by the beginning of its title, a regular expression."""


class FoldSolutions(SphinxTransform):
    """Turn each section called "Solution", "Proof ..." or "Details ..." into a folded element with this name."""

    default_priority = 400

    def apply(self) -> None:
        """Replace the sections."""
        for section in list(self.document.findall(nodes.section)):
            title = section.next_node(nodes.title)
            name = title.astext()
            kinds = [kind for beginning, kind in KINDS.items() if re.match(beginning, name)]
            if title.parent is section and kinds:
                section.remove(title)
                opening = f'<details class="{kinds[0]}">\n<summary>{html.escape(name)}</summary>'
                before = nodes.raw("", opening, format="html")
                section.replace_self([before, *section.children, nodes.raw("", "</details>", format="html")])


def setup(app: Sphinx) -> dict:
    """Connect the hook."""
    app.add_transform(FoldSolutions)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
