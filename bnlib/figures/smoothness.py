"""Draw what smoothness bounds, the loss along the gradient, weights that grow, and the stable learning rates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnlib.figures.picture import BLUE, GREEN, GREY, PURPLE, VERMILLION, band, plain_ticks

_COLORS = {"without normalisation": VERMILLION, "batch norm": BLUE}
_MARKS = {"without normalisation": "o", "batch norm": "s"}
_WITH = {"without normalisation": "without normalisation", "batch norm": "with batch norm"}
_ARROW = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "lw": 1.6}
_POINTER = {"arrowstyle": "-", "color": GREY, "lw": 0.8, "shrinkB": 4}
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_DASHES = {"without normalisation": "--", "batch norm": "-"}


def draw_step(figure: Figure, data, frequency: float, step_size: float) -> str:
    """Draw a function, a gradient step on it and the parabola that bounds it from above."""
    axes = figure.subplots()
    axes.plot(data.w, data.f, color=BLUE, label="f")
    axes.plot(data.w, data.bound, color=GREY, ls="--", lw=1.2, label="parabola with curvature M")
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
        f"M = {data.smoothness:.3g}, so every step size below 2/M = {2 / data.smoothness:.2g} lowers f. At the step "
        f"size {step_size:g}, f {change} from {data.f_start:.2f} to {data.f_end:.2f}. The parabola {guarantee} a "
        f"decrease: after the step it is at {data.bound_end:.2f}."
    )


def draw_linear_prediction(figure: Figure, data: Mapping[str, object]) -> str:
    """Draw the loss along the gradient with its linear prediction and the bound of the descent lemma, by network.

    ``data`` has results of ``experiments.smoothness.loss_along_gradient`` by norm. Returns the figure's description.
    """
    described = []
    (panels,) = figure.subplots(1, len(data), sharey=True, squeeze=False)
    for axes, (norm, found) in zip(panels, data.items(), strict=True):
        color, start = _COLORS[norm], found.loss[0]
        axes.axhline(start, color=GREY, lw=0.6)
        axes.plot(found.distances, found.linear, color=GREY, ls=":", label="linear prediction")
        axes.plot(found.distances, found.bound, color=GREY, ls="--", label="parabola, the upper bound")
        axes.fill_between(found.distances, found.linear, found.bound, color=GREY, alpha=0.15, linewidth=0)
        axes.plot(found.distances, found.loss, color=color, label=f"loss {_WITH[norm]}")
        end = found.safe * found.gradient_norm
        axes.plot([end], [start], "o", color=color, ms=7)
        place = {"xytext": (-4, 8), "ha": "right"} if end > 1 else {"xytext": (22, -48), "arrowprops": _POINTER}
        axes.annotate(f"step size 2/M = {found.safe:.2f}", (end, start), textcoords="offset points", **place)
        axes.set(title=norm, xlim=(0, found.distances[-1]), ylim=(0, 4.5), xlabel="distance moved, η‖∇L‖")
        described.append(
            f"{norm}: the slope at the start is {found.gradient_norm:.2f} and M = {found.smoothness:.1f}; the loss "
            f"starts at {start:.2f} and is at {found.loss[-1]:.2f} at a distance of {found.distances[-1]:g}, and the "
            f"parabola is back at its start at {end:.2f}, after a step of size 2/M = {found.safe:.2f}"
        )
    figure.axes[0].set_ylabel("loss (nats)")
    pairs = [pair for axes in figure.axes for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    handles = {label: handle for handle, label in pairs}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
    return f"The loss against the distance moved, between its linear prediction and a parabola. {'; '.join(described)}."


def draw_growing_weights(figure: Figure, data) -> str:
    """Draw steps of gradient descent at right angles to the weights, and the effective learning rate.

    ``data`` comes from ``experiments.smoothness.growing_weights.descend``. Returns the description of the figure.
    """
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    turn = np.linspace(0, 2 * np.pi, 181)
    for length in (data.lengths[0], data.lengths[-1]):
        left.plot(length * np.cos(turn), length * np.sin(turn), color=GREY, ls=":", lw=1)
    for number, weight in enumerate(data.weights):
        left.annotate("", weight, (0, 0), arrowprops={**_ARROW, "color": BLUE})
        left.annotate(f"w{str(number).translate(_SUBSCRIPTS)}", weight * (1 + 0.17 / data.lengths[number]),
                      ha="center", va="center")  # fmt: skip
    for weight, gradient in zip(data.weights, data.gradients, strict=False):
        left.annotate("", weight - data.lr * gradient, weight, arrowprops={**_ARROW, "color": GREEN})
        left.plot(*_right_angle(weight, -gradient).T, color=GREY, lw=0.8)
    left.plot([], [], color=BLUE, label="weights w")
    left.plot([], [], color=GREEN, label="step −η∇L(w)")
    reach = 1.2 * data.lengths[-1]
    left.set(aspect="equal", xlim=(-0.35 * reach, reach), ylim=(-0.7 * reach, reach), xlabel="weight of input 1")
    left.set(ylabel="weight of input 2", xticks=(0, 1, 2), yticks=(-1, 0, 1, 2))
    steps = np.arange(len(data.weights))
    right.plot(steps, data.effective_lr, "o-", color=PURPLE)
    right.set(xlabel="step", ylabel="effective learning rate η/‖w‖²", ylim=(0, 1.1 * data.effective_lr[0]))
    right.set_xticks(steps)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return (
        f"The two weights of a unit before BN in {len(data.gradients)} steps of gradient descent at a learning "
        f"rate of {data.lr:g}. Each step is at a right angle to the weights. Their length grows from "
        f"{data.lengths[0]:.2f} to {data.lengths[-1]:.2f}, and the effective learning rate falls from "
        f"{data.effective_lr[0]:.2f} to {data.effective_lr[-1]:.2f}. The first step turns the weights by "
        f"{data.angles[0]:.0f} degrees and the last by {data.angles[-1]:.0f}."
    )


def _right_angle(corner: np.ndarray, along: np.ndarray, size: float = 0.13) -> np.ndarray:
    """Return three points of the mark of a right angle between the line from the origin to ``corner`` and ``along``."""
    back, ahead = -size * corner / np.linalg.norm(corner), size * along / np.linalg.norm(along)
    return corner + np.array([back, back + ahead, ahead])


def draw_three_samples(figure: Figure, wide, narrow) -> str:
    """Draw which part of a gradient BN sends back: what a straight line through it does not explain, rescaled.

    ``wide`` and ``narrow`` come from ``experiments.smoothness.three_samples.send_back`` at two spreads of the inputs.
    Returns the description of the figure.
    """
    left, right = figure.subplots(1, 2)
    left.plot(wide.normalised, wide.line, color=GREY, ls="--", label="best straight line")
    left.vlines(wide.normalised, wide.line, wide.gradient, color=GREEN, lw=3, label="residual")
    left.plot(wide.normalised, wide.gradient, "o", color=VERMILLION, ms=8, label="gradient at the output")
    left.set(xlabel="normalised value of the sample", ylabel="gradient", xlim=(-1.6, 1.6), ylim=(-1, 7.5))
    left.legend(loc="upper left", fontsize=8)
    samples = np.arange(1, 4)
    names = [f"at the input, x = ±{data.x[-1]:g}" for data in (wide, narrow)]
    bars = ((wide.gradient, VERMILLION, "at the output"), (wide.back, BLUE, names[0]), (narrow.back, PURPLE, names[1]))
    for place, (values, color, name) in enumerate(bars):
        right.bar(samples + 0.26 * (place - 1), values, 0.24, color=color, label=name)
    right.axhline(0, color=GREY, lw=0.8)
    right.set(xlabel="sample", ylabel="gradient", ylim=(-14, 17))
    right.set_xticks(samples)
    right.legend(loc="upper center", fontsize=8)
    residuals = ", ".join(f"{value:.1f}" for value in wide.gradient - wide.line)
    lengths = [np.linalg.norm(values) for values, _, _ in bars]
    return (
        f"A gradient of length {lengths[0]:.1f} at the outputs of BN. The best line leaves the residuals {residuals}. "
        f"The gradient at the inputs has length {lengths[1]:.1f} for inputs between -{wide.x[-1]:g} and {wide.x[-1]:g} "
        f"and {lengths[2]:.1f} for inputs between -{narrow.x[-1]:g} and {narrow.x[-1]:g}."
    )


def draw_landscape(figure: Figure, data: Mapping[str, Mapping], init: str, batch_size: int, lr: float) -> str:
    """Draw the loss and its range along the gradient, the range of the change of the gradient, and the effective M.

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
        left.plot(steps, np.median(values["loss"], 0), color=color, ls=dash, lw=1.2)
        _fill_between_medians(middle, steps, values["smallest_change"], values["largest_change"], color)
        band(right, steps, values["beta"], color=color, ls=dash, label=norm)
    left.set(title="loss (nats)", yscale="log", ylim=(0.01, 100), ylabel="range over step sizes")
    middle.set(title="change of the gradient", yscale="log", ylim=(0.01, 100))
    right.set(title="effective M", yscale="log", ylim=(0.1, 300))
    for axes in (left, middle, right):
        axes.set(xlim=(0, 190), xlabel="training step")
        plain_ticks(axes.yaxis, (0.1, 1, 10, 100))
    right.legend(loc="upper right", fontsize=8)
    medians = "; ".join(
        f"{norm}: loss {_last(values['loss'])}, highest loss along the gradient {_last(values['highest_loss'])}, "
        f"effective M {_last(values['beta'])}"
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
    """Draw the relative M of the weight matrices against the training loss, with one kind of mark for each series.

    Arguments:
        figure: where to draw.
        series: by name, the numbers of a setting of ``experiments.smoothness.landscape_over_training``; at most four.
    """
    axes = figure.subplots()
    for (name, values), mark in zip(series.items(), "osD^", strict=False):
        color = _COLORS["batch norm" if name.startswith("batch norm") else "without normalisation"]
        loss, relative = (np.median(values[kind], 0) for kind in ("loss", "relative_beta"))
        axes.plot(loss, relative, mark, ms=5, color=color, label=name, alpha=0.8, ls="none",
                  mfc="none" if "PyTorch default" in name else color)  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(4, 0.02), xlabel="training loss (nats)", ylabel="relative M")
    plain_ticks(axes.xaxis, (2, 0.5, 0.1, 0.03))
    plain_ticks(axes.yaxis, (10, 30, 100, 300, 1000, 3000))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    medians = "; ".join(f"{name}: {np.median(values['relative_beta']):.0f}" for name, values in series.items())
    return f"Relative M against training loss, one mark per probed step. Medians of the relative M: {medians}."


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


