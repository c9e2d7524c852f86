"""Draw a gradient step on a smooth function, the loss along the gradient, and the largest stable learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnlib.figures.picture import BLUE, GREY, VERMILLION, band, plain_ticks

_COLORS = {"without normalisation": VERMILLION, "batch norm": BLUE}
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


def draw_stable_rates(figure: Figure, cells: Mapping[tuple, Mapping], depths: Sequence[int]) -> str:
    """Draw the largest stable learning rate, and the loss after training at it, against the number of hidden layers.

    Arguments:
        figure: where to draw.
        cells: the result of ``experiments.smoothness.stable_learning_rates``.
        depths: numbers of hidden layers.
    """
    left, right = figure.subplots(1, 2)
    medians = []
    for init, norm in dict.fromkeys((init, norm) for init, norm, _ in cells):
        color, fill = _COLORS[norm], init == "He"
        rates, losses = (np.array([cells[init, norm, depth][name] for depth in depths]).T for name in ("rate", "loss"))
        for axes, values in ((left, rates), (right, losses)):
            median = np.median(values, 0)
            spread = np.abs(np.array([values.min(0), values.max(0)]) - median)
            style = {"color": color, "mfc": color if fill else "none", "ms": 5, "lw": 1.2}
            fmt = "s-" if norm == "batch norm" else "o--"
            axes.errorbar(depths, median, spread, fmt=fmt, label=f"{norm}, {init}", **style)
        medians.append(f"{norm}, {init}: {', '.join(f'{value:.2g}' for value in np.median(rates, 0))}")
    left.set(yscale="log", ylim=(0.05, 100), ylabel="largest stable learning rate")
    right.set(yscale="log", ylim=(1e-3, 5), ylabel="loss after 30 steps at it (nats)")
    plain_ticks(left.yaxis, (0.1, 1, 10, 100))
    plain_ticks(right.yaxis, (0.01, 0.1, 1))
    for axes in (left, right):
        axes.set(xticks=depths, xlabel="hidden layers")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return f"Largest stable learning rate at {', '.join(map(str, depths))} hidden layers: " + "; ".join(medians) + "."
