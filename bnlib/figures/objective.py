"""Draw functions of a batch, the BN objective, absorbed batch statistics, and errors in train mode and in eval mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from bnlib.figures.methods import method_color
from bnlib.figures.picture import BLUE, GREEN, GREY, PURPLE, VERMILLION, band, plain_ticks

_LEVELS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.9, 1.2, 1.6, 2.1, 2.7)


_TRAINED = {  # network and batches of the training: mark, dashes, inside of the mark, place of the numbers in points
    "batch norm, fixed batches": ("s", "-", None, -16),
    "batch norm, shuffled batches": ("s", ":", "none", 8),
    "without normalisation, fixed batches": ("o", "--", None, 8),
}


def draw_memorised_labels(figure: Figure, shares: Mapping[str, np.ndarray]) -> str:
    """Draw how many random labels each network predicts in its batches, in new ones, and in eval mode.

    ``shares`` comes from ``experiments.objective.objective_and_evaluation.random_labels_predicted``. Returns the
    description of the figure.
    """
    axes, told = figure.subplots(), []
    for (name, values), shift in zip(shares.items(), (-0.06, 0.06, 0), strict=True):
        mark, dash, inside, above = _TRAINED[name]
        color, places, middle = method_color(name), np.arange(3) + shift, np.median(values, 1)
        reach = np.abs(np.stack([values.min(1), values.max(1)]) - middle)
        axes.plot(places, middle, ls=dash, color=color, lw=1.4)
        axes.errorbar(places, middle, reach, fmt=mark, color=color, mfc=inside or color, ms=7, lw=1.4, label=name)
        for place in zip(places, middle, strict=True):
            axes.annotate(f"{place[1]:.0f}", place, (0, above), textcoords="offset points", ha="center", fontsize=9)
        told.append(f"{name}: {', '.join(f'{value:.0f}' for value in middle)} %")
    axes.axhline(10, color=GREY, ls=":", lw=1)
    axes.set(xlim=(-0.5, 2.5), ylim=(0, 105), ylabel="labels predicted (%)")
    axes.set_xticks(range(3), ("train mode,\nbatches as in\ntraining", "train mode,\nnew\nbatches", "eval mode"))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return (
        "Random labels that are predicted in train mode in the batches of the training, in train mode in new "
        f"batches, and in eval mode, medians: {'; '.join(told)}. Bars: range over five seeds. Guessing gives 10 %."
    )


_BATCH_STYLES = ((BLUE, "s", "-"), (PURPLE, "o", "--"))


def draw_layer_by_layer(figure: Figure, data: Mapping[str, list]) -> str:
    """Draw the function that each layer of a network with BN computes, for batches that share a sample.

    ``data`` comes from ``experiments.objective.layer_by_layer.lookup``. Returns the description of the figure.
    """
    titles = ("input z₀(x) = x", "z₁, after layer 1", "z₂, after layer 2")
    panels = figure.subplots(1, len(titles))
    described = []
    for (name, outputs), (color, mark, dash) in zip(data.items(), _BATCH_STYLES, strict=True):
        for axes, found in zip(panels, outputs, strict=True):
            axes.plot(found.inputs, found.values, color=color, ls=dash, lw=1.4)
            axes.axhline(found.mean, color=color, ls=":", lw=1)
            axes.plot(found.batch, found.on_batch, mark, color=color, ms=5, label=name)
            axes.plot([found.shared], [found.on_shared], mark, color=color, ms=11, mfc="none")
        values = ", ".join(f"{found.on_shared:.2f}" for found in outputs)
        described.append(f"{name}: {values}")
    panels[0].plot([], [], "o", color=GREY, ms=11, mfc="none", label=f"sample x = {found.shared:g}, in both batches")
    panels[0].plot([], [], ":", color=GREY, lw=1, label="mean over the batch")
    for axes, title in zip(panels, titles, strict=True):
        axes.set(title=title, xlabel="x", xlim=(found.inputs[0], found.inputs[-1]), xticks=(-2, 0, 2, 4))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return (
        "The input and the outputs of two layers with BN as functions of x, for two batches of four samples. Values at "
        f"the sample x = {found.shared:g}, which is in both batches: {'; '.join(described)}."
    )


def draw_two_averages(figure: Figure, data) -> str:
    """Draw the functions of all batches and their losses, and those with the statistics of all data.

    ``data`` comes from ``experiments.objective.four_samples.averages``. Returns the description of the figure.
    """
    left, right = figure.subplots(1, 2)
    for function, loss in zip(data.functions, data.losses, strict=True):
        left.plot(data.inputs, function, color=GREY, lw=0.9)
        right.plot(data.weights, loss, color=GREY, lw=0.9)
    left.plot([], [], color=GREY, lw=0.9, label="one batch of two")
    left.plot([], [], color=BLUE, label="BN objective: mean of the six losses")
    left.plot(data.inputs, data.function_of_all, color=VERMILLION, ls="--", label="full batch: statistics of all data")
    left.plot(*data.samples, "o", color=PURPLE, ms=6, label="samples")
    best = []
    for values, color, dash in ((data.objective, BLUE, "-"), (data.objective_of_all, VERMILLION, "--")):
        right.plot(data.weights, values, color=color, ls=dash)
        square, slope, constant = np.polyfit(data.weights, values, 2)  # each is a parabola
        at = -slope / (2 * square)
        right.plot(at, constant - square * at**2, "o", color=color, ms=6)
        best.append(f"{at:.3f}")
    left.set(xlabel="input x", ylabel="output", ylim=(-1, 4.5), title="functions at w = 0.5")
    right.set(xlabel="weight w", ylabel="squared error", ylim=(0, 3), title="losses")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return (
        f"Left: the {len(data.functions)} functions of one network, one for each batch of two of four samples, and the "
        "function with the statistics of all data. Right: the loss of each batch against the weight; "
        f"their mean, the BN objective, is lowest at w = {best[0]}, and the full-batch objective at w = {best[1]}."
    )


def draw_normalised_signal(figure: Figure, numbers: np.ndarray, train: np.ndarray, evaluation: np.ndarray) -> str:
    """Draw what BN makes of a number that is added to one of 20 values, in train mode and in eval mode.

    ``train`` (batches, numbers) and ``evaluation`` (numbers,) come from
    ``experiments.objective.errors_by_input_scale.normalised_signal``. Returns the description of the figure.
    """
    axes = figure.subplots()
    axes.plot(numbers, evaluation, color=GREEN, ls="--", label="eval mode")
    band(axes, numbers, train, color=BLUE, label="train mode, batch of 20")
    bound = np.sqrt(19)
    axes.axhline(bound, color=GREY, ls=":", lw=1, label="largest possible value, √19")
    axes.set(xlim=(0, 50), ylim=(-2, 38), xlabel="number added to the input of the class", ylabel="normalised value x̂")
    axes.legend()
    at = {number: np.median(train[:, list(numbers).index(number)]) for number in (10, 50)}
    return (
        f"In eval mode the normalised value grows in proportion to the number, up to {evaluation[-1]:.0f} at 50. In "
        f"train mode it is {at[10]:.1f} at a number of 10 and {at[50]:.1f} at 50, and never above the square root of "
        f"19, {bound:.2f}."
    )


def draw_objective_surface(figure: Figure, data, construction: str, batch_size: int, lr: float) -> str:
    """Draw contours of the BN objective, its minimum, a path of SGD and three losses.

    ``data`` comes from ``experiments.objective.two_weights.lookup``. Returns the description of the figure.
    """
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
    surface, (best_weights, lowest_loss) = data.surface, data.full_batch_minimum
    flat = surface.minimiser is None
    if not flat:
        left.contour(surface.axis, surface.axis, surface.values, _LEVELS, colors=[GREY], linewidths=0.7)
    left.plot(*data.path.T, color=GREEN, lw=0.9)
    left.plot(*data.path[0], "o", color=GREEN, ms=5)
    left.plot(*best_weights, "*", color=VERMILLION, ms=12, label="full-batch minimum")
    left.plot(
        *((np.nan, np.nan) if flat else surface.minimiser), "o", color=BLUE, ms=8, label="minimum of BN objective"
    )
    left.plot([], [], color=GREEN, lw=0.9, marker="o", ms=5, label="SGD from its initial weights")
    limits = surface.axis[0], surface.axis[-1]
    left.set(xlim=limits, ylim=limits, aspect="equal", xlabel="weight of input 1", ylabel="weight of input 2")
    values = (surface.minimum, surface.full_batch_loss, lowest_loss)
    rows = ("BN objective,\nminimum", "full batch,\nsame weights", "full batch,\nminimum")
    right.barh(rows, values, color=[BLUE, PURPLE, VERMILLION], height=0.55)
    for row, value in enumerate(values):
        right.text(max(value, np.log(2)) + 0.03, row, f"{value:.3f}", va="center", fontsize=9)
    right.axvline(np.log(2), color=GREY, ls=":", lw=1)
    right.set(xlim=(0, 1.6), xlabel="loss (nats)")
    right.invert_yaxis()
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    minimum = (
        f"is the same for all weights; SGD stays at ({data.path[0, 0]:.2f}, {data.path[0, 1]:.2f})"
        if flat
        else f"has its minimum at ({_signed(surface.minimiser[0])}, {_signed(surface.minimiser[1])})"
    )
    return (
        f"Batches: {construction}, {_samples(batch_size)} each, {len(surface.batches)} different ones. The BN "
        f"objective {minimum}: {surface.minimum:.3f}. With the statistics of all samples, the loss at these weights is "
        f"{surface.full_batch_loss:.3f}; the lowest is {lowest_loss:.3f}, at ({best_weights[0]:.2f}, "
        f"{best_weights[1]:.2f}). After {len(data.path) - 1} steps at learning rate {lr:g} SGD is at "
        f"({_signed(data.path[-1, 0])}, {_signed(data.path[-1, 1])})."
    )


CONSTRUCTION_STYLES = {
    "all subsets": (BLUE, "o"),
    "one worker": (GREEN, "D"),
    "one label": (GREY, "^"),
    "fixed": (PURPLE, "s"),
}
"""Colour and mark of each way to put twelve samples into batches."""


def draw_minima(
    figure: Figure, surfaces: Mapping[tuple[str, int], Any], minimum: tuple[np.ndarray, float], batch_size: int
) -> str:
    """Draw where the BN objective has its minimum for each set of batches, and two losses at this minimum.

    Arguments:
        figure: where to draw.
        surfaces: from ``experiments.objective.two_weights.surfaces``.
        minimum: weights and loss at the minimum of the full-batch objective.
        batch_size: which surfaces to draw.

    Returns:
        a description of the figure.
    """
    left, right = figure.subplots(1, 2)
    left.plot(*minimum[0], "*", color=VERMILLION, ms=12)
    left.annotate("all data", minimum[0], xytext=(8, -3), textcoords="offset points", color=VERMILLION)
    right.axhline(minimum[1], color=VERMILLION, lw=1)
    right.axhline(np.log(2), color=GREY, ls=":", lw=1)
    told = []
    for place, (name, (color, mark)) in enumerate(CONSTRUCTION_STYLES.items()):
        found = surfaces[name, batch_size]
        weights, losses = found.minimiser, (found.minimum, found.full_batch_loss)
        left.plot(*weights, mark, color=color, ms=8)
        left.annotate(name, weights, xytext=(8, -3), textcoords="offset points", color=color)
        right.vlines(place, *losses, color=color, lw=1)
        for loss, inside in zip(losses, (color, "none"), strict=True):
            right.plot(place, loss, mark, color=color, mfc=inside, ms=8)
        first, second = map(_signed, weights)
        told.append(f"{name}: ({first}, {second}), losses {losses[0]:.2f} and {losses[1]:.2f}")
    left.set(xlabel="weight of input 1", ylabel="weight of input 2", title="minimum of BN objective")
    left.set(xlim=(-0.4, 2.8), ylim=(-0.5, 2.3))
    right.set(ylabel="loss (nats)", xlim=(-0.5, place + 0.5), ylim=(0.3, 0.8), title="losses at this minimum")
    right.set_xticks(range(len(CONSTRUCTION_STYLES)), [name.replace(" ", "\n") for name in CONSTRUCTION_STYLES])
    best = f"all data: ({minimum[0][0]:.2f}, {minimum[0][1]:.2f}), loss {minimum[1]:.2f}"
    return (
        f"Weights at the minimum of the BN objective at batch size {batch_size}, and the BN and full-batch objectives "
        f"there. {'; '.join([best, *told])}."
    )


def _samples(count: int) -> str:
    return "1 sample" if count == 1 else f"{count} samples"


def _signed(value: float) -> str:
    return f"{value + 0.0:.2f}".replace("-0.00", "0.00")


def draw_absorption(figure: Figure, data, weight: float, statistics: str) -> str:
    """Draw the outputs of a network with BN and of the plain network that absorbed its statistics, and all parameters.

    ``data`` comes from ``experiments.objective.absorption.lookup``. Returns the description of the figure.
    """
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    for name, outputs in data.bn_outputs.items():
        chosen = name == statistics
        left.plot(data.inputs, outputs, color=BLUE if chosen else GREY, lw=2 if chosen else 0.9,
                  label="BN, chosen statistics" if chosen else None, zorder=2 if chosen else 1)  # fmt: skip
    left.plot([], [], color=GREY, lw=0.9, label="BN, other statistics")
    circles = {"color": VERMILLION, "mfc": "none"}
    left.plot(data.inputs[::4], data.plain_outputs[::4], "o", ms=5, label="plain network, W′", zorder=3, **circles)
    left.plot(data.data, np.full(len(data.data), -2.9), "|", color=GREY, ms=8)
    left.set(xlim=(-3, 4), ylim=(-3, 0.5), xlabel="input x (ticks: the data)", ylabel="output of the network")
    positions = np.arange(len(data.bn_parameters))
    right.axhline(0, color=GREY, lw=0.6)
    right.vlines(positions, data.bn_parameters, data.plain_parameters, color=GREY, lw=1)
    right.plot(positions, data.bn_parameters, "s", color=BLUE, ms=5, label="W of BN network")
    right.plot(positions, data.plain_parameters, "o", ms=6, label="W′ of plain network", **circles)
    names = ("w₁₁", "w₁₂", "b₁", "b₂", "w₂₁", "w₂₂", "b")
    right.set(xticks=positions, xticklabels=names, ylim=(-6.5, 6.5), ylabel="value")
    handles = [*left.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    figure.legend(handles, [each.get_label() for each in handles], loc="outside lower center", ncols=3)
    others = [name for name in data.bn_outputs if name != statistics]
    worst = max(others, key=data.largest_difference)
    return (
        f"Weight w₁₁ = {weight:g}, statistics of {statistics}: in the range drawn the two networks differ by at most "
        f"{_bound(data.largest_difference(statistics))}. With the statistics of {worst} the network with BN differs "
        f"from the plain one by up to {data.largest_difference(worst):.2f}."
    )


def _bound(value: float) -> str:
    """Write rounding errors as one bound, so that the text is the same on every machine."""
    return "10⁻¹²" if value < 1e-12 else f"{value:.2g}"


_EVALUATIONS = {
    "objective": "train\nmode,\nas in\ntraining",
    "reshuffled": "train\nmode,\nnew\nbatches",
    "evaluation": "eval\nmode,\ntraining\nset",
    "test": "eval\nmode,\ntest\nset",
}


def draw_objective_and_evaluation(
    figure: Figure, data: Mapping[str, Mapping], labels: str, construction: str, batch_size: int
) -> str:
    """Draw losses and errors of trained networks, measured in four ways.

    ``data`` comes from ``lookup`` or ``train`` of ``experiments.objective.objective_and_evaluation``. Returns the
    figure's description.
    """
    described = []
    for axes, column in zip(figure.subplots(1, 2), (0, 1), strict=True):
        for shift, (norm, color, mark) in zip(
            (-0.12, 0.12), (("without normalisation", VERMILLION, "o"), ("batch norm", BLUE, "s")), strict=True
        ):
            values = np.array([data[norm][name][:, column] for name in _EVALUATIONS]) * (100 if column else 1)
            positions = np.arange(len(_EVALUATIONS)) + shift
            axes.plot(positions, np.median(values, 1), mark, color=color, ms=7, label=norm)
            axes.vlines(positions, values.min(1), values.max(1), color=color, lw=1.5)
            if mine := data.get(f"{norm}, your run"):
                own = np.array([mine[name][0, column] for name in _EVALUATIONS]) * (100 if column else 1)
                axes.plot(positions, own, mark, color=color, mfc="none", ms=11, label=f"{norm}, your run")
                if column:
                    described.append(f"{norm}, your run {', '.join(f'{value:.1f}' for value in own)} %")
            if column:
                errors = ", ".join(f"{value:.1f}" for value in np.median(values, 1))
                described.append(f"{norm} {errors} %")
        axes.set_xticks(range(len(_EVALUATIONS)), _EVALUATIONS.values(), fontsize=8)
        axes.set(xlim=(-0.5, 3.5))
        axes.axvline(1.5, color=GREY, ls=":", lw=1)
    left, right = figure.axes
    left.set(yscale="log", ylim=(1e-4, 20), ylabel="loss (nats)")
    plain_ticks(left.yaxis, (0.001, 0.01, 0.1, 1, 10))
    right.set(ylim=(-3, 103), ylabel="error (%)")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return (
        f"Labels {labels}, batches {construction}, {_samples(batch_size)} each: median errors in batches as in "
        f"training, in new batches, in eval mode and on the test set: {'; '.join(described)}. "
        "Bars: range over five seeds."
    )


def draw_errors_by_batch_size(figure: Figure, cells: Mapping[tuple, Mapping]) -> str:
    """Draw test errors after ten epochs against batch size.

    ``cells`` are those of ``experiments.objective.lian_figure_2``. Returns the description of the figure.
    """
    rates = list(dict.fromkeys(lr for _, _, lr in cells))
    styles = {"BN": (BLUE, "s-"), "FN, default": (GREEN, "D-."), "without normalisation": (VERMILLION, "o--")}
    described = []
    for axes, lr in zip(figure.subplots(1, len(rates), sharey=True), rates, strict=True):
        for norm, (color, mark) in styles.items():
            label = "Full Normalization" if norm == "FN, default" else norm
            sizes = sorted(size for kind, size, rate in cells if kind == norm and rate == lr)
            errors = 100 * np.array([[run[-1] for run in cells[norm, size, lr]["test_error"]] for size in sizes])
            medians = np.median(errors, 1)
            ranges = np.abs(np.stack([errors.min(1), errors.max(1)]) - medians)
            axes.errorbar(sizes, medians, ranges, fmt=mark, color=color, ms=5, lw=1.2, label=label)
            described.append(f"{label} at {lr:g}: {', '.join(f'{value:.1f}' for value in medians)}")
        axes.set(xscale="log", yscale="log", ylim=(0.5, 100), title=f"learning rate {lr:g}", xlabel="batch size")
        plain_ticks(axes.xaxis, sizes)
        plain_ticks(axes.yaxis, (1, 3, 10, 30, 100))
    figure.axes[0].set_ylabel("test error (%)")
    figure.axes[1].yaxis.set_minor_locator(FixedLocator([]))
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return f"Median test error in per cent at batch sizes {', '.join(map(str, sizes))}: " + "; ".join(described) + "."
