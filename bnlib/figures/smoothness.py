"""Figures of smoothness: a step on a smooth function, the loss along the gradient, and how large a rate can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnlib.figures.picture import BLUE, GREY, VERMILLION, band, plain_ticks

_COLORS = {"without normalisation": VERMILLION, "batch norm": BLUE}
_DASHES = {"without normalisation": "--", "batch norm": "-"}


def draw_step(figure: Figure, data, waves: float, step_length: float) -> str:
    """A function, a step of gradient descent on it and the parabola above it; see ``experiments.smooth_function``."""
    axes = figure.subplots()
    axes.plot(data.w, data.f, color=BLUE, label="f")
    axes.plot(data.w, data.bound, color=GREY, ls="--", lw=1.2, label="parabola with curvature β")
    start = data.to + step_length * data.slope
    axes.plot([start], [data.before], "o", color=GREY, ms=7)
    axes.plot([data.to], [data.after], "o", color=VERMILLION, ms=7, label="after the step")
    axes.annotate("", (data.to, data.after), (start, data.before), arrowprops={"arrowstyle": "->", "color": VERMILLION})
    axes.set(xlim=(-4, 4), ylim=(-0.5, 6), xlabel="w", ylabel="f(w)")
    axes.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    fell = "fell" if data.after < data.before else "rose"
    kept = "promised" if data.promised < data.before else "not promised"
    return (
        f"β = {data.beta:.3g}, so a step shorter than 2/β = {2 / data.beta:.2g} must lead down. With step length "
        f"{step_length:g} f {fell} from {data.before:.2f} to {data.after:.2f}; a fall was {kept} (parabola: "
        f"{data.promised:.2f})."
    )


def draw_landscape(figure: Figure, data: Mapping[str, Mapping], init: str, batch_size: int, lr: float) -> str:
    """Ranges of loss and gradient along the gradient over training; see ``experiments.landscape_over_training``."""
    left, middle, right = figure.subplots(1, 3)
    for norm, values in data.items():
        color, dash = _COLORS[norm], _DASHES[norm]
        steps = 10 * np.arange(values["loss"].shape[1])
        _range(left, steps, values["low"], values["high"], color)
        _range(middle, steps, values["change_low"], values["change_high"], color)
        band(right, steps, values["beta"], color=color, ls=dash, label=norm)
    left.set(title="loss", yscale="log", ylim=(0.01, 100), ylabel="range over step lengths")
    middle.set(title="change of the gradient", yscale="log", ylim=(0.01, 100))
    right.set(title="effective β", yscale="log", ylim=(0.1, 300))
    for axes in (left, middle, right):
        axes.set(xlim=(0, 190), xlabel="step")
        plain_ticks(axes.yaxis, (0.1, 1, 10, 100))
    right.legend(loc="upper right", fontsize=8)
    told = "; ".join(
        f"{norm}: loss {_last(values['loss'])}, at the worst step length {_last(values['high'])}, "
        f"β {_last(values['beta'])}"
        for norm, values in data.items()
    )
    return (
        f"Initialisation {init}, batch size {batch_size}, learning rate {lr:g}; step lengths from 1/2 to 4 times it. "
        f"Medians over the last five moments and all seeds: {told}."
    )


def _range(axes: Axes, steps: np.ndarray, low: np.ndarray, high: np.ndarray, color: str) -> None:
    """The medians over seeds of the two ends, with what lies between filled."""
    low, high = np.median(low, 0), np.median(high, 0)
    there = np.isfinite(low) & np.isfinite(high)
    axes.fill_between(steps[there], low[there], high[there], color=color, alpha=0.35, linewidth=0.8, edgecolor=color)


def _last(values: np.ndarray) -> str:
    middle = np.median(np.nan_to_num(values[:, -5:], nan=np.inf))
    return f"{middle:.2g}" if np.isfinite(middle) else "none (diverged)"


def draw_smoothness_by_loss(figure: Figure, series: Mapping[str, Mapping]) -> str:
    """Effective and relative smoothness against the loss reached, a line and a mark for each of ``series``.

    Arguments:
        figure: where to draw.
        series: by name the numbers of a setting of ``experiments.landscape_over_training``; at most four.
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
        axes.set(xscale="log", yscale="log", xlim=(4, 0.02), xlabel="loss on the way (nats)")
        plain_ticks(axes.xaxis, (2, 0.5, 0.1, 0.03))
    plain_ticks(left.yaxis, (0.3, 1, 3, 10, 30))
    plain_ticks(right.yaxis, (10, 30, 100, 300, 1000, 3000))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    told = "; ".join(f"{name}: β {np.median(values['beta']):.2g}" for name, values in series.items())
    return f"Smoothness against loss during training, one mark a moment. Medians: {told}."


def draw_stable_rates(figure: Figure, cells: Mapping[tuple, Mapping], depths: Sequence[int]) -> str:
    """Largest stable learning rate by depth, and the loss reached with it; see ``experiments.stable_rates``."""
    left, right = figure.subplots(1, 2)
    told = []
    for init, norm in dict.fromkeys((init, norm) for init, norm, _ in cells):
        color, fill = _COLORS[norm], init == "He"
        rates, losses = (np.array([cells[init, norm, depth][name] for depth in depths]).T for name in ("rate", "loss"))
        for axes, values in ((left, rates), (right, losses)):
            middle = np.median(values, 0)
            reach = np.abs(np.array([values.min(0), values.max(0)]) - middle)
            axes.errorbar(depths, middle, reach, fmt="s-" if norm == "batch norm" else "o--", color=color, ms=5, lw=1.2,
                          mfc=color if fill else "none", label=f"{norm}, {init}")  # fmt: skip
        told.append(f"{norm}, {init}: {', '.join(f'{value:.2g}' for value in np.median(rates, 0))}")
    left.set(yscale="log", ylim=(0.05, 100), ylabel="largest stable learning rate")
    right.set(yscale="log", ylim=(1e-3, 5), ylabel="loss after 30 steps with it (nats)")
    plain_ticks(left.yaxis, (0.1, 1, 10, 100))
    plain_ticks(right.yaxis, (0.01, 0.1, 1))
    for axes in (left, right):
        axes.set(xticks=depths, xlabel="hidden layers")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return f"Largest stable learning rate at {', '.join(map(str, depths))} hidden layers: " + "; ".join(told) + "."
