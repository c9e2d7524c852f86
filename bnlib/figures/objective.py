"""Figures of what BN minimises: objectives over two weights, absorbed statistics, and evaluation beside objective."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from bnlib.figures.picture import BLUE, GREEN, GREY, PURPLE, VERMILLION, plain_ticks

_LEVELS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.9, 1.2, 1.6, 2.1, 2.7)


def draw_surface(figure: Figure, data, construction: str, batch_size: int, lr: float) -> str:
    """Contours of objective (4), its minimiser, a path of SGD and three losses; see ``experiments.two_parameters``."""
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
    surface, (ideal, least) = data.surface, data.best_of_all
    flat = surface.best is None
    if not flat:
        left.contour(surface.axis, surface.axis, surface.values, _LEVELS, colors=[GREY], linewidths=0.7)
    left.plot(*data.path.T, color=GREEN, lw=0.9)
    left.plot(*data.path[0], "o", color=GREEN, ms=5)
    left.plot(*ideal, "*", color=VERMILLION, ms=12, label="minimum of (5), all data")
    left.plot(*((np.nan, np.nan) if flat else surface.best), "o", color=BLUE, ms=8, label="minimum of (4)")
    left.plot([], [], color=GREEN, lw=0.9, marker="o", ms=5, label="SGD from its start")
    ends = surface.axis[0], surface.axis[-1]
    left.set(xlim=ends, ylim=ends, aspect="equal", xlabel="weight of input 1", ylabel="weight of input 2")
    values = (surface.least, surface.evaluated, least)
    rows = ("objective (4)\nat its minimum", "the same weights\nevaluated, (5)", "minimum of (5)")
    right.barh(rows, values, color=[BLUE, PURPLE, VERMILLION], height=0.55)
    for row, value in enumerate(values):
        right.text(value + 0.01, row, f"{value:.3f}", va="center", fontsize=9)
    right.axvline(np.log(2), color=GREY, ls=":", lw=1)
    right.set(xlim=(0, 1.6), xlabel="loss (nats)")
    right.invert_yaxis()
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    where = (
        f"is the same for all weights; SGD stays at ({data.path[0, 0]:.2f}, {data.path[0, 1]:.2f})"
        if flat
        else f"is least at ({_signed(surface.best[0])}, {_signed(surface.best[1])})"
    )
    return (
        f"Batches: {construction}, {_samples(batch_size)} each, {len(surface.batches)} different ones. Objective (4) "
        f"{where}: {surface.least:.3f}. Evaluated with the statistics of all samples these weights give "
        f"{surface.evaluated:.3f}; the best are ({ideal[0]:.2f}, {ideal[1]:.2f}) with {least:.3f}. After "
        f"{len(data.path) - 1} steps at learning rate {lr:g} the path is at ({_signed(data.path[-1, 0])}, "
        f"{_signed(data.path[-1, 1])})."
    )


def _samples(count: int) -> str:
    return "1 sample" if count == 1 else f"{count} samples"


def _signed(value: float) -> str:
    return f"{value + 0.0:.2f}".replace("-0.00", "0.00")


def draw_absorbed(figure: Figure, data, weight: float, statistics: str) -> str:
    """A function with BN, the plain network that absorbed its statistics, and both weights; see ``absorbed``."""
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    for name, outputs in data.with_bn.items():
        chosen = name == statistics
        left.plot(data.inputs, outputs, color=BLUE if chosen else GREY, lw=2 if chosen else 0.9,
                  label="BN, these statistics" if chosen else None, zorder=2 if chosen else 1)  # fmt: skip
    left.plot([], [], color=GREY, lw=0.9, label="BN, those of another batch")
    left.plot(data.inputs[::4], data.plain[::4], "o", color=VERMILLION, mfc="none", ms=5, label="plain, W′", zorder=3)
    left.plot(data.data, np.full(len(data.data), -2.9), "|", color=GREY, ms=8)
    left.set(xlim=(-3, 4), ylim=(-3, 0.5), xlabel="input x (ticks: the data)", ylabel="output of the network")
    places = np.arange(len(data.before))
    right.axhline(0, color=GREY, lw=0.6)
    right.vlines(places, data.before, data.after, color=GREY, lw=1)
    right.plot(places, data.before, "s", color=BLUE, ms=5, label="W, with BN")
    right.plot(places, data.after, "o", color=VERMILLION, mfc="none", ms=6, label="W′, plain")
    names = ("w₁₁", "w₁₂", "b₁", "b₂", "w₂₁", "w₂₂", "b")
    right.set(xticks=places, xticklabels=names, ylim=(-6.5, 6.5), ylabel="value")
    handles = [*left.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    figure.legend(handles, [each.get_label() for each in handles], loc="outside lower center", ncols=3)
    others = [name for name in data.with_bn if name != statistics]
    worst = max(others, key=data.apart)
    return (
        f"Weight w₁₁ = {weight:g}, statistics of {statistics}: over the range drawn the two networks differ by at most "
        f"{_bound(data.apart(statistics))}. With the statistics of {worst} the same W is another function, up to "
        f"{data.apart(worst):.2f} away."
    )


def _bound(value: float) -> str:
    """As a power of ten, so that rounding does not change the text from machine to machine."""
    return "10⁻¹²" if value < 1e-12 else f"{value:.2g}"


_PLACES = {
    "objective": "train\nmode,\nits\nbatches",
    "reshuffled": "train\nmode,\nre-\nshuffled",
    "evaluation": "eval\nmode,\ntraining\nset",
    "test": "eval\nmode,\ntest\nset",
}


def draw_objective_and_evaluation(
    figure: Figure, data: Mapping[str, Mapping], labels: str, construction: str, batch_size: int
) -> str:
    """Loss and error of trained networks in four ways; see ``experiments.objective_and_evaluation``."""
    told = []
    for axes, column in zip(figure.subplots(1, 2), (0, 1), strict=True):
        for shift, (norm, color, mark) in zip(
            (-0.12, 0.12), (("without normalisation", VERMILLION, "o"), ("batch norm", BLUE, "s")), strict=True
        ):
            values = np.array([data[norm][name][:, column] for name in _PLACES]) * (100 if column else 1)
            spots = np.arange(len(_PLACES)) + shift
            axes.plot(spots, np.median(values, 1), mark, color=color, ms=7, label=norm)
            axes.vlines(spots, values.min(1), values.max(1), color=color, lw=1.5)
            if column:
                errors = ", ".join(f"{value:.1f}" for value in np.median(values, 1))
                told.append(f"{norm} {errors} %")
        axes.set_xticks(range(len(_PLACES)), _PLACES.values(), fontsize=8)
        axes.set(xlim=(-0.5, 3.5))
        axes.axvline(1.5, color=GREY, ls=":", lw=1)
    left, right = figure.axes
    left.set(yscale="log", ylim=(1e-4, 20), ylabel="loss (nats)")
    plain_ticks(left.yaxis, (0.001, 0.01, 0.1, 1, 10))
    right.set(ylim=(-3, 103), ylabel="errors (%)")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return (
        f"Labels {labels}, batches {construction}, {_samples(batch_size)} each: median errors on the training batches, "
        f"in reshuffled batches, in eval mode and on the test set: {'; '.join(told)}. Bars: range over five seeds."
    )


def draw_errors_by_batch_size(figure: Figure, cells: Mapping[tuple, Mapping]) -> str:
    """Test error after equal numbers of epochs against batch size; see ``experiments.lian_figure_2``."""
    rates = list(dict.fromkeys(lr for _, _, lr in cells))
    looks = {"BN": (BLUE, "s-"), "FN, default": (GREEN, "D-."), "without normalisation": (VERMILLION, "o--")}
    told = []
    for axes, lr in zip(figure.subplots(1, len(rates), sharey=True), rates, strict=True):
        for norm, (color, mark) in looks.items():
            sizes = sorted(size for kind, size, rate in cells if kind == norm and rate == lr)
            ends = 100 * np.array([[run[-1] for run in cells[norm, size, lr]["test_error"]] for size in sizes])
            middle = np.median(ends, 1)
            reach = np.abs(np.stack([ends.min(1), ends.max(1)]) - middle)
            axes.errorbar(sizes, middle, reach, fmt=mark, color=color, ms=5, lw=1.2, label=norm)
            told.append(f"{norm} at {lr:g}: {', '.join(f'{value:.1f}' for value in middle)}")
        axes.set(xscale="log", yscale="log", ylim=(0.5, 100), title=f"learning rate {lr:g}", xlabel="batch size")
        plain_ticks(axes.xaxis, sizes)
        plain_ticks(axes.yaxis, (1, 3, 10, 30, 100))
    figure.axes[0].set_ylabel("test error (%)")
    figure.axes[1].yaxis.set_minor_locator(FixedLocator([]))
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return f"Median test error in percent at batch sizes {', '.join(map(str, sizes))}: " + "; ".join(told) + "."
