"""The explorer and the cards of the front page, and the pictures of the chapters, which the summaries show, too.

The sentences are in the page's source. The numbers in braces, such as ``{without[1]}``, come from the committed
results. The modules that draw are imported when a directive runs, because other books with these extensions have no
such page.
"""

from __future__ import annotations

import re
from html import escape

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective

PAGE, SUMMARIES = "index", "chapters/summaries"


class Computed(SphinxDirective):
    """A directive whose text contains the names of numbers in braces."""

    has_content = True

    def parsed(self, lines: list[str], classes: str) -> nodes.container:
        """Parse the lines with the page's parser and return the result in a container."""
        parent = nodes.container(classes=[classes])
        self.state.nested_parse(StringList(lines, self.get_source_info()[0]), self.content_offset, parent)
        return parent

    def filled(self, **numbers: object) -> list[str]:
        """Return the directive's text with its numbers, and with non-breaking spaces before percent signs."""
        return "\n".join(self.content).format(**numbers).replace(" %", "\u00a0%").split("\n")


class DigitsExplorer(Computed):
    """The explorer, and above it a sentence with numbers from the explorer."""

    def run(self) -> list[nodes.Node]:
        """Fill in the explorer's numbers at its default learning rate."""
        from digits_explorer import BATCH_SIZES, explorer, misread

        numbers = {
            name: {size: misread(norm, size) for size in BATCH_SIZES}
            for name, norm in (("batch_norm", "batch norm"), ("without", "without normalisation"))
        }
        sentence = self.parsed(self.filled(**numbers), "bnb-surprise")
        return [sentence, nodes.raw("", explorer().html, format="html")]


def drawn(name: str) -> tuple[str, dict[str, object]]:
    """Draw the picture of a chapter; return it as HTML with the numbers that it shows."""
    from chapter_pictures import PICTURES, SIZE

    from bnlib.figures import new_figure, render, style

    with style():
        figure = new_figure(*SIZE)
        numbers = PICTURES[name](figure)
        svg = render(figure, f"Chapter {int(name[:2])}. {numbers['alt']}")
    return f'<div class="bnb-figure">{svg}</div>', numbers


class SummaryPictures(SphinxTransform):
    """In the summaries, put each chapter's picture below the sentence that answers its question.

    The notebook has no directive for them, because other programs would show it as code.
    """

    default_priority = 400

    def apply(self) -> None:
        """Insert the pictures, with their descriptions as captions."""
        if self.env.docname != SUMMARIES:
            return
        from chapter_pictures import PICTURES

        names = {int(name[:2]): name for name in PICTURES}
        for section in list(self.document.findall(nodes.section)):
            number = re.match(r"Chapter (\d+):", section[0].astext())
            if number is None:
                continue
            answer = next(each for each in section.findall(nodes.paragraph) if each.astext().startswith("Answer."))
            shown, numbers = drawn(names[int(number[1])])
            caption = f"<figcaption>{escape(numbers['alt']).replace(' %', '&nbsp;%')}</figcaption>"
            html = f'<figure class="bnb-chapter-picture">{shown}{caption}</figure>'
            answer.parent.insert(answer.parent.index(answer) + 1, nodes.raw("", html, format="html"))


class ChapterCard(Computed):
    """A chapter's title, its picture, and one sentence on what it finds."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Draw the picture of the chapter that the argument names, and fill in the numbers of the sentence."""
        name = self.arguments[0]
        shown, numbers = drawn(name)
        # With a backslash, because a number with a full stop would start a list.
        card = self.parsed([rf"{int(name[:2])}\. [](/chapters/{name}.ipynb)"], "bnb-card")
        card += nodes.raw("", shown, format="html")
        card += self.parsed(self.filled(**numbers), "bnb-finding")
        return [card]


def add_style(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Load the style sheet of the front page, on this page only."""
    if pagename == PAGE:
        app.add_css_file("front.css")


def setup(app: Sphinx) -> dict:
    """Add the directives and the style."""
    app.add_directive("digits-explorer", DigitsExplorer)
    app.add_directive("chapter-card", ChapterCard)
    app.add_transform(SummaryPictures)
    app.connect("html-page-context", add_style)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
