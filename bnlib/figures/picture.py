"""Matplotlib figures as inline SVG that follow the light or dark theme of the page they stand on.

Ink, axes and text take the colour of the surrounding text (``currentColor``); series take colours that are
told apart by colour-blind readers (Okabe and Ito) and have a contrast of at least 3:1 on white and on black.
"""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import StringIO
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

BLUE, VERMILLION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#9467BD", "#808080"

# Stands for "the colour of the text around" until the SVG is written; no series uses it.
_INK = "#010203"

_STYLE = {
    "svg.fonttype": "none",
    "font.size": 10,
    "font.family": "sans-serif",
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "image.cmap": "gray",
    "image.interpolation": "nearest",
}


# Matplotlib's settings are global while it draws, and a live run draws from a thread.
_DRAWING = threading.RLock()


class Picture:
    """A finished figure: panels on a page or in a notebook, its description where pictures are not shown.

    Attributes:
        html: what a page shows, from ``in_panels``.
        alt: the description in words.
        draw_svg: draws the same as one SVG for a file.

    Example:
        >>> figures.Picture("<svg></svg>", "A line that falls.").alt
        'A line that falls.'
    """

    def __init__(self, html: str, alt: str, draw_svg: Callable[[], str] | None = None):
        self.html, self.alt, self._draw_svg = html, alt, draw_svg

    @property
    def svg(self) -> str:
        """The whole figure as one ``<svg>`` element, for a file of its own."""
        return self._draw_svg() if self._draw_svg else self.html

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {
            "text/html": f'<div class="bnb-figure">{self.html}</div>',
            "image/svg+xml": self.svg,
            "text/plain": f"[Figure: {self.alt}]",
        }


def new_figure(width: float = 6.6, height: float = 2.8) -> Figure:
    """An empty figure of this size in inches, drawn without pyplot so that a thread may draw it.

    Example:
        >>> figures.new_figure(4, 3).get_size_inches().tolist()
        [4.0, 3.0]
    """
    return Figure(figsize=(width, height), layout="constrained")


@contextmanager
def style() -> Iterator[None]:
    """The book's matplotlib settings, to draw and render under; one thread at a time.

    Example:
        >>> with figures.style():
        ...     axes = figures.new_figure().add_subplot()
        >>> axes.spines["top"].get_visible()
        False
    """
    with _DRAWING, rc_context(_STYLE):
        yield


def render(figure: Figure, alt: str, salt: str | None = None) -> str:
    """Write ``figure`` as one ``<svg>`` element with ``alt`` as its accessible name, one drawing element a line.

    The text is the same for the same figure: no date is written, and ids come from the drawing and from ``salt``, which
    is ``alt`` if not given. Drawings that stand for each other have more lines in common with one salt.

    Raises:
        ValueError: ``alt`` is empty; every image of the book is described.

    Example:
        >>> with figures.style():
        ...     figure = figures.new_figure(2, 1)
        ...     axes = figure.add_subplot()
        ...     svg = figures.render(figure, "Axes without a line.")
        >>> "currentColor" in svg, 'aria-label="Axes without a line."' in svg
        (True, True)
    """
    if not alt.strip():
        raise ValueError("alt must describe the figure in words, got an empty text")
    width, height = figure.get_size_inches() * 72
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'aria-label="{html.escape(alt)}" viewBox="0 0 {width:g} {height:g}" '
        f'style="width:100%;max-width:{width * 1.4:.0f}px;stroke-linejoin:round;font-family:system-ui,sans-serif">'
    )
    return "\n".join([head, *svg_elements(figure, salt or alt), "</svg>"])


def svg_elements(figure: Figure, salt: str) -> list[str]:
    """The elements of the drawing of ``figure``, one a line, for ``render`` and ``in_panels`` to put into an SVG.

    Example:
        >>> with figures.style():
        ...     lines = figures.svg_elements(figures.new_figure(2, 1), "a salt")
        >>> all(line.startswith("<") for line in lines)
        True
    """
    out = StringIO()
    with rc_context({**_STYLE, "svg.hashsalt": salt}):
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<g id=") : text.rindex("</svg>")].replace(_INK, "currentColor")
    # Inside an attribute a line break is only a space; joined, each line is one whole element.
    text = re.sub(r'="[^"]*"', lambda match: re.sub(r"\s+", " ", match[0]).replace(' "', '"'), text)
    text = re.sub(r' (?:d|x|y|width|height|transform|points)="[^"]*"', _round_coordinates, text)
    # The page's own font, and no names of groups: they would stand many times on a page.
    text = re.sub(
        r"<g id=\"(?!(?:panel|key)-\d)[^\"]*\"|font-family: [^;\"]*;? ?|<!--.*?-->|\s*transform=\"rotate\(-0 [^\"]*\"",
        _without,
        text,
    )
    return _ungrouped(text)


