"""Figures of chapter 12 about the theory: nested averages, rates of Algorithm 2, and errors of estimates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnlib.experiments.convergence import theorem_2
from bnlib.experiments.convergence.convergence_rates import bin_ends
from bnlib.experiments.full_normalization.oracle_names import ORACLE_NAMES
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
        oracle, _, powers = name.partition(",")
        color, (dash, mark) = ORACLE_COLORS[oracle], _CONSTANT_RATE if "p = 0," in name else _LINES[oracle]
        label = f"{ORACLE_NAMES[oracle]},{powers}"
        for axes, line in zip(row, each.values(), strict=True):
            band(axes, line.k, line.runs, color=color, ls=dash, marker=mark, markevery=5, ms=4, label=label)
            if math.isfinite(line.theory_slope):
                part = line.k >= line.fit_start
                k, first = line.k[part], np.median(line.runs, 0)[part][0]
                axes.plot(k, first * (k / k[0]) ** line.theory_slope, ls="--", lw=1, color=color)
        told.append(f"{label}: {', '.join(_slopes(what, line) for what, line in each.items())}")
    for axes, what in zip(row, names, strict=True):
        last = axes.lines[0].get_xdata()[-1]
        axes.set(xscale="log", yscale="log", xlim=(1, last), xlabel="step k", title=_PANELS[what])
        plain_ticks(axes.xaxis, [place for place in (1, 10, 100, 1000, 10_000, 100_000) if place <= last])
        _decades(axes)
    row[0].plot([], [], ls="--", lw=1, color=GREY, label="slope of the theory")
    figure.legend(*row[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return f"Slopes on logarithmic axes over the last part of the run: {'; '.join(told)}."


def draw_slopes(figure: Figure, slopes: Mapping[tuple, Mapping[str, tuple]]) -> str:
    """Draw the measured slopes of errors and of mean squared gradients over the range that the theory allows.

    A bar ends at the theory's bound; a slope in the bar falls at least as fast as promised. Markers are open for the
    gradients of runs that end far from the minimum.

    Arguments:
        figure: where to draw.
        slopes: from ``experiments.convergence.convergence_rates.measured_slopes``.

    Returns:
        a description of the figure.
    """
    heights, labels, told = _grouped_rows(slopes), {}, []
    panels = dict(zip(("error", "average"), figure.subplots(1, 2, sharex=True, sharey=True), strict=True))
    for (problem, oracle, p, a), found in slopes.items():
        height = heights[problem, oracle, p, a]
        labels[height] = f"p = {p:g}, a = {a:g}"
        for name, axes in panels.items():
            slope, bound = found[name]
            if math.isfinite(bound):
                axes.barh(height, bound - _STEEPEST, left=_STEEPEST, height=0.7, color=GREY, alpha=0.3)
                axes.vlines(bound, height - 0.35, height + 0.35, color=GREY, lw=1.5)
            hollow = name == "average" and problem.endswith("far start")
            color, mark = ORACLE_COLORS[oracle], _LINES[oracle][1]
            reach = [[slope.median - slope.lowest], [slope.highest - slope.median]]
            style = {"fmt": mark, "ms": 5, "lw": 1.2, "color": color, "mfc": "none" if hollow else color}
            axes.errorbar(slope.median, height, xerr=reach, **style)
        numbers = (
            f"{what} {round(slope.median, 2) + 0.0:.2f}{_promised(bound)}" for what, (slope, bound) in found.items()
        )
        told.append(f"{problem}, {ORACLE_NAMES[oracle]}, {labels[height]}: {', '.join(numbers)}")
    labels |= {heights[problem]: f"{problem}:" for problem, *_ in slopes}
    for name, axes in panels.items():
        axes.axvline(0, color=GREY, lw=0.8)
        axes.set(xlim=(_STEEPEST, 0.8), ylim=(max(labels) + 0.7, -0.7), xlabel="slope", title=_PANELS[name])
        axes.set_yticks(list(labels), list(labels.values()), fontsize=9)
        axes.tick_params(axis="y", length=0)
    axes = panels["error"]
    for oracle in ("independent", "running", "same"):
        color, mark = ORACLE_COLORS[oracle], _LINES[oracle][1]
        axes.plot([], [], mark, color=color, ms=5, ls="none", label=ORACLE_NAMES[oracle])
    axes.barh(0, 0, color=GREY, alpha=0.3, label="within the theory's bound")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return f"Slopes on logarithmic axes, medians of three groups of runs: {'; '.join(told)}."


_STEEPEST = -1.05


def _grouped_rows(slopes: Mapping[tuple, Mapping]) -> dict:
    """Return the height of each key and, above those of each problem, that of its name."""
    heights: dict = {}
    for key in slopes:
        for each in (key[0], key):
            heights.setdefault(each, len(heights))
    return heights


def _slopes(what: str, line) -> str:
    return f"{what} {round(line.slope, 2) + 0.0:.2f}{_promised(line.theory_slope)}"  # no -0.00


def _promised(bound: float) -> str:
    return f" (theory {bound:.2f})" if math.isfinite(bound) else " (theory none)"


def _decades(axes: Axes) -> None:
    """Set ticks at powers of ten within the limits of the axis."""
    low, high = axes.get_ylim()
    exponents = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    plain_ticks(axes.yaxis, [10.0**power for power in exponents][:: 1 + len(exponents) // 6])


_ESTIMATORS = {"exponential": (BLUE, "-", "o"), "corrected": (VERMILLION, "--", "s"), "momentum": (GREEN, ":", "^")}


def draw_estimator_errors(figure: Figure, data: Mapping[str, Any], quantity: str, batch_size: int, lr: float) -> str:
    """Draw the error of the estimators against the weight of the newest batch, one panel per layer.

    Arguments:
        figure: where to draw.
        data: from ``experiments.convergence.estimator_errors.lookup``: ``"alphas"``, and by layer and estimator the
            errors, (seeds, alphas).
        quantity, batch_size, lr: as there.

    Returns:
        a description of the figure.
    """
    alphas, told = data["alphas"], []
    layers = {name: values for name, values in data.items() if name != "alphas"}
    row = figure.subplots(1, len(layers), sharey=True)
    unit = {"mean": "std", "variance": "variance"}[quantity]
    for axes, (layer, estimators) in zip(row, layers.items(), strict=True):
        for estimator, (color, dash, mark) in _ESTIMATORS.items():
            band(axes, alphas, estimators[estimator], color=color, ls=dash, marker=mark, ms=4, label=estimator)
        axes.set(
            xscale="log",
            yscale="log",
            title=f"{layer} layer",
            xlabel="weight α of the newest batch",
            ylabel=f"error / {unit}",
        )
        plain_ticks(axes.xaxis, sorted(alphas))
        told.append(f"{layer} layer: {', '.join(f'{key} {_best(runs, alphas)}' for key, runs in estimators.items())}")
    row[0].set_ylim(0.005, 30)  # the same at every setting, so that settings can be compared
    plain_ticks(row[0].yaxis, (0.01, 0.1, 1, 10))
    figure.legend(*row[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    setting = f"batch size {batch_size}, learning rate {lr:g}"
    return f"Error of the {quantity} / {unit}, {setting}, with the best α of each estimator: {'; '.join(told)}."


def _best(runs: np.ndarray, alphas: Sequence[float]) -> str:
    """Write the lowest median over seeds and the weight where it occurs."""
    middle = np.nan_to_num(np.median(runs, 0), nan=np.inf)
    best = int(middle.argmin())
    return f"{middle[best]:.2g} at {alphas[best]:g}"


def draw_nested_averages(figure: Figure, stages: Mapping[str, Any]) -> str:
    """Draw the values of each sample at each stage, and their averages, with exact and with wrong inner averages.

    Arguments:
        figure: where to draw.
        stages: ``Values`` of ``experiments.convergence.nested_averages`` by stage; the last one is the loss.

    Returns:
        a description of the figure.
    """
    told, last = [], list(stages)[-1]
    cases = {"exact inner averages": (BLUE, "o", "-", -0.12), "û₁ from two samples": (VERMILLION, "s", "--", 0.12)}
    for axes, (name, values) in zip(figure.subplots(1, len(stages)), stages.items(), strict=True):
        samples, averages = (values.exact, values.off), (values.mean, values.mean_off)
        for (label, (color, mark, dash, shift)), each, mean in zip(cases.items(), samples, averages, strict=True):
            places = np.arange(1, len(each) + 1) + shift
            axes.plot(places, each, mark, color=color, ms=5, ls="none")
            axes.axhline(mean, color=color, ls=dash, lw=1.6, label=label)
        what = "loss of each sample" if name == last else f"{name}: e of each sample"
        axes.set(title=what, xlabel="sample", xticks=(1, len(values.exact)), xlim=(0.3, len(values.exact) + 0.7))
        told.append(f"{name}: {values.mean:.2f} exact, {values.mean_off:.2f} off")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return f"Averages with exact inner averages, and with the first one estimated from two samples: {'; '.join(told)}."


def draw_weighted_sums(figure: Figure, sums: Mapping[tuple, Mapping[str, np.ndarray]]) -> str:
    """Draw the sum that Theorem 2 bounds against the step k, over its value at step 1,000.

    Arguments:
        figure: where to draw.
        sums: from ``experiments.convergence.theorem_2.load``, by oracle and powers.

    Returns:
        a description of the figure.
    """
    axes, told = figure.subplots(), []
    steps = bin_ends(theorem_2.STEPS)
    start = int(np.searchsorted(steps, 1000))
    dashes = dict(zip(dict.fromkeys(key[1:] for key in sums), ("-", ":", "--", "-."), strict=False))
    for (oracle, p, a), values in sums.items():
        color = VERMILLION if oracle == "largest bias" else BLUE
        runs = values["weighted"] / values["weighted"][:, [start]]
        power = np.median(theorem_2.growth_exponents(values))
        name = f"{ORACLE_NAMES.get(oracle, oracle)}, p = {p:g}, a = {a:g}"
        band(axes, steps[start:], runs[:, start:], color=color, ls=dashes[p, a], label=f"{name}: power {power:.2f}")
        told.append(f"{name}: {np.median(runs[:, -1]):.2f} times the value at step 1,000, power {power:.2f}")
    axes.set(
        xscale="log", xlim=(1000, steps[-1]), ylim=(0.95, None), xlabel="step k", ylabel="Σ / its value at step 1,000"
    )
    plain_ticks(axes.xaxis, (1000, 3000, 10_000, 30_000), ("1,000", "3,000", "10,000", "30,000"))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center")
    return f"At step {steps[-1]:,}: {'; '.join(told)}."


def draw_running_averages(figure: Figure, paths: Mapping[str, Any]) -> str:
    """Draw a moving mean, samples around it, and running averages with a large and a small weight.

    Arguments:
        figure: where to draw.
        paths: from ``experiments.convergence.nested_averages.running_averages``.

    Returns:
        a description of the figure.
    """
    told, steps = [], np.arange(len(paths["mean"]))
    panels = figure.subplots(1, len(paths["averages"]), sharey=True)
    for axes, (alpha, average) in zip(panels, paths["averages"].items(), strict=True):
        axes.plot(steps, paths["samples"], ".", ms=3, color=GREY, alpha=0.6, label="sample")
        axes.plot(steps, paths["mean"], color=GREEN, lw=1.5, ls=":", label="mean")
        axes.plot(steps, average, color=VERMILLION, lw=1.5, label="running average")
        axes.plot(steps, paths["expected"][alpha], color=BLUE, ls="--", lw=1.5, label="its expectation")
        axes.set(title=f"α = {alpha:g}", xlabel="step", ylabel="value")
        lag = np.abs(paths["expected"][alpha] - paths["mean"]).max()
        noise = np.std(average - paths["expected"][alpha])
        told.append(f"α = {alpha:g}: largest lag {lag:.2f}, noise {noise:.2f}")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return f"A running average of samples around a mean that moves: {'; '.join(told)}."
