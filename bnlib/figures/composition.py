"""Figures of compositional optimisation: how fast errors and gradients fall, and how well estimates follow."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnlib.experiments import mcsgd_rates, tracking
from bnlib.figures.picture import BLUE, GREEN, GREY, PURPLE, VERMILLION, band, plain_ticks

_LINES = [
    (BLUE, "-", "o"), (VERMILLION, "-", "s"), (GREEN, "-", "^"), (PURPLE, "-", "D"), (GREY, "-", "v"),
    (BLUE, "-.", "P"), (VERMILLION, "-.", "X"), (GREEN, "-.", "*"),
]  # fmt: skip


def draw_rates(figure: Figure, cells: Mapping[tuple, Mapping], problem: str, stage: int = 0) -> str:
    """Squared error of an estimate, and mean squared gradient, against k; see ``experiments.mcsgd_rates``.

    A dashed line has the slope of the theory and begins where the slope is fitted: lines should stay below it.

    Arguments:
        figure: where to draw.
        cells: the result, or the part of it that is to be drawn.
        problem: which of ``mcsgd_rates.PROBLEMS``; at most eight of its cells.
        stage: of the composition whose error is drawn.
    """
    left, right = figure.subplots(1, 2)
    told = []
    chosen = {key: values for key, values in cells.items() if key[0] == problem}
    for (key, values), (color, dash, mark) in zip(chosen.items(), _LINES, strict=False):
        _, oracle, power_lr, power_alpha, steps = key
        promised = mcsgd_rates.theory(power_lr, power_alpha)
        name = f"{oracle}, γ = {power_lr:g}, a = {power_alpha:g}"
        look = {"color": color, "ls": dash, "marker": mark, "markevery": 5, "ms": 4, "label": name}
        parts = []
        for axes, what, power in ((left, "error", promised.error), (right, "average", promised.average)):
            runs, k = values[what][:, stage] if what == "error" else values[what], mcsgd_rates.at(steps, what)
            band(axes, k, runs, **look)
            _promise(axes, k, np.median(runs, 0), steps / 30, power, color)
            found = mcsgd_rates.fitted(values, steps, what, stage)
            bound = f"{power:.2f}" if math.isfinite(power) else "none"
            parts.append(f"{what} {found.middle:.2f} (theory {bound})")
        told.append(f"{name}: {', '.join(parts)}")
    left.set(title="squared error of the estimate")
    right.set(title="mean squared gradient up to k")
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xlabel="step k")
        steps = max(key[-1] for key in chosen)
        axes.set_xlim(1, steps)
        plain_ticks(axes.xaxis, [place for place in (1, 10, 100, 1000, 10_000, 100_000) if place <= steps])
        _decades(axes)
    right.plot([], [], ls="--", lw=1, color=GREY, label="slope of the theory")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return f"The problem '{problem}', slopes on logarithmic axes over the last part of the run: {'; '.join(told)}."


def _promise(axes: Axes, k: np.ndarray, middle: np.ndarray, begin: float, power: float, color: str) -> None:
    """A line of this slope through the first point of the fit, if there is one."""
    if math.isfinite(power):
        part = k >= begin
        axes.plot(k[part], middle[part][0] * (k[part] / k[part][0]) ** power, ls="--", lw=1, color=color)


def _decades(axes: Axes) -> None:
    """Ticks at some powers of ten, within what is drawn."""
    low, high = axes.get_ylim()
    exponents = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    plain_ticks(axes.yaxis, [10.0**power for power in exponents][:: 1 + len(exponents) // 6])


_ESTIMATORS = {"exponential": (BLUE, "-", "o"), "corrected": (VERMILLION, "--", "s"), "momentum": (GREEN, ":", "^")}
_QUANTITIES = {"mean": "error of the mean / std", "variance": "relative error of the variance"}


def draw_tracking(figure: Figure, cells: Mapping[tuple, Mapping], layer: str = "last", quantity: str = "mean") -> str:
    """Error of the estimators against the weight of the newest batch, a panel a cell; see ``experiments.tracking``.

    Arguments:
        figure: where to draw.
        cells: the result, or the part of it that is to be drawn.
        layer: of ``tracking.LAYERS``.
        quantity: ``"mean"`` or ``"variance"``.
    """
    sizes, rates = (sorted(set(axis)) for axis in zip(*cells, strict=True))
    panels = figure.subplots(len(rates), len(sizes), sharex=True, sharey=True, squeeze=False)
    number, told = tracking.LAYERS.index(layer), []
    for (batch_size, lr), values in cells.items():
        row, column = rates.index(lr), sizes.index(batch_size)
        axes, parts = panels[row][column], []
        for estimator, (color, dash, mark) in _ESTIMATORS.items():
            runs = values[quantity][:, number, tracking.ESTIMATORS.index(estimator)]
            band(axes, tracking.ALPHAS, runs, color=color, ls=dash, marker=mark, ms=4, label=estimator)
            parts.append(f"{estimator} {_best(runs)}")
        if quantity == "mean":
            noise = [tracking.noise(alpha, batch_size) for alpha in tracking.ALPHAS]
            axes.plot(tracking.ALPHAS, noise, color=GREY, lw=1, ls="-.", label="noise of independent batches")
        axes.set(xscale="log", yscale="log")
        axes.set_title(f"batch size {batch_size}, lr {lr:g}", fontsize=9)
        told.append(f"batch size {batch_size}, lr {lr:g}: {', '.join(parts)}")
    for axes in panels[-1]:
        axes.set(xlabel="weight α")
    for axes in panels[:, 0]:
        axes.set(ylabel=_QUANTITIES[quantity])
    plain_ticks(panels[0][0].xaxis, sorted(tracking.ALPHAS))
    plain_ticks(panels[0][0].yaxis, (0.01, 0.03, 0.1, 0.3, 1, 3, 10))
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return (
        f"{_QUANTITIES[quantity].capitalize()}, inputs of the {layer} norm, with the best α of each estimator: "
        f"{'; '.join(told)}."
    )


def _best(runs: np.ndarray) -> str:
    """The least median over seeds, and its weight."""
    middle = np.nan_to_num(np.median(runs, 0), nan=np.inf)
    best = int(middle.argmin())
    return f"{middle[best]:.2g} at {tracking.ALPHAS[best]:g}"