def draw_sharpness_and_rates(figure: Figure, rates: Mapping[tuple, tuple[np.ndarray, np.ndarray]]) -> str:
    """Draw the smallest unstable rate against 2 / sharpness before training, one panel per initialisation.

    A line joins the depths of one kind of network; the mark grows with the depth.

    Arguments:
        figure: where to draw.
        rates: from ``experiments.smoothness.initial_sharpness.expected_and_measured``.

    Returns:
        a description of the figure.
    """
    inits, norms, depths = (list(dict.fromkeys(values)) for values in zip(*rates, strict=True))
    described, limits = [], (0.015, 30)
    for axes, init in zip(figure.subplots(1, len(inits), sharex=True, sharey=True), inits, strict=True):
        axes.plot(limits, limits, color=GREY, ls="--", lw=1, label="a quadratic")
        for norm in norms:
            found = np.array([rates[init, norm, depth] for depth in depths])
            middle = np.median(found, 2)
            axes.plot(*middle.T, color=_COLORS[norm], ls=_DASHES[norm], lw=1)
            for place, values, depth in zip(middle, found, depths, strict=True):
                x_reach, y_reach = ([[m - v.min()], [v.max() - m]] for m, v in zip(place, values, strict=True))
                style = {"fmt": _MARKS[norm], "color": _COLORS[norm], "ms": 3 + depth, "lw": 1}
                axes.errorbar(*place[:, None], yerr=y_reach, xerr=x_reach, **style)
                ratio = np.median(values[1] / values[0])
                described.append(
                    f"{norm}, {init}, {depth} hidden layers: {place[0]:.2g} and {place[1]:.2g} ({ratio:.2g})"
                )
            axes.plot([], [], _MARKS[norm], color=_COLORS[norm], ms=6, label=norm)
        axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits, title=f"{init} initialisation")
        axes.set(xlabel="2 / sharpness before training", ylabel="smallest unstable learning rate")
        plain_ticks(axes.xaxis, (0.1, 1, 10))
        plain_ticks(axes.yaxis, (0.1, 1, 10))
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return f"2 / sharpness and the smallest unstable rate, medians, and their median ratio: {'; '.join(described)}."


