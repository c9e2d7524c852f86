"""Sphinx hook: fold the solution of an exercise, including its text, its code and the output of the code, and proofs.

In the notebook a solution is a section, ``#### Solution``, and a proof is one such as ``#### Proof of Lemma 1``, which
JupyterLab collapses. This hook replaces the section by a ``<details>`` element before Sphinx builds the table of
contents.
"""

from __future__ import annotations

import html

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform


class FoldSolutions(SphinxTransform):
    """Turn each section with the title "Solution" or "Proof ..." into a folded element with this name."""

    default_priority = 400

    def apply(self) -> None:
        """Replace the sections."""
        for section in list(self.document.findall(nodes.section)):
            title = section.next_node(nodes.title)
            name = title.astext()
            if title.parent is section and (name == "Solution" or name.startswith("Proof")):
                section.remove(title)
                kind = "bnb-solution" if name == "Solution" else "bnb-proof"
                opening = f'<details class="{kind}">\n<summary>{html.escape(name)}</summary>'
                before = nodes.raw("", opening, format="html")
                section.replace_self([before, *section.children, nodes.raw("", "</details>", format="html")])


def setup(app: Sphinx) -> dict:
    """Connect the hook."""
    app.add_transform(FoldSolutions)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
