"""Sphinx hook: the solution of an exercise is one fold, which holds its text, its code and what the code prints.

In the notebook a solution is a section, ``#### Solution``, which JupyterLab collapses; here the section becomes a
``<details>``, before the table of contents is made.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform


class FoldSolutions(SphinxTransform):
    """Put each section called "Solution" into a fold."""

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
