"""Sphinx directives of the front page: the explorer with the sentence that it proves, and a card for each chapter.

The sentences stand in the page's source; the numbers in braces, ``{without[1]}``, come from the committed results.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
from chapter_pictures import PICTURES, SIZE
from docutils import nodes
from docutils.statemachine import StringList
from matplotlib.figure import Figure
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from bnlib.experiments import digits_grid
from bnlib.figures import BLUE, VERMILLION, as_array, band, new_figure, render, style
from bnlib.widgets import Explorer, Slider

PAGE = "index"
LEARNING_RATE = 0.03
"""The learning rate of the sentence, at which the explorer starts."""
# Not all that chapter 1 has: each position is in the page.
BATCH_SIZES = (1, 2, 4, 8, 16, 64, 256)
LEARNING_RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
_LOOKS = {"batch norm": ("with batch norm", BLUE, "-"), "no norm": ("without batch norm", VERMILLION, "--")}


def misread(norm: str, batch_size: int, lr: float = LEARNING_RATE) -> int:
    """How many of a hundred test digits the network misreads after training, in the median over seeds."""
    return round(100 * float(np.median(digits_grid.errors(norm, batch_size, lr))))


def draw(figure: Figure, data: Mapping[str, dict], batch_size: int, lr: float) -> str:
    """Test error over epochs, with BN and without."""
    axes = figure.subplots()
    for norm, (label, color, dash) in _LOOKS.items():
        band(axes, data[norm]["epoch"], 100 * as_array(data[norm]["test_error"]), color=color, label=label, ls=dash)
    axes.set(xlim=(0, 10), ylim=(0, 101))
    axes.set_xlabel("epoch", fontsize=11)
    axes.set_ylabel("digits misread (%)", fontsize=11)
    axes.tick_params(labelsize=11)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=11)
    told = [f"{label} {misread(norm, batch_size, lr)} in 100" for norm, (label, *_) in _LOOKS.items()]
    number = f"{batch_size} images" if batch_size > 1 else "1 image"
    return f"Batches of {number}, learning rate {lr:g}. Digits misread after ten epochs: {', '.join(told)}."


@cache
def explorer() -> Explorer:
    """Chapter 1's grid of batch sizes and learning rates, with fewer positions and one curve."""
    sliders = [
        Slider("batch_size", "batch size", BATCH_SIZES, 256, "{:d}"),
        Slider("lr", "learning rate", LEARNING_RATES, LEARNING_RATE),
    ]
    title = "Test error over ten epochs, with batch norm and without"
    return Explorer("digits", title, sliders, digits_grid.lookup, draw, size=(5.6, 2.35), budget=120_000)


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
        numbers = {
            name: {size: misread(norm, size) for size in BATCH_SIZES}
            for name, norm in (("batch_norm", "batch norm"), ("without", "no norm"))
        }
        sentence = self.parsed(self.filled(**numbers), "bnb-surprise")
        return [sentence, nodes.raw("", explorer().html, format="html")]


class ChapterCard(Computed):
    """A chapter's title, its picture, and one sentence on what it finds."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Draw the picture of the chapter that the argument names and fill the sentence with its numbers."""
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
