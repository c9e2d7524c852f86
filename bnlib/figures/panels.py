"""Figures as panels that are side by side on a wide screen and below each other on a phone.

Each panel is a separate ``<svg>`` element that shows a part of the figure, and the legend is HTML text. The browser
wraps both, so one drawing works for every width and needs no script and no style sheet.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.transforms import Affine2D

from bnlib.figures.picture import svg_elements

# In CSS pixels: the width of a panel on a phone with 390 pixels, and the smallest font size there.
PHONE_WIDTH, SMALLEST_FONT = 344, 11.2
# In pixels per point of the drawing: the largest scale of a panel, and the scale below which panels wrap.
LARGEST_SCALE, WRAP_SCALE = 1.5, 1.15


@dataclass(frozen=True)
class Box:
    """A rectangle of the drawing, in points.

    Attributes:
        x, y: the upper left corner; the origin is the upper left corner of the figure.
        width, height: the size.
    """

    x: float
    y: float
    width: float
    height: float


# The rectangle of the first symbol of the legend; the next one is below it.
_KEY = Box(1, 0, 24, 14)


@dataclass(frozen=True)
class Layout:
    """The arrangement of a figure, which is the same for every drawing of an explorer.

    Attributes:
        size: size of the figure in inches.
        places: position of each axes, as fractions of the figure.
        panel_of: number of the panel that each axes belongs to.
        boxes: rectangle of each panel.
    """

    size: tuple[float, float]
    places: list[Any]
    panel_of: list[int]
    boxes: list[Box]


def in_panels(figure: Figure, alt: str, salt: str | None = None, layout: Layout | None = None) -> tuple[str, Layout]:
    """Convert ``figure`` to an HTML element of panels, with one drawing element per line.

    The function changes the figure. Axes that share a scale all get its numbers and labels, because each panel may be
    alone on a phone. Legends become HTML text above the panels. The figure becomes so narrow that its smallest font is
    legible on a phone.

    Arguments:
        figure: the figure.
        alt: description of the figure, which becomes the accessible name.
        salt: as in ``render``.
        layout: the layout of another drawing of the same axes, to place the axes in the same way; None to compute it.

    Returns:
        The HTML element and the layout.

    Raises:
        ValueError: if ``alt`` is empty, or the number of axes is not that of ``layout``.

    Example:
        >>> with figures.style():
        ...     figure = figures.new_figure(6, 2)
        ...     for axes in figure.subplots(1, 2):
        ...         lines = axes.plot([1, 2])
        ...     text, layout = figures.in_panels(figure, "Two panels.")
        >>> text.count("<svg"), len(layout.boxes)
        (2, 2)
    """
    if not alt.strip():
        raise ValueError("alt must describe the figure in words, got an empty text")
    _label_every_panel(figure)
    names, handles = _take_legends(figure)
    if layout is None:
        layout = _arranged(figure)
    elif len(layout.places) != len(figure.axes):
        raise ValueError(
            f"figure must have {len(layout.places)} axes, as at the explorer's default setting, got "
            f"{len(figure.axes)}; draw empty axes instead of leaving them out"
        )
    _put(figure, layout)
    _draw_keys(figure, handles)
    groups = _by_group(svg_elements(figure, salt or alt))
    return "\n".join(_element(alt, layout, names, groups)), layout


def _label_every_panel(figure: Figure) -> None:
    """Give every axes the numbers and the label of its shared axis, or the label of the whole figure."""
    of_all = {"x": figure.get_supxlabel(), "y": figure.get_supylabel()}
    for label, remove in zip(of_all.values(), (figure.supxlabel, figure.supylabel), strict=True):
        if label:
            remove("")
    for axes in figure.axes:
        if axes.get_subplotspec() is None:
            continue
        for name, shared, side in (
            ("x", axes.get_shared_x_axes(), "labelbottom"),
            ("y", axes.get_shared_y_axes(), "labelleft"),
        ):
            siblings = shared.get_siblings(axes)
            if len(siblings) > 1:
                axes.tick_params(axis=name, **{side: True})
            if not _label(axes, name):
                labels = [_label(each, name) for each in siblings]
                axes.set(**{f"{name}label": next(filter(None, labels), of_all[name])})


def _label(axes: Axes, name: str) -> str:
    return axes.get_xlabel() if name == "x" else axes.get_ylabel()


def _take_legends(figure: Figure) -> tuple[list[str], list[Any]]:
    """Remove every legend, and return their names and the matplotlib handles of these names."""
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    samples: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            samples.setdefault(name, handle)
    names = [text.get_text() for legend in legends if legend for text in legend.get_texts()]
    for legend in filter(None, legends):
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
            samples.setdefault(text.get_text(), handle)  # one that was given to the legend and is in no axes
        legend.remove()
    names = list(dict.fromkeys(name for name in names if name in samples))
    return names, [samples[name] for name in names]


def lay_out(figure: Figure) -> Layout:
    """Compute the layout that ``in_panels`` uses, for other drawings of the same axes; this changes ``figure``.

    Example:
        >>> with figures.style():
        ...     figure = figures.new_figure(6, 2)
        ...     left, right = figure.subplots(1, 2)
        ...     layout = figures.lay_out(figure)
        >>> layout.panel_of
        [0, 1]
    """
    _label_every_panel(figure)
    _take_legends(figure)
    return _arranged(figure)


def _arranged(figure: Figure) -> Layout:
    """Let matplotlib arrange the axes, and make the figure so narrow that its panels are legible on a phone."""
    width, height = figure.get_size_inches()
    if not figure.axes:
        return Layout((width, height), [], [], [Box(0, 0, 72 * width, 72 * height)])
    for _ in range(3):
        figure.draw_without_rendering()
        cells = _cells(figure)
        panel_of = [sorted(set(cells)).index(cell) for cell in cells]
        boxes = _boxes(figure, cells)
        too_wide = max(box.width / limit for box, limit in zip(boxes, _limits(figure, panel_of), strict=True))
        if too_wide <= 1.001:
            break
        width /= too_wide
        figure.set_size_inches(width, height)
    return Layout((width, height), [axes.get_position() for axes in figure.axes], panel_of, boxes)


def _cells(figure: Figure) -> list[tuple[int, int]]:
    """Return row and column of each axes; axes outside the grid (a colour bar) get those of the nearest axes in it."""
    specs = [axes.get_subplotspec() for axes in figure.axes]
    cells = [None if spec is None else (spec.rowspan.start, spec.colspan.start) for spec in specs]
    places = [axes.get_position() for axes in figure.axes]
    middles = np.array([((place.x0 + place.x1) / 2, (place.y0 + place.y1) / 2) for place in places])
    for number, cell in enumerate(cells):
        if cell is None:
            distances = np.abs(middles - middles[number]).sum(1)
            near = [cells[other] for other in distances.argsort() if specs[other] is not None]
            cells[number] = near[0] if near else (0, 0)
    return cells


def _boxes(figure: Figure, cells: Sequence[tuple[int, int]]) -> list[Box]:
    """Return the rectangle of each cell: the figure is cut halfway between neighbouring rows and columns."""
    width, height = figure.get_size_inches() * 72
    extents = [np.array(axes.get_tightbbox().extents) * 72 / figure.dpi for axes in figure.axes]
    columns = _cuts([(cell[1], box[0], box[2]) for cell, box in zip(cells, extents, strict=True)], width)
    rows = _cuts(
        [(cell[0], height - box[3], height - box[1]) for cell, box in zip(cells, extents, strict=True)], height
    )
    found = []
    for row, column in sorted(set(cells)):
        (top, bottom), (left, right) = rows[row], columns[column]
        found.append(Box(*(round(float(value), 1) for value in (left, top, right - left, bottom - top))))
    return found


def _cuts(spans: Sequence[tuple[int, float, float]], end: float) -> dict[int, tuple[float, float]]:
    """Return start and end of each row or column, given ``(number, first, last)`` of the axes in them."""
    numbers = sorted({number for number, *_ in spans})
    first = {number: min(low for each, low, _ in spans if each == number) for number in numbers}
    last = {number: max(high for each, _, high in spans if each == number) for number in numbers}
    between = [(last[a] + first[b]) / 2 for a, b in itertools.pairwise(numbers)]
    edges = [min(0.0, first[numbers[0]]), *between, max(end, last[numbers[-1]])]
    return {number: (edges[place], edges[place + 1]) for place, number in enumerate(numbers)}


def _limits(figure: Figure, panel_of: Sequence[int]) -> list[float]:
    """Return the largest width of each panel, in points, at which its smallest font is legible on a phone."""
    smallest: dict[int, float] = {}
    for axes, panel in zip(figure.axes, panel_of, strict=True):
        sizes = [text.get_fontsize() for text in axes.findobj(Text) if text.get_visible() and text.get_text().strip()]
        smallest[panel] = min([smallest.get(panel, 10.0), *sizes])
    return [PHONE_WIDTH / SMALLEST_FONT * smallest[panel] for panel in sorted(smallest)]


def _put(figure: Figure, layout: Layout) -> None:
    figure.set_layout_engine("none")
    figure.set_size_inches(*layout.size)
    figure.patch.set_visible(False)
    for axes, place, panel in zip(figure.axes, layout.places, layout.panel_of, strict=True):
        axes.set_position(place)
        axes.set_gid(f"panel-{panel}")


def _draw_keys(figure: Figure, handles: Sequence[Any]) -> None:
    """Draw the legend symbol of each series at the left edge of the figure, each in its own group."""
    for number, handle in enumerate(handles):
        key = Legend(
            figure,
            [handle],
            [""],
            loc="upper left",
            bbox_to_anchor=(_KEY.x + 2, figure.get_size_inches()[1] * 72 - _KEY.height * number - 1),
            bbox_transform=_points(figure),
            borderpad=0,
            borderaxespad=0,
            handlelength=2,
            fontsize=10,
        )
        key.set_gid(f"key-{number}")
        figure.add_artist(key)


def _points(figure: Figure) -> Affine2D:
    """Return the transformation from points, counted from the lower left corner, to pixels at any resolution."""
    return Affine2D().scale(1 / 72) + figure.dpi_scale_trans


def _by_group(lines: Sequence[str]) -> dict[str, list[str]]:
    """Return the lines of each named group of the drawing; the key "" has the other lines, the shared definitions."""
    groups: dict[str, list[str]] = {"": []}
    name, depth = "", 0
    for line in lines:
        if not name and (named := re.fullmatch(r'<g id="((?:panel|key)-\d+)">', line)):
            name, depth = named[1], 1
            groups.setdefault(name, [])
            continue
        depth += (line.startswith("<g") and not line.endswith("/>")) - (line == "</g>") if name else 0
        if name and depth == 0:
            name = ""
        else:
            groups[name].append(line)
    return groups


def _element(alt: str, layout: Layout, names: Sequence[str], groups: Mapping[str, list[str]]) -> Iterator[str]:
    """Yield the lines of the HTML element."""
    widest = LARGEST_SCALE * sum(box.width for box in layout.boxes if box.y == layout.boxes[0].y)
    yield (
        f'<div class="bnb-panels" role="img" aria-label="{html.escape(alt)}" style="display:flex;flex-wrap:wrap;'
        f"justify-content:center;align-items:flex-start;row-gap:8px;max-width:{widest:.0f}px;margin:0 auto;"
        'stroke-linejoin:round;font-family:system-ui,sans-serif">'
    )
    if names:
        keys = (_key(name, groups[f"key-{number}"], number) for number, name in enumerate(names))
        style = "flex:1 0 100%;display:flex;flex-wrap:wrap;justify-content:center;gap:0 1.2em;font-size:14px"
        yield f'<div class="bnb-legend" style="{style}">{"".join(keys)}</div>'
    for number, box in enumerate(layout.boxes):
        least, most = WRAP_SCALE * box.width, LARGEST_SCALE * box.width
        # On a phone each panel is as wide as the screen.
        widest_here = f"max({most:.0f}px,min(100%,({PHONE_WIDTH + 100}px - 100%)*999))"
        yield (
            f'<svg viewBox="{box.x:g} {box.y:g} {box.width:g} {box.height:g}" style="flex:{box.width:.0f} 1 '
            f'{least:.0f}px;min-width:0;max-width:{widest_here};overflow:visible" aria-hidden="true">'
        )
        yield from groups.get(f"panel-{number}", ())
        if number + 1 == len(layout.boxes):
            yield from groups[""]
        yield "</svg>"
    yield "</div>"


def _key(name: str, lines: Sequence[str], number: int) -> str:
    window = f"{_KEY.x:g} {_KEY.y + _KEY.height * number:g} {_KEY.width:g} {_KEY.height:g}"
    size = f"width:{1.4 * _KEY.width:.0f}px;height:{1.4 * _KEY.height:.0f}px;vertical-align:middle;margin-right:.3em"
    sample = f'<svg viewBox="{window}" style="{size}" aria-hidden="true">{"".join(lines)}</svg>'
    return f"<span>{sample}{html.escape(name)}</span>"
