"""Figures of chapter 5: paths of a parameter and bias by oracle, and trainings with Full Normalization."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bnlib.experiments.full_normalization import rivals_contest
from bnlib.experiments.full_normalization.oracle_names import ORACLE_NAMES
from bnlib.figures.curves import describe_errors, draw_loss_and_error
from bnlib.figures.methods import method_color
from bnlib.figures.picture import BLUE, GREEN, GREY, PURPLE, VERMILLION, band, plain_ticks

ORACLE_COLORS = {
    "batch": VERMILLION,
    "literal": PURPLE,
    "constant": GREY,
    "leave_one_out": BLUE,
    "running": GREEN,
    "same": VERMILLION,
    "independent": BLUE,
}
"""The colour of an oracle in chapters 5 and 12; ``"same"`` and ``"independent"`` are names of ``mcsgd``."""


_LIMITS = (-1.6, 1.6)


def draw_mcsgd_paths(figure: Figure, data, oracle: str, alpha: str, lr: float, optimum: float, biased: float) -> str:
    """Draw the paths of one parameter under Algorithm 2.

    Arguments:
        figure: where to draw.
        data: ``Paths`` of ``experiments.full_normalization.mcsgd_paths``.
        oracle, alpha, lr: of the runs.
        optimum: the best parameter.
        biased: the parameter where the mean gradient of the oracle "same" is 0.

    Returns:
        a description of the figure.
    """
    axes, (low, high) = figure.subplots(), _LIMITS
    middle, inside = np.median(data.values, 0), np.clip(data.values, 2 * low, 2 * high)
    axes.fill_between(data.steps, inside.min(0), inside.max(0), color=BLUE, alpha=0.25, linewidth=0)
    axes.plot(data.steps, np.clip(middle, 2 * low, 2 * high), color=BLUE, label=f"w, median of {len(inside)} runs")
    axes.axhline(optimum, color=VERMILLION, ls="--", lw=1.2, label="best w")
    axes.axhline(biased, color=GREY, ls=":", lw=1.2, label="zero of the biased gradient")
    axes.set(xlim=(0, data.steps[-1]), ylim=_LIMITS, xlabel="step k", ylabel="parameter w")
    axes.legend(loc="lower right", ncols=3, fontsize=8)
    late = np.median(middle[-len(middle) // 4 :])
    outside = int((np.abs(data.values[:, -1]) > high).sum())
    name = ORACLE_NAMES[oracle]
    text = f"Oracle {name}, α = {alpha}, learning rate {lr:g}: the median of w ends near {late:.2f}; the best is "
    return text + f"{optimum:.2f}. At the end {outside} of {len(inside)} runs lie outside the figure."


_ORACLE_MARKS = {"batch": "s--", "literal": "v:", "constant": "x:", "leave_one_out": "^-.", "running": "D-"}


def draw_oracle_bias(figure: Figure, cells: Mapping[tuple, Mapping]) -> str:
    """Draw the bias of each oracle's gradient against the batch size, one panel per depth; return a description.

    ``cells`` is the result of ``experiments.full_normalization.oracle_bias``, or that of some of the oracles.
    """
    told = []
    depths = sorted({depth for depth, _, _ in cells})
    marks = {oracle: mark for oracle, mark in _ORACLE_MARKS.items() if any(name == oracle for _, name, _ in cells)}
    for axes, depth in zip(figure.subplots(1, len(depths), sharey=True), depths, strict=True):
        for shift, (oracle, mark) in zip(np.linspace(-0.08, 0.08, len(marks)), marks.items(), strict=True):
            color = ORACLE_COLORS[oracle]
            sizes = [b for d, name, b in cells if (d, name) == (depth, oracle)]
            bias = np.array([cells[depth, oracle, b]["bias"] for b in sizes])
            middle = np.median(bias, 1)
            reach = np.abs(np.stack([bias.min(1), bias.max(1)]) - middle)
            style = {"fmt": mark, "color": color, "ms": 5, "lw": 1.2, "label": ORACLE_NAMES[oracle]}
            axes.errorbar(np.array(sizes) + shift, middle, reach, **style)
            told.append(f"{ORACLE_NAMES[oracle]}, {depth}: {', '.join(f'{value:.2g}' for value in middle)}")
        axes.set(xticks=[1, 2, 3], xlabel="batch size", ylim=(-0.1, 3.6))
        axes.set_title(f"{depth} normalised layer{'s' * (depth > 1)}")
    figure.axes[0].set_ylabel("bias / norm of the gradient")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return f"Median bias by oracle and number of layers, at batch sizes from 1 or 2 to 3: {'; '.join(told)}."


def draw_labels_per_batch(figure: Figure, data: dict[str, dict], labels: int, batch_size: int, lr: float) -> str:
    """Draw training loss and test error with few labels per batch; return a description.

    ``data`` is from ``experiments.full_normalization.labels_per_batch.lookup``.
    """
    left, right = draw_loss_and_error(figure, data)
    for axes in (left, right):
        axes.set_xlim(0, max(max(curve["epoch"]) for curve in data.values()))
    handles = {name: line for line, name in zip(*left.get_legend_handles_labels(), strict=True)}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3)
    number = "label" if labels == 1 else "labels"
    return (
        f"At most {labels} {number} in a batch, batch size {batch_size}, learning rate {lr:g}, at the end: "
        f"{describe_errors(data)}."
    )


def draw_errors_by_alpha(figure: Figure, data: dict[str, np.ndarray], alpha: str, construction: str, lr: float) -> str:
    """Draw test error against batch size; ``data`` has an array (batch sizes, seeds) for each norm.

    See ``lookup`` and ``train`` of ``experiments.full_normalization.oracles_on_digits``.
    """
    axes, told = figure.subplots(), []
    sizes = data["batch sizes"]
    for norm, (color, mark) in {"batch norm": (BLUE, "s-"), "Full Normalization": (GREEN, "D-.")}.items():
        errors = 100 * data[norm]
        middle = np.median(errors, 1)
        reach = np.abs(np.stack([errors.min(1), errors.max(1)]) - middle)
        axes.errorbar(sizes, middle, reach, fmt=mark, color=color, ms=6, lw=1.4, label=norm)
        told.append(f"{norm} {', '.join(f'{value:.1f}' for value in middle)}")
        mine = 100 * data.get(f"{norm}, your run", np.empty((0, 1)))[:, 0]
        if np.isfinite(mine).any():
            axes.plot(sizes, mine, mark[0], color=color, mfc="none", ms=11, label=f"{norm}, your run")
            told.append(f"{norm}, your run {', '.join('-' if np.isnan(value) else f'{value:.1f}' for value in mine)}")
    axes.set(xscale="log", yscale="log", ylim=(1, 120), xlabel="batch size", ylabel="test error (%)")
    plain_ticks(axes.xaxis, sizes)
    plain_ticks(axes.yaxis, (1, 3, 10, 30, 90))
    axes.legend(loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.18))
    return (
        f"Batches {construction}, α with {alpha}, learning rate {lr:g}: median test errors in percent at batch sizes "
        f"{', '.join(map(str, sizes))}: {'; '.join(told)}. Bars: range over three seeds."
    )


def draw_what_oracles_see(figure: Figure, layers: Mapping[str, Any]) -> str:
    """Draw the weight of each sample in the forward and in the backward pass as the area of a square.

    Arguments:
        figure: where to draw.
        layers: ``SampleWeights`` of ``experiments.full_normalization.what_oracles_see`` by ``"batch norm"`` or oracle.

    Returns:
        a description of the figure.
    """
    names = [ORACLE_NAMES.get(name, "BN") for name in layers]
    titles = {"forward": "forward: weights in the mean", "backward": "backward: weights in place of E[g]"}
    for axes, (way, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for row, (name, weights) in enumerate(layers.items()):
            _draw_weights(axes, row, getattr(weights, way), ORACLE_COLORS.get(name, BLUE))
        batches, size = getattr(next(iter(layers.values())), way).shape
        width = batches * (size + 1) - 1
        axes.set(xlim=(-0.7, width + 0.2), ylim=(len(names) - 0.3, -0.7), title=title, xlabel="batch")
        ticks = [number * (size + 1) + (size - 1) / 2 for number in range(batches)]
        axes.set_xticks(ticks, [*(f"k−{back}" for back in range(batches - 1, 0, -1)), "k"])
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    told = (
        f"{name}: this batch {weights.backward[-1].sum():.2f}, earlier ones {weights.backward[:-1].sum():.2f}"
        for name, weights in zip(names, layers.values(), strict=True)
    )
    return f"Total weight of the samples in place of E[g], for the first sample of batch k: {'; '.join(told)}."


def _draw_weights(axes: Axes, row: int, weights: np.ndarray, color: str) -> None:
    """Draw one row of squares, one per sample; the area is the weight, and 1/2 fills the cell."""
    for (batch, sample), weight in np.ndenumerate(weights):
        place, side = batch * (len(weights[0]) + 1) + sample, 0.9 * math.sqrt(2 * weight)
        axes.add_patch(Rectangle((place - 0.45, row - 0.45), 0.9, 0.9, fill=False, ec=GREY, lw=0.4))
        axes.add_patch(Rectangle((place - side / 2, row - side / 2), side, side, color=color, lw=0))


def draw_lag_and_noise(figure: Figure, data: Mapping[int, Mapping], alphas: Sequence[float]) -> str:
    """Draw the squared lag, the noise and their sum against alpha, one panel per batch size; return a description.

    ``data`` is from ``experiments.full_normalization.lag_and_noise.load``.
    """
    styles = {"lag": (BLUE, "--", "lag²"), "noise": (VERMILLION, ":", "noise²"), "sum": (GREY, "-", "sum")}
    told = []
    for axes, (size, values) in zip(figure.subplots(1, len(data), sharey=True), data.items(), strict=True):
        for key, (color, dash, label) in styles.items():
            kept = alphas if key != "lag" else alphas[:-1]  # at a weight of 1 there is no lag
            band(axes, kept, values[key][:, : len(kept)], color=color, ls=dash, label=label)
        middle = np.median(values["sum"], 0)
        best = int(middle.argmin())
        axes.plot(alphas[best], middle[best], "o", color=GREY, ms=7)
        axes.set(xscale="log", yscale="log", xlabel="weight α of the newest batch", ylabel="squared error / variance")
        axes.set_title(f"batch size {size}")
        plain_ticks(axes.xaxis, (0.003, 0.01, 0.03, 0.1, 0.3, 1))
        plain_ticks(axes.yaxis, (0.0001, 0.001, 0.01, 0.1, 1))
        told.append(f"batch size {size}: the sum is least, {middle[best]:.2g}, at α = {alphas[best]:g}")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return f"As α grows, lag falls and noise rises. {'; '.join(told)}."


_NETWORK_STYLES = {"convolutional": ("o", -0.15), "fully connected": ("s", 0.15)}


def draw_final_errors(figure: Figure, errors: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]) -> str:
    """Draw the test errors after training, one panel per data set and kind of batch and one row per normalisation.

    Arguments:
        figure: where to draw.
        errors: from ``experiments.full_normalization.lian_comparison.final_errors_by_batches``, in per cent; an even
            number of panels.

    Returns:
        a description of the figure.
    """
    shown = [name for name in _NETWORK_STYLES if any(name in of for arms in errors.values() for of in arms.values())]
    told = []
    panels = figure.subplots(len(errors) // 2, 2, sharex=True, sharey=True).flat
    for axes, (title, arms) in zip(panels, errors.items(), strict=True):
        for row, (arm, networks) in enumerate(arms.items()):
            for network, values in networks.items():
                mark, shift = _NETWORK_STYLES[network]
                color, median = _arm_color(arm), np.median(values)
                reach = [[median - values.min()], [values.max() - median]]
                style = {"fmt": mark, "mfc": color if mark == "o" else "none", "color": color, "ms": 5.5, "lw": 1.2}
                axes.errorbar(median, row + shift * (len(shown) > 1), xerr=reach, **style)
        axes.set(title=title, xscale="log", xlim=(0.22, 110), ylim=(len(arms) - 0.5, -0.5), xlabel="test error (%)")
        axes.set_yticks(range(len(arms)), list(arms), fontsize=9)
        axes.grid(axis="y", lw=0.4, color=GREY, alpha=0.4)
        plain_ticks(axes.xaxis, (0.3, 1, 3, 10, 30, 100))
        medians = (f"{arm} {_medians(networks)}" for arm, networks in arms.items() if networks)
        told.append(f"{title}: {', '.join(medians)}")
    if len(shown) > 1:
        for name, (mark, _) in _NETWORK_STYLES.items():
            style = {"color": GREY, "mfc": GREY if mark == "o" else "none", "ms": 5.5, "ls": "none"}
            figure.axes[0].plot([], [], mark, label=name, **style)
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return f"Median test errors in per cent, {' and '.join(shown)} network. {'; '.join(told)}."


def _arm_color(name: str) -> str:
    """Return the colour of BN or of an oracle of Full Normalization; the default is the oracle "running"."""
    oracle = name.removeprefix("FN, ")
    oracles = {ORACLE_NAMES[key]: color for key, color in ORACLE_COLORS.items()} | {"default": ORACLE_COLORS["running"]}
    return oracles.get(oracle, BLUE)


def _medians(networks: Mapping[str, np.ndarray]) -> str:
    return " and ".join(f"{np.median(values):.1f}" for values in networks.values())


_SHORT_NAMES = {
    "Full Norm": "FN",
    "batch norm": "BN",
    "Batch Renorm": "BRN",
    "Moving Average BN": "MABN",
    "Online Norm": "ON",
    "Cross-Iteration BN": "CBN",
    "layer norm": "LN",
    "group norm": "GN",
    "weight standardisation + GN": "WS",
    "FRN": "FRN",
    "without normalisation": "none",
}


def draw_errors_and_times(figure: Figure, data: Mapping[str, Mapping[str, rivals_contest.Point]]) -> str:
    """Draw test error against the time of a step, one panel per construction of the batches and one point per norm.

    A line through a point reaches from the best to the worst seed.

    Arguments:
        figure: where to draw.
        data: from ``experiments.full_normalization.rivals_contest.errors_and_times``.

    Returns:
        a description of the figure.
    """
    told = []
    for number, (construction, points) in enumerate(data.items(), 1):
        axes = figure.add_subplot(math.ceil(len(data) / 2), 2, number)
        front = _pareto_front(points)
        axes.step(*zip(*(points[norm][:2] for norm in front), strict=True), where="post", color=GREY, lw=1, ls=":")
        axes.set(xscale="log", yscale="log", xlim=(0.6, 5.5), ylim=(1.8, 110), title=construction)
        axes.set(xlabel="time of a step / batch norm's", ylabel="test error (%)")
        plain_ticks(axes.xaxis, (0.7, 1, 1.5, 2, 3, 4))
        plain_ticks(axes.yaxis, (3, 10, 30, 90))
        for norm, point in points.items():
            own = norm == "Full Norm"
            style = {"color": method_color(norm), "ms": 7 if own else 6, "zorder": 3 if own else 2, "lw": 1.2}
            reach = [[point.error - point.lowest], [point.highest - point.error]]
            axes.errorbar(point.time, point.error, yerr=reach, fmt="D" if own else "o", **style)
        for norm, (offset, side) in _label_places(points).items():
            style = {"textcoords": "offset points", "ha": side, "va": "center", "fontsize": 9}
            axes.annotate(_SHORT_NAMES[norm], points[norm][:2], offset, **style)
        values = ", ".join(
            f"{norm} {at.time:.2f} and {at.error:.1f} ({at.lowest:.1f}–{at.highest:.1f})" for norm, at in points.items()
        )
        told.append(f"{construction}: {values}; no other norm is faster and better than {', '.join(front)}")
    head = "Time of a step over that with batch norm, and mean test error in percent (best–worst seed)"
    return f"{head}. {'. '.join(told)}."


def _label_places(points: Mapping[str, rivals_contest.Point]) -> dict[str, tuple[tuple[float, float], str]]:
    """Return the offset in points and the side of each label, where it covers no point, line or other label."""
    scale = np.array([220 / math.log(5.5 / 0.6), 190 / math.log(110 / 1.8)])  # points of a panel, about
    at = {norm: np.log(point[:2]) * scale for norm, point in points.items()}
    boxes = [(*place - 4, *place + 4) for place in at.values()]
    for norm, point in points.items():
        low, high = (math.log(end) * scale[1] for end in point[2:])
        boxes.append((at[norm][0] - 1, low, at[norm][0] + 1, high))
    found = {}
    for norm, (x, y) in at.items():
        width, best = 6.0 * len(_SHORT_NAMES[norm]), None
        for dx, dy in ((6, 5), (6, -6), (-6, 5), (-6, -6), (6, 12), (-6, 12), (6, -13), (-6, -13)):
            left = x + dx if dx > 0 else x + dx - width
            box = (left, y + dy - 4, left + width, y + dy + 4)
            covered = sum(
                box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in boxes
            )
            if best is None or covered < best[0]:
                best = covered, box, ((dx, dy), "left" if dx > 0 else "right")
        boxes.append(best[1])
        found[norm] = best[2]
    return found


def _pareto_front(points: Mapping[str, rivals_contest.Point]) -> list[str]:
    """Return the norms that no other one beats in both time and error, from the fastest on."""
    front: list[str] = []
    for norm in sorted(points, key=lambda norm: points[norm]):
        if not front or points[norm].error < points[front[-1]].error:
            front.append(norm)
    return front
