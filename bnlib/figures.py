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
    """A finished figure: themed SVG on a page or in a notebook, its description where pictures are not shown."""

    def __init__(self, svg: str, alt: str):
        self.svg, self.alt = svg, alt

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {
            "text/html": f'<div class="bnb-figure">{self.svg}</div>',
            "text/plain": f"[Figure: {self.alt}]",
        }


def new_figure(width: float = 6.6, height: float = 2.8) -> Figure:
    """An empty figure of this size in inches, drawn without pyplot so that a thread may draw it."""
    return Figure(figsize=(width, height), layout="constrained")


@contextmanager
def style() -> Iterator[None]:
    """The book's matplotlib settings, to draw and render under; one thread at a time."""
    with _DRAWING, rc_context(_STYLE):
        yield


def render(figure: Figure, alt: str) -> str:
    """Write ``figure`` as one ``<svg>`` element with ``alt`` as its accessible name, one drawing element a line.

    The text is the same for the same figure: ids come from the drawing, no date is written.

    Raises:
        ValueError: ``alt`` is empty; every image of the book is described.
    """
    if not alt.strip():
        raise ValueError("alt must describe the figure in words, got an empty text")
    out = StringIO()
    with rc_context({**_STYLE, "svg.hashsalt": alt}):
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<g id=") : text.rindex("</svg>")].replace(_INK, "currentColor")
    # Inside an attribute a line break is only a space; joined, each line is one whole element.
    text = re.sub(r'="[^"]*"', lambda match: re.sub(r"\s+", " ", match[0]).replace(' "', '"'), text)
    text = re.sub(r' (?:d|x|y|width|height|transform|points)="[^"]*"', _round_coordinates, text)
    # The page's own font, and no names of groups: they would stand many times on a page.
    text = re.sub(
        r"<g id=\"[^\"]*\"|font-family: [^;\"]*;? ?|<!--.*?-->|\s*transform=\"rotate\(-0 [^\"]*\"",
        _without,
        text,
    )
    width, height = figure.get_size_inches() * 72
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'aria-label="{html.escape(alt)}" viewBox="0 0 {width:g} {height:g}" '
        f'style="width:100%;max-width:{width * 1.4:.0f}px;stroke-linejoin:round;font-family:system-ui,sans-serif">'
    )
    return "\n".join([head, *_ungrouped(text), "</svg>"])


def _ungrouped(text: str) -> list[str]:
    """The lines without groups that carry no attribute; they only say how matplotlib was organised."""
    kept, carries = [], []
    for line in filter(None, map(str.strip, text.split("\n"))):
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
    """
    with style():
        figure = new_figure(*size)
        alt = draw(figure, *data)
        return Picture(render(figure, alt), alt)


def band(axes: Axes, x: Sequence[float], runs: np.ndarray, *, color: str, label: str, **line) -> None:
    """Draw the median over runs as a line and the range from the lowest to the highest as a band.

    Arguments:
        axes: where to draw.
        x: the common abscissae, length P.
        runs: one row a run, shape (R, P); NaN where a run had already diverged.
        color: of line and band.
        label: name in the legend.
        line: further options of ``Axes.plot``.
    """
    runs = np.asarray(runs, dtype=float)
    present = ~np.isnan(runs).all(0)
    x, runs = np.asarray(x, dtype=float)[present], runs[:, present]
    axes.plot(x, np.nanmedian(runs, 0), color=color, label=label, **line)
    if len(runs) > 1:
        axes.fill_between(x, np.nanmin(runs, 0), np.nanmax(runs, 0), color=color, alpha=0.25, linewidth=0)


def draw_answers(figure: Figure, image: np.ndarray, answers: np.ndarray) -> str:
    """One picture, shape (H, W), and how often each of ten classes was answered for it."""
    left, right = figure.subplots(1, 2, width_ratios=(1, 3))
    left.imshow(image, cmap="gray", vmin=0, vmax=1)
    left.set(xticks=[], yticks=[], title="the picture")
    counts = np.bincount(answers, minlength=10)
    right.bar(range(10), counts, color=BLUE)
    right.set(xticks=range(10), xlabel="class answered", ylabel=f"batches of {len(answers)}")
    told = ", ".join(f"{digit} ({counts[digit]} times)" for digit in counts.argsort()[::-1] if counts[digit])
    return f"A handwritten digit and what a network in train mode takes it for in {len(answers)} batches: {told}."


def draw_running(figure: Figure, paths: dict[float, np.ndarray], target: float) -> str:
    """Running means over batches, one path a momentum, and the mean of the data they should find."""
    axes = figure.subplots()
    for (momentum, path), color, dash in zip(paths.items(), (VERMILLION, BLUE, GREEN), (":", "-", "--"), strict=False):
        axes.plot(path, color=color, ls=dash, lw=1.4, label=f"momentum {momentum:g}")
    axes.axhline(target, color=GREY, lw=1, label="mean of the data")
    axes.set(xlim=(0, len(path) - 1), xlabel="batches seen", ylabel="running mean")
    axes.legend(ncols=len(paths) + 1, loc="upper center", bbox_to_anchor=(0.5, 1.2))
    momenta = ", ".join(f"{momentum:g}" for momentum in paths)
    return (
        f"Running mean over batches for momentum {momenta}: the larger ones reach the mean of the data at once and "
        "then jitter about it, the smallest approaches it slowly and smoothly."
    )


def draw_batch_noise(figure: Figure, data, batch_size: int) -> str:
    """Histograms of batch means and of one picture's output over random batches; see ``experiments.batch_noise``."""
    left, right = figure.subplots(1, 2)
    mean, variance = data.whole
    spread = np.sqrt(variance)
    left.hist((data.means - mean) / spread, bins=np.linspace(-3.2, 3.2, 65), histtype="stepfilled", color=BLUE)
    left.axvline(0, color=VERMILLION, ls="--", lw=1.5)
    left.set(xlim=(-3.2, 3.2), xlabel="batch mean − data mean (data std)", ylabel="batches", title="the batch mean")
    right.hist(data.outputs, bins=np.linspace(-3.2, 3.2, 65), histtype="stepfilled", color=BLUE)
    right.axvline(data.alone, color=VERMILLION, ls="--", lw=1.5)
    right.set(xlim=(-3.2, 3.2), xlabel="normalised value x̂", ylabel="batches", title="one picture's output")
    shares = f"{np.quantile(data.outputs, 0.05):.2f} and {np.quantile(data.outputs, 0.95):.2f}"
    return (
        f"Batches of {batch_size}: the batch mean misses the data mean by {data.means.std() / spread:.2f} standard "
        f"deviations (root mean square). The same picture comes out between {shares} in nine batches of ten; with the "
        f"statistics of the whole data set (dashed) it is {data.alone:.2f}."
    )


