"""Figures of chapter 11: convergence of Algorithm 2, and errors of estimates of statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnlib.figures.full_normalization import ORACLE_COLORS
from bnlib.figures.picture import BLUE, GREEN, GREY, VERMILLION, band, plain_ticks

_LINES = {"independent": ("-", "o"), "running": ("-.", "D"), "same": ("--", "s")}
_CONSTANT_RATE = (":", "v")
_PANELS = {
    "error": "squared error of the estimate",
    "gradient": "squared gradient",
    "average": "mean squared gradient up to k",
}


def draw_convergence_rates(figure: Figure, curves: Mapping[str, Mapping]) -> str:
    """Draw the errors of Lemma 1 and the gradients of Corollary 3 against the step k.

    A dashed line has the slope of the theory and starts where the fit starts; the curve of its colour should not lie
    above it at the end. A curve for which the theory has no bound has no dashed line.

    Arguments:
        figure: where to draw.
        curves: from ``experiments.convergence.convergence_rates.rate_curves``, by name, which starts with the
            oracle, and by panel (``"error"``, ``"gradient"``, ``"average"``).

    Returns:
        a description of the figure.
    """
    names = list(next(iter(curves.values())))
    row = figure.subplots(1, len(names), squeeze=False)[0]
    told = []
    for name, each in curves.items():
        oracle = name.split(",")[0]
        color, (dash, mark) = ORACLE_COLORS[oracle], _CONSTANT_RATE if "p = 0," in name else _LINES[oracle]
        for axes, line in zip(row, each.values(), strict=True):
            band(axes, line.k, line.runs, color=color, ls=dash, marker=mark, markevery=5, ms=4, label=name)
            if math.isfinite(line.theory_slope):
                part = line.k >= line.fit_start
                k, first = line.k[part], np.median(line.runs, 0)[part][0]
                axes.plot(k, first * (k / k[0]) ** line.theory_slope, ls="--", lw=1, color=color)
        told.append(f"{name}: {', '.join(_slopes(what, line) for what, line in each.items())}")
    for axes, what in zip(row, names, strict=True):
        last = axes.lines[0].get_xdata()[-1]
        axes.set(xscale="log", yscale="log", xlim=(1, last), xlabel="step k", title=_PANELS[what])
        plain_ticks(axes.xaxis, [place for place in (1, 10, 100, 1000, 10_000, 100_000) if place <= last])
        _decades(axes)
    row[0].plot([], [], ls="--", lw=1, color=GREY, label="slope of the theory")
    figure.legend(*row[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return f"Slopes on logarithmic axes over the last part of the run: {'; '.join(told)}."


def _slopes(what: str, line) -> str:
    found = f"{what} {round(line.slope, 2) + 0.0:.2f}"  # no -0.00
    return found + (f" (theory {line.theory_slope:.2f})" if math.isfinite(line.theory_slope) else " (theory none)")


def _decades(axes: Axes) -> None:
    """Set ticks at powers of ten within the limits of the axis."""
    low, high = axes.get_ylim()
    exponents = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    plain_ticks(axes.yaxis, [10.0**power for power in exponents][:: 1 + len(exponents) // 6])


_ESTIMATORS = {"exponential": (BLUE, "-", "o"), "corrected": (VERMILLION, "--", "s"), "momentum": (GREEN, ":", "^")}


def draw_estimator_errors(figure: Figure, panels: Mapping[str, Mapping], alphas: Sequence[float], label: str) -> str:
    """Draw the error of the estimators against the weight of the newest batch, one panel per setting.

    Arguments:
        figure: where to draw.
        panels: from ``experiments.convergence.estimator_errors.errors_by_setting``: errors by setting and
            estimator, (seeds, alphas); drawn in columns of two.
        alphas: the weights.
        label: of the error, for the vertical axis.

    Returns:
        a description of the figure.
    """
    grid = figure.subplots(2, len(panels) // 2, sharex=True, sharey=True, squeeze=False)
    told = []
    for axes, (name, estimators) in zip(grid.T.flat, panels.items(), strict=True):
        for estimator, (color, dash, mark) in _ESTIMATORS.items():
            band(axes, alphas, estimators[estimator], color=color, ls=dash, marker=mark, ms=4, label=estimator)
        axes.set(xscale="log", yscale="log")
        axes.set_title(name, fontsize=9)
        told.append(f"{name}: {', '.join(f'{key} {_best(runs, alphas)}' for key, runs in estimators.items())}")
    # Each panel gets both labels, and is not long enough for either in one line.
    figure.supxlabel("weight of the\nnewest batch, α", fontsize=10)
    figure.supylabel(label.replace(": ", ":\n"), fontsize=10)
    low, high = grid[0, 0].get_ylim()
    plain_ticks(grid[0, 0].xaxis, sorted(alphas)[::2])  # more would touch each other
    plain_ticks(grid[0, 0].yaxis, [place for place in (0.01, 0.03, 0.1, 0.3, 1, 3, 10) if low < place < high])
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return f"{label}, with the best α of each estimator: {'; '.join(told)}."


def _best(runs: np.ndarray, alphas: Sequence[float]) -> str:
    """Write the lowest median over seeds and the weight where it occurs."""
    middle = np.nan_to_num(np.median(runs, 0), nan=np.inf)
    best = int(middle.argmin())
    return f"{middle[best]:.2g} at {alphas[best]:g}"
