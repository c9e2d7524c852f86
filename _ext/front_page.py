"""Sphinx directives of the front page: the explorer with the sentence that it proves, and a card for each chapter.

The sentences stand in the page's source; the numbers in braces, ``{without[1]}``, come from the committed results.
What the directives draw with is imported when they run: other books have these hooks too, and no such page.
"""

from __future__ import annotations

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PAGE = "index"


class Computed(SphinxDirective):
    """A directive whose text names numbers in braces."""

    has_content = True

    def parsed(self, lines: list[str], classes: str) -> nodes.container:
        """A container with what the page's parser makes of the lines."""
        parent = nodes.container(classes=[classes])
        self.state.nested_parse(StringList(lines, self.get_source_info()[0]), self.content_offset, parent)
        return parent

    def filled(self, **numbers: object) -> list[str]:
        """The directive's text with its numbers, none of them parted from its sign at the end of a line."""
        return "\n".join(self.content).format(**numbers).replace(" %", "\u00a0%").split("\n")


class DigitsExplorer(Computed):
    """The explorer below the sentence that it proves."""

    def run(self) -> list[nodes.Node]:
        """Fill the sentence with the explorer's numbers at its first learning rate."""
        from digits_explorer import BATCH_SIZES, explorer, misread

        numbers = {
            name: {size: misread(norm, size) for size in BATCH_SIZES}
            for name, norm in (("batch_norm", "batch norm"), ("without", "without normalisation"))
        }
        sentence = self.parsed(self.filled(**numbers), "bnb-surprise")
        return [sentence, nodes.raw("", explorer().html, format="html")]


class ChapterCard(Computed):
    """A chapter's title, its picture, and one sentence on what it finds."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Draw the picture of the chapter that the argument names and fill the sentence with its numbers."""
        from chapter_pictures import PICTURES, SIZE

        from bnlib.figures import new_figure, render, style

        name = self.arguments[0]
        with style():
            figure = new_figure(*SIZE)
            numbers = PICTURES[name](figure)
            svg = render(figure, f"Chapter {int(name[:2])}. {numbers['alt']}")
        # With a backslash: a number with a point would begin a list.
        card = self.parsed([rf"{int(name[:2])}\. [](/chapters/{name}.ipynb)"], "bnb-card")
        card += nodes.raw("", f'<div class="bnb-figure">{svg}</div>', format="html")
        card += self.parsed(self.filled(**numbers), "bnb-finding")
        return [card]


def add_style(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Give the front page the style that no other page needs."""
    if pagename == PAGE:
        app.add_css_file("front.css")


def setup(app: Sphinx) -> dict:
    """Add the directives and the style."""
    app.add_directive("digits-explorer", DigitsExplorer)
    app.add_directive("chapter-card", ChapterCard)
    app.connect("html-page-context", add_style)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