def draw_gain(figure: Figure, data, eps: float) -> str:
    """Gain against variance for every pixel, and the variance each has left; see ``experiments.eps_gain``."""
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    floor = 1e-9
    v = np.geomspace(floor, 1, 200)
    left.loglog(v, 1 / np.sqrt(v + eps), color=GREY, lw=1.2)
    left.loglog(np.maximum(data.variances, floor), data.gains, "o", ms=4, color=BLUE, alpha=0.7)
    left.set(xlim=(floor * 0.6, 1), ylim=(0.2, 2e4), xlabel="variance v of the pixel", ylabel="gain 1/√(v + ε)")
    _plain_ticks(left.xaxis, (floor, 1e-6, 1e-3, 1), ("0", "10⁻⁶", "10⁻³", "1"))
    _plain_ticks(left.yaxis, (1, 10, 100, 1000, 10_000))
    left.set_title("one point a pixel")
    image = right.imshow(data.output_variances.reshape(8, 8), vmin=0, vmax=1, cmap="cividis")
    right.set(xticks=[], yticks=[], title="variance after BN")
    figure.colorbar(image, ax=right, shrink=0.9)
    alive = data.variances > 0
    kept = int((data.output_variances > 0.5).sum())
    return (
        f"ε = {eps:g}: {kept} of 64 pixels keep more than half of unit variance. The {int((~alive).sum())} pixels that "
        f"never change come out as 0, and would be multiplied by {data.gains[~alive].max():.4g} if they ever did; "
        f"the largest gain among the others is {data.gains[alive].max():.3g}."
    )


def draw_training(figure: Figure, data: dict[str, dict], batch_size: int, lr: float) -> str:
    """Training loss and test error over epochs, one entry of ``data`` a series; see ``experiments.digits_grid``."""
    left, right = figure.subplots(1, 2)
    looks = {"batch norm": (BLUE, "-"), "no norm": (VERMILLION, "--")}
    for name, curve in data.items():
        norm, live, _ = name.partition(", your run")
        color, dash = looks[norm]
        line = {"color": color, "ls": dash, "label": name}
        if live:
            line.update(marker="o", ms=3, lw=1, ls=":")
        band(left, curve["epoch"], as_array(curve["train_loss"]), **line)
        band(right, curve["epoch"], 100 * as_array(curve["test_error"]), **line)
    left.set(xlim=(0, 10), ylim=(3e-3, 20), yscale="log", xlabel="epoch", ylabel="training loss (nats)")
    _plain_ticks(left.yaxis, (0.01, 0.1, 1, 10))
    right.set(xlim=(0, 10), ylim=(0, 100), xlabel="epoch", ylabel="test error (%)")
    right.legend(loc="center right")
    return (
        f"Batch size {batch_size}, learning rate {lr:g}, after ten epochs: "
        + "; ".join(f"{name}: {_summary(curve)}" for name, curve in data.items())
        + "."
    )


