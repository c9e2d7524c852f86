"""Sphinx hook: fold the solution of an exercise, including its text, its code and the output of the code.

In the notebook a solution is a section, ``#### Solution``, which JupyterLab collapses. This hook replaces the section
by a ``<details>`` element before Sphinx builds the table of contents.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform


class FoldSolutions(SphinxTransform):
    """Turn each section with the title "Solution" into a folded element."""

    default_priority = 400

    def apply(self) -> None:
        """Replace the sections."""
        for section in list(self.document.findall(nodes.section)):
            title = section.next_node(nodes.title)
            if title.parent is section and title.astext() == "Solution":
                section.remove(title)
                before = nodes.raw("", '<details class="bnb-solution">\n<summary>Solution</summary>', format="html")
                section.replace_self([before, *section.children, nodes.raw("", "</details>", format="html")])


def setup(app: Sphinx) -> dict:
    """Connect the hook."""
    app.add_transform(FoldSolutions)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
