"""Matplotlib figures as inline SVG that follows the light or dark theme of the page.

Axes and text have the colour of the surrounding text (``currentColor``). The colours of the series can be distinguished
by colour-blind readers (Okabe and Ito) and have a contrast of at least 3:1 on white and on black.
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

from bnlib.tables import powers_of_ten

BLUE, VERMILLION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#6C6C6C"

# Written as ``currentColor`` into the SVG; no series uses this colour.
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


# Matplotlib's settings are global, and a live training run draws from another thread.
_DRAWING = threading.RLock()


class Picture:
    """A finished figure that notebooks and web pages display.

    Arguments:
        html: the HTML element, from ``in_panels``.
        alt: description of the figure in words.
        draw_svg: function that draws the same figure as one SVG; None if ``html`` is an SVG already.

    Example:
        >>> figures.Picture("<svg></svg>", "A line that falls.").alt
        'A line that falls.'
    """

    def __init__(self, html: str, alt: str, draw_svg: Callable[[], str] | None = None):
        self.html, self.alt, self._draw_svg = html, alt, draw_svg

    @property
    def svg(self) -> str:
        """The whole figure as one ``<svg>`` element, for a file."""
        return self._draw_svg() if self._draw_svg else self.html

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {
            "text/html": f'<div class="bnb-figure">{self.html}</div>',
            "image/svg+xml": self.svg,
            "text/plain": f"[Figure: {self.alt}]",
        }


def new_figure(width: float = 6.6, height: float = 2.8) -> Figure:
    """Return an empty figure of this size in inches, created without pyplot so that any thread can draw on it.

    Example:
        >>> figures.new_figure(4, 3).get_size_inches().tolist()
        [4.0, 3.0]
    """
    return Figure(figsize=(width, height), layout="constrained")


@contextmanager
def style() -> Iterator[None]:
    """Use the book's matplotlib settings inside a ``with`` block, which only one thread at a time can enter.

    Example:
        >>> with figures.style():
        ...     axes = figures.new_figure().add_subplot()
        >>> axes.spines["top"].get_visible()
        False
    """
    with _DRAWING, rc_context(_STYLE):
        yield


def render(figure: Figure, alt: str, salt: str | None = None) -> str:
    """Convert ``figure`` to one ``<svg>`` element, with one drawing element per line.

    The same figure always gives the same text: it contains no date, and its ids depend on the drawing and ``salt``.

    Arguments:
        figure: the figure.
        alt: description of the figure, which becomes the accessible name.
        salt: text that the ids depend on; None for ``alt``. Similar drawings with the same salt share more lines.

    Raises:
        ValueError: if ``alt`` is empty, because every figure of the book needs a description.

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
    """Return the SVG elements of ``figure``, one per line, which ``render`` and ``in_panels`` put into SVGs.

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
    # A line break inside an attribute counts as a space. Without line breaks each line is one complete element.
    text = re.sub(r'="[^"]*"', lambda match: re.sub(r"\s+", " ", match[0]).replace(' "', '"'), text)
    text = re.sub(r' (?:d|x|y|width|height|transform|points)="[^"]*"', _round_coordinates, text)
    text = re.sub(r"(?<=>)[^<]*\de[-+]\d[^<]*(?=</text>|</tspan>)", lambda match: powers_of_ten(match[0]), text)
    # Use the font of the page, and remove the ids of groups, which would occur many times on a page.
    text = re.sub(
        r"<g id=\"(?!(?:panel|key)-\d)[^\"]*\"|font-family: [^;\"]*;? ?|<!--.*?-->|\s*transform=\"rotate\(-0 [^\"]*\"",
        _without,
        text,
    )
    return _ungrouped(text)


def _ungrouped(text: str) -> list[str]:
    """Return the lines without the groups that have no attributes, which only reflect matplotlib's structure."""
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
    # A tenth of a point is finer than the resolution of a screen, and takes a third of the bytes.
    text = re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), match[0])
    # After "M x y", further pairs of numbers are lines. Only paths with curves need the letter L.
    if re.search("[CQ]", text):
        return text
    return re.sub(r"(?<=M )[-\d. ]+(?= |\")", _without_points_within_lines, text.replace(" L ", " "))


def _without_points_within_lines(match: re.Match) -> str:
    """Leave out the points of a path that change nothing, because they lie between their neighbours."""
    numbers = match[0].split()
    kept: list[tuple[str, str]] = []
    for point in zip(numbers[::2], numbers[1::2], strict=True):
        if len(kept) > 1 and _lies_between(*kept[-2:], point):
            kept.pop()
        kept.append(point)
    return " ".join(map(" ".join, kept))


def _lies_between(one: tuple[str, str], point: tuple[str, str], other: tuple[str, str]) -> bool:
    """Return whether ``point`` lies between two others on a horizontal or vertical line."""
    return any(
        one[same] == point[same] == other[same]
        and point[along] == sorted((one[along], point[along], other[along]), key=float)[1]
        for same, along in ((0, 1), (1, 0))
    )


def _without(match: re.Match) -> str:
    return "<g" if match[0].startswith("<g") else ""


def picture(draw: Callable[..., str], *data: Any, size: tuple[float, float] = (6.6, 2.8)) -> Picture:
    """Call a drawing function on a new figure and return the picture, which a notebook displays.

    Arguments:
        draw: ``draw(figure, *data)`` draws on the figure and returns sentences that describe it for readers who cannot
            see it; one of the functions ``figures.draw_...``, or your own.
        data: further arguments of ``draw``.
        size: width and height of the figure in inches.

    Raises:
        ValueError: if ``draw`` returns an empty description.

    Example:
        >>> def draw(figure, losses):
        ...     figure.add_subplot().plot(losses, color=figures.BLUE)
        ...     return f"A loss that falls from {losses[0]} to {losses[-1]}."
        >>> figures.picture(draw, [2.3, 1.1, 0.4]).alt
        'A loss that falls from 2.3 to 0.4.'
    """
    from bnlib.figures.panels import in_panels  # imported here because panels.py imports this file

    with style():
        figure = new_figure(*size)
        alt = powers_of_ten(draw(figure, *data))
        return Picture(in_panels(figure, alt)[0], alt, partial(_draw_svg, draw, data, size))


def _draw_svg(draw: Callable[..., str], data: Sequence[Any], size: tuple[float, float]) -> str:
    with style():
        figure = new_figure(*size)
        return render(figure, powers_of_ten(draw(figure, *data)))


def band(axes: Axes, x: Sequence[float], runs: np.ndarray, *, color: str, label: str, **line) -> None:
    """Draw the median over runs as a line, and the range from the lowest to the highest run as a band.

    A run that has diverged counts as infinite. So the line ends where half of the runs have diverged, and the band
    spans the other runs.

    Arguments:
        axes: axes to draw on.
        x: x coordinates, length P.
        runs: one row per run, shape (R, P), with nan where a run has diverged.
        color: colour of the line and the band.
        label: name in the legend.
        line: further arguments of ``Axes.plot``.

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
    """Label the ticks of a logarithmic axis with plain numbers instead of powers of ten, which are slow to draw.

    Arguments:
        axis: ``axes.xaxis`` or ``axes.yaxis``.
        places: values of the ticks.
        labels: texts of the ticks; None to format the values.

    Example:
        >>> axes = figures.new_figure().add_subplot(xscale="log")
        >>> figures.plain_ticks(axes.xaxis, [1, 1000])
        >>> [label.get_text() for label in axes.get_xticklabels()]
        ['1', '1,000']
    """
    axis.set_ticks(places, labels or [f"{place:,g}" for place in places])
    axis.set_minor_locator(NullLocator())
