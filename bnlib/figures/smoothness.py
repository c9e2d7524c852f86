"""Draw a gradient step on a smooth function, the loss along the gradient, and the stable learning rates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnlib.figures.picture import BLUE, GREY, VERMILLION, band, plain_ticks

_COLORS = {"without normalisation": VERMILLION, "batch norm": BLUE}
_MARKS = {"without normalisation": "o", "batch norm": "s"}
_DASHES = {"without normalisation": "--", "batch norm": "-"}


def draw_step(figure: Figure, data, frequency: float, step_size: float) -> str:
    """Draw a function, a gradient step on it and the parabola that bounds it from above."""
    axes = figure.subplots()
    axes.plot(data.w, data.f, color=BLUE, label="f")
    axes.plot(data.w, data.bound, color=GREY, ls="--", lw=1.2, label="parabola with curvature β")
    start = data.end + step_size * data.slope
    axes.plot([start], [data.f_start], "o", color=GREY, ms=7)
    axes.plot([data.end], [data.f_end], "o", color=VERMILLION, ms=7, label="after the step")
    arrow = {"arrowstyle": "->", "color": VERMILLION}
    axes.annotate("", (data.end, data.f_end), (start, data.f_start), arrowprops=arrow)
    axes.set(xlim=(-4, 4), ylim=(-0.5, 6), xlabel="w", ylabel="f(w)")
    axes.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    change = "falls" if data.f_end < data.f_start else "rises"
    guarantee = "guarantees" if data.bound_end < data.f_start else "does not guarantee"
    return (
        f"β = {data.beta:.3g}, so every step size below 2/β = {2 / data.beta:.2g} lowers f. At the step size "
        f"{step_size:g}, f {change} from {data.f_start:.2f} to {data.f_end:.2f}. The parabola {guarantee} a decrease: "
        f"after the step it is at {data.bound_end:.2f}."
    )


def draw_landscape(figure: Figure, data: Mapping[str, Mapping], init: str, batch_size: int, lr: float) -> str:
    """Draw ranges of the loss and of the change of the gradient along the gradient, and the effective smoothness.

    Arguments:
        figure: where to draw.
        data: by norm, the numbers of one setting of ``experiments.smoothness.landscape_over_training``.
        init, batch_size, lr: the setting.
    """
    left, middle, right = figure.subplots(1, 3)
    for norm, values in data.items():
        color, dash = _COLORS[norm], _DASHES[norm]
        steps = 10 * np.arange(values["loss"].shape[1])
        _fill_between_medians(left, steps, values["lowest_loss"], values["highest_loss"], color)
        _fill_between_medians(middle, steps, values["smallest_change"], values["largest_change"], color)
        band(right, steps, values["beta"], color=color, ls=dash, label=norm)
    left.set(title="loss (nats)", yscale="log", ylim=(0.01, 100), ylabel="range over step sizes")
    middle.set(title="change of the gradient", yscale="log", ylim=(0.01, 100))
    right.set(title="effective β", yscale="log", ylim=(0.1, 300))
    for axes in (left, middle, right):
        axes.set(xlim=(0, 190), xlabel="training step")
        plain_ticks(axes.yaxis, (0.1, 1, 10, 100))
    right.legend(loc="upper right", fontsize=8)
    medians = "; ".join(
        f"{norm}: loss {_last(values['loss'])}, highest loss along the gradient {_last(values['highest_loss'])}, "
        f"effective β {_last(values['beta'])}"
        for norm, values in data.items()
    )
    return (
        f"Initialisation {init}, batch size {batch_size}, learning rate {lr:g}; step sizes from 1/2 to 4 times the "
        f"learning rate. Medians over the last five probed steps and all seeds: {medians}."
    )


def _fill_between_medians(axes: Axes, steps: np.ndarray, low: np.ndarray, high: np.ndarray, color: str) -> None:
    low, high = np.median(low, 0), np.median(high, 0)
    finite = np.isfinite(low) & np.isfinite(high)
    low, high, steps = low[finite], high[finite], steps[finite]
    axes.fill_between(steps, low, high, color=color, alpha=0.35, linewidth=0.8, edgecolor=color)


def _last(values: np.ndarray) -> str:
    median = np.median(np.nan_to_num(values[:, -5:], nan=np.inf))
    return f"{median:.2g}" if np.isfinite(median) else "none (diverged)"


def draw_smoothness_by_loss(figure: Figure, series: Mapping[str, Mapping]) -> str:
    """Draw effective and relative smoothness against the training loss, with one kind of mark for each series.

    Arguments:
        figure: where to draw.
        series: by name, the numbers of a setting of ``experiments.smoothness.landscape_over_training``; at most four.
    """
    left, right = figure.subplots(1, 2)
    for (name, values), mark in zip(series.items(), "osD^", strict=False):
        color = _COLORS["batch norm" if name.startswith("batch norm") else "without normalisation"]
        loss = np.median(values["loss"], 0)
        for axes, kind in ((left, "beta"), (right, "relative_beta")):
            axes.plot(loss, np.median(values[kind], 0), mark, ms=4, color=color, label=name, alpha=0.8, ls="none",
                      mfc="none" if "PyTorch default" in name else color)  # fmt: skip
    left.set(title="effective β")
    right.set(title="relative β of the weight matrices")
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xlim=(4, 0.02), xlabel="training loss (nats)")
        plain_ticks(axes.xaxis, (2, 0.5, 0.1, 0.03))
    plain_ticks(left.yaxis, (0.3, 1, 3, 10, 30))
    plain_ticks(right.yaxis, (10, 30, 100, 300, 1000, 3000))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    medians = "; ".join(f"{name}: {np.median(values['beta']):.2g}" for name, values in series.items())
    return f"Smoothness against training loss, one mark per probed step. Medians of the effective β: {medians}."


def draw_stable_rates(figure: Figure, cells: Mapping[tuple, Mapping], learned: float) -> str:
    """Draw which learning rates are stable, one row of marks per network and one panel per initialisation.

    The area of a mark is proportional to the number of seeds that are stable at its rate. It is filled if the median of
    their losses after training is below ``learned``.

    Arguments:
        figure: where to draw.
        cells: by initialisation, norm and depth, the result of ``smoothness.stable_rates_near_border.load``.
        learned: a loss, in nats.
    """
    inits, norms, depths = (list(dict.fromkeys(values)) for values in zip(*cells, strict=True))
    sentences = []
    panels = figure.subplots(1, len(inits), sharey=True)
    for axes, init in zip(panels, inits, strict=True):
        for place, norm in enumerate(norms):
            for row, depth in enumerate(depths):
                cell, height = cells[init, norm, depth], -row - 0.35 * place
                _draw_stable_row(axes, cell, learned, height, norm)
                first, last = (np.median(cell[name]) for name in ("first_unstable", "last_stable"))
                sentences.append(f"{init}, {depth} hidden layers, {norm}: {first:.2g} and {last:.2g}")
        axes.set(title=f"{init} initialisation", xscale="log", xlabel="learning rate", xlim=(0.008, 20))
        axes.set(ylim=(-len(depths) + 0.3, 0.35), yticks=[-row - 0.175 for row in range(len(depths))])
        plain_ticks(axes.xaxis, (0.01, 0.1, 1, 10))
    panels[0].set(yticklabels=depths, ylabel="hidden layers")
    marks = [panels[0].scatter([], [], s=30, color=_COLORS[norm], marker=_MARKS[norm], label=norm) for norm in norms]
    figure.legend(handles=marks, loc="outside lower center", ncols=2)
    return (
        "Learning rates at which full-batch gradient descent is stable. Medians of the smallest unstable and the "
        f"largest stable rate: {'; '.join(sentences)}."
    )


def _draw_stable_row(axes: Axes, cell: Mapping, learned: float, height: float, norm: str) -> None:
    count = cell["stable"].sum(0)
    some = count > 0
    below = np.nanmedian(cell["loss"][:, some], 0) < learned
    axes.scatter(
        cell["rates"][some], np.full(some.sum(), height), s=28 * count[some] / len(cell["stable"]), linewidth=0.8,
        marker=_MARKS[norm], edgecolor=_COLORS[norm], facecolor=[_COLORS[norm] if each else "none" for each in below],
    )  # fmt: skip