_LINES = [(color, dash) for dash in ("-", "--") for color in (BLUE, VERMILLION, GREEN, PURPLE)] + [(GREY, ":")]
_CURVES = {
    "train_loss": "training loss (nats)",
    "train_error": "training error (%)",
    "test_loss": "test loss (nats)",
    "test_error": "test error (%)",
}


def draw_curves(figure: Figure, panels: dict[str, dict[str, dict]], curves: Sequence[str]) -> str:
    """The curves of an experiment over epochs: a row a panel, a column a curve, a line and a band a norm.

    Arguments:
        figure: where to draw.
        panels: rows of a result (``Experiment.load``) by panel and by norm; at most nine norms.
        curves: which of ``training.History``'s curves, one or more.
    """
    names = list(dict.fromkeys(name for norms in panels.values() for name in norms))
    looks = dict(zip(names, _LINES, strict=False))
    if len(looks) < len(names):
        raise ValueError(f"panels must have at most {len(_LINES)} norms, which is as many as can be told apart")
    grid = figure.subplots(len(panels), len(curves), squeeze=False, sharex=True, sharey="col")
    for row, (title, norms) in zip(grid, panels.items(), strict=True):
        for axes, curve in zip(row, curves, strict=True):
            is_error = curve.endswith("error")
            for name, kept in norms.items():
                color, dash = looks[name]
                values = as_array(kept[curve]) * (100 if is_error else 1)
                band(axes, kept["epoch"], values, color=color, label=name, ls=dash, lw=1.4)
            axes.set(ylabel=_CURVES[curve], title=title if curve == curves[0] else "")
            axes.set(ylim=(0, 100)) if is_error else axes.set(yscale="log")
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    # A norm may be missing in some panels.
    handles = {line.get_label(): line for axes in grid[:, 0] for line in axes.lines}
    figure.legend([handles[name] for name in names], names, loc="outside lower center", ncols=min(4, len(names)))
    ends = {f"{title}, {name}".strip(", "): kept for title, norms in panels.items() for name, kept in norms.items()}
    return "; ".join(f"{name}: {_summary(kept)}" for name, kept in ends.items()) + "."


def draw_error_maps(figure: Figure, cells: dict, batch_sizes: Sequence[int], learning_rates: Sequence[float]) -> str:
    """Median test error of each norm over the grid of batch size and learning rate, as numbers on a map."""
    norms = list(dict.fromkeys(norm for norm, _, _ in cells))
    for axes, norm in zip(np.atleast_1d(figure.subplots(1, len(norms), sharey=True)), norms, strict=True):
        errors = np.array(
            [[np.median(_final_errors(cells[norm, b, lr])) for b in batch_sizes] for lr in learning_rates]
        )
        axes.imshow(errors, origin="lower", cmap="cividis_r", vmin=0, vmax=90, aspect="auto")
        for (row, column), error in np.ndenumerate(errors):
            axes.text(
                column,
                row,
                f"{error:.0f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if error > 40 else "black",
            )
        axes.set_xticks(range(len(batch_sizes)), batch_sizes)
        axes.set_yticks(range(len(learning_rates)), [f"{lr:g}" for lr in learning_rates])
        axes.set(xlabel="batch size", title=norm)
    figure.axes[0].set_ylabel("learning rate")
    return "Median test error in percent over batch size and learning rate: " + ", ".join(norms)


def as_array(runs: Sequence[Sequence[float | None]]) -> np.ndarray:
    """Curves of several runs as one array, shape (R, P); NaN for None and after the end of a shorter run."""
    table = np.full((len(runs), max(map(len, runs))), np.nan)
    for row, run in zip(table, runs, strict=True):
        row[: len(run)] = [np.nan if value is None else value for value in run]
    return table


def _plain_ticks(axis: Axis, places: Sequence[float], labels: Sequence[str] | None = None) -> None:
    """Ticks of a logarithmic axis written as numbers; matplotlib's powers of ten take most of the drawing time."""
    axis.set_ticks(places, labels or [f"{place:,g}" for place in places])
    axis.set_minor_locator(NullLocator())


def _final_errors(curve: dict) -> np.ndarray:
    """Test error in percent at the end of each run, also of those that ended early."""
    return 100 * np.array([run[-1] for run in curve["test_error"]])


def _summary(curve: dict) -> str:
    last = _final_errors(curve)
    if len(last) == 1:
        return f"test error {last[0]:.1f} %"
    return f"median test error {np.median(last):.1f} % ({last.min():.1f} to {last.max():.1f} over {len(last)} seeds)"