_RATIOS = {  # name of the ratio: label, colour, mark and place above the row
    "real inputs": ("same outputs, γ = √v", BLUE, "s", 0.12),
    "γ = 1 and β = 0": ("γ = 1 and β = 0", PURPLE, "D", -0.12),
}


def draw_weight_gradients(figure: Figure, ratios: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """Draw the ratios of gradient norms and of sharpness, with BN over without, in each network.

    ``ratios`` comes from ``experiments.smoothness.weight_gradients.ratios``. Returns the description of the figure.
    """
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
    for row, values in enumerate(ratios.values()):
        for name, (label, color, mark, above) in _RATIOS.items():
            _draw_ratio(left, values[name], row - above, color, mark, label if row == 0 else None)
        _draw_ratio(right, values["sharpness"], row, BLUE, "s", None)
    names = [name.replace(", ", ",\n") for name in ratios]
    for axes, title in ((left, "norm of the gradient of the weights"), (right, "sharpness")):
        axes.axvline(1, color=GREY, lw=1)
        axes.set(xscale="log", xlabel="with BN / without", title=title, ylim=(len(ratios) - 0.5, -0.5))
        axes.set_yticks(range(len(ratios)), names, fontsize=9)
    left.set_xlim(0.2, 40)
    right.set_xlim(0.04, 2)
    plain_ticks(left.xaxis, (0.3, 1, 3, 10, 30))
    plain_ticks(right.xaxis, (0.1, 0.3, 1))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    told = "; ".join(
        f"{network}: "
        + ", ".join(f"{label} {np.median(found[name]):.2f}" for name, (label, *_) in _RATIOS.items())
        + f", sharpness {np.median(found['sharpness']):.2f}"
        for network, found in ratios.items()
    )
    return f"Ratios, with BN over without, medians. {told}."


def _draw_ratio(axes: Axes, values: np.ndarray, height: float, color: str, mark: str, label: str | None) -> None:
    median = np.median(values)
    errors = [[median - values.min()], [values.max() - median]]
    axes.errorbar(median, height, xerr=errors, fmt=mark, ms=6, color=color, lw=1.4, label=label)
