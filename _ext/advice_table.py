"""Sphinx directive: what the doctor can find, as a table, from the advice in ``bnlib.doctor``."""

from __future__ import annotations

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from bnlib.doctor import ADVICE


class AdviceTable(SphinxDirective):
    """A row for each code: the remedy, with a link to the chapter."""

    def run(self) -> list[nodes.Node]:
        """Write the table in Markdown and have the page's parser read it."""
        rows = ["| Code | What to do |", "|---|---|"]
        for code, advice in ADVICE.items():
            # Without a text the link has the title of the chapter.
            rows.append(f"| `{code}` | {advice.remedy} See [](/{advice.chapter}). |")
        parent = nodes.container()
        self.state.nested_parse(StringList(rows, self.get_source_info()[0]), self.content_offset, parent)
        return parent.children


def setup(app: Sphinx) -> dict:
    """Add the directive."""
    app.add_directive("doctor-advice", AdviceTable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