def _ungrouped(text: str) -> list[str]:
    """The lines without groups that carry no attribute; they only say how matplotlib was organised."""
    kept, carries = [], []
    for line in filter(None, map(str.strip, text.split("\n"))):
        if line == "<g/>":
            continue
        if line.startswith("<g"):
            carries.append(line != "<g>")
        if not (line == "<g>" or (line == "</g>" and not carries[-1])):
            kept.append(line)
        if line == "</g>":
            carries.pop()
    return kept


def _round_coordinates(match: re.Match) -> str:
    # A tenth of a point is finer than a screen shows, and a third of the bytes.
    text = re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), match[0])
    # After "M x y" further pairs are lines; only a path with curves has to say which is which.
    return text if re.search("[CQ]", text) else text.replace(" L ", " ")


def _without(match: re.Match) -> str:
    return "<g" if match[0].startswith("<g") else ""


def picture(draw: Callable[..., str], *data: Any, size: tuple[float, float] = (6.6, 2.8)) -> Picture:
    """Draw on a new figure of ``size`` inches and return what a notebook displays.

    ``draw(figure, *data)`` is one of the functions below or the reader's own; it returns the sentences that describe
    the figure to those who do not see it.

    Raises:
        ValueError: ``draw`` describes nothing.

    Example:
        >>> def draw(figure, losses):
        ...     figure.add_subplot().plot(losses, color=figures.BLUE)
        ...     return f"A loss that falls from {losses[0]} to {losses[-1]}."
        >>> figures.picture(draw, [2.3, 1.1, 0.4]).alt
        'A loss that falls from 2.3 to 0.4.'
    """
    from bnlib.figures.panels import in_panels  # which builds on this file

    with style():
        figure = new_figure(*size)
        alt = draw(figure, *data)
        return Picture(in_panels(figure, alt)[0], alt, partial(_draw_svg, draw, data, size))


def _draw_svg(draw: Callable[..., str], data: Sequence[Any], size: tuple[float, float]) -> str:
    with style():
        figure = new_figure(*size)
        return render(figure, draw(figure, *data))


def band(axes: Axes, x: Sequence[float], runs: np.ndarray, *, color: str, label: str, **line) -> None:
    """Draw the median over runs as a line and the range from the lowest to the highest as a band.

    A run that diverged counts as infinite: the line ends where half of the runs have, while the band spans the others.

    Arguments:
        axes: where to draw.
        x: the common abscissae, length P.
        runs: one row a run, shape (R, P); NaN where a run had already diverged.
        color: of line and band.
        label: name in the legend.
        line: further options of ``Axes.plot``.

    Example:
        >>> axes = figures.new_figure().add_subplot()
        >>> figures.band(axes, [0, 1], figures.as_array([[2.3, 0.4], [2.2, 0.6]]), color=figures.BLUE, label="BN")
        >>> axes.lines[0].get_ydata().round(2).tolist()
        [2.25, 0.5]
    """
    runs = np.asarray(runs, dtype=float)
    present = ~np.isnan(runs).all(0)
    x, runs = np.asarray(x, dtype=float)[present], runs[:, present]
    middle = np.median(np.nan_to_num(runs, nan=np.inf, posinf=np.inf), 0)
    axes.plot(x, np.where(np.isfinite(middle), middle, np.nan), color=color, label=label, **line)
    if len(runs) > 1:
        axes.fill_between(x, np.nanmin(runs, 0), np.nanmax(runs, 0), color=color, alpha=0.25, linewidth=0)


def plain_ticks(axis: Axis, places: Sequence[float], labels: Sequence[str] | None = None) -> None:
    """Ticks of a logarithmic axis written as numbers; matplotlib's powers of ten take most of the drawing time.

    Example:
        >>> axes = figures.new_figure().add_subplot(xscale="log")
        >>> figures.plain_ticks(axes.xaxis, [1, 1000])
        >>> [label.get_text() for label in axes.get_xticklabels()]
        ['1', '1,000']
    """
    axis.set_ticks(places, labels or [f"{place:,g}" for place in places])
    axis.set_minor_locator(NullLocator())
