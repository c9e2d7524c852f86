"""Sphinx directive: a table of the doctor's findings, from the advice in ``bnlib.doctor``."""

from __future__ import annotations

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from bnlib.doctor import ADVICE


class AdviceTable(SphinxDirective):
    """A table with a row for each finding: its code, the remedy, and a link to the section."""

    def run(self) -> list[nodes.Node]:
        """Write the table in Markdown and parse it with the page's parser."""
        rows = ["| Code | What to do |", "|---|---|"]
        for code, advice in ADVICE.items():
            # A link without a text shows the title of the section.
            rows.append(f"| `{code}` | {advice.remedy} See [](/{advice.section}). |")
        parent = nodes.container()
        self.state.nested_parse(StringList(rows, self.get_source_info()[0]), self.content_offset, parent)
        return parent.children


def setup(app: Sphinx) -> dict:
    """Add the directive."""
    app.add_directive("doctor-advice", AdviceTable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
