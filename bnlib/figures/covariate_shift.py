"""Figures of chapter 2: how distributions shift during training, noisy BN, and how gradients change direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bnlib.experiments.covariate_shift.activation_shift import IMAGES
from bnlib.experiments.framework.results import as_array
from bnlib.figures.picture import BLUE, GREEN, GREY, PURPLE, VERMILLION, band, plain_ticks

_COLORS = {"without normalisation": VERMILLION, "batch norm": BLUE, "noisy BN": GREEN}
_MARKS = {"without normalisation": "o", "batch norm": "s", "noisy BN": "D"}
_LINES = {
    "batch norm": (BLUE, "-"),
    "noisy BN": (GREEN, "-"),
    "without normalisation": (VERMILLION, "--"),
    "noise without BN": (GREY, ":"),
}


def draw_moving_activations(figure: Figure, data: Mapping, layer: int, lr: float) -> str:
    """Draw quantiles of one unit's input over the training steps, one panel per network; see ``activation_shift``."""
    panels = figure.subplots(1, len(data), sharey=True)
    for axes, (network, history) in zip(panels, data.items(), strict=True):
        lowest, low, middle, high, highest = history.quantiles(layer)
        color = _COLORS[network]
        axes.fill_between(history.steps, lowest, highest, color=color, alpha=0.22, linewidth=0)
        axes.fill_between(history.steps, low, high, color=color, alpha=0.35, linewidth=0)
        axes.plot(history.steps, middle, color=color, lw=1.4)
        axes.set(title=network, xlim=(0, 100), ylim=(-5, 5), xlabel="step")
    panels[0].set_ylabel("input of one activation function")
    shifts = ", ".join(f"{network} {_shift_text(history.mean_shift(layer))}" for network, history in data.items())
    return (
        f"Layer {layer}, learning rate {lr:g}: median (line) and the middle 40 % and 80 % (bands) of the values of one "
        f"unit over {IMAGES} images. Shift of the mean from the first step to the last, in standard deviations, median "
        f"over all 100 units: {shifts}."
    )


def _shift_text(value: float) -> str:
    return f"{value:.2g}" if np.isfinite(value) else "diverged"


def draw_noise_in_one_channel(figure: Figure, data: Mapping[str, np.ndarray]) -> str:
    """Draw the values of one channel in several steps, one panel per norm; see ``noisy_batch_norm.one_channel``."""
    panels = figure.subplots(1, len(data), sharex=True, sharey=True)
    for axes, (norm, outputs) in zip(panels, data.items(), strict=True):
        steps = np.arange(1, 1 + len(outputs))
        x, y = np.broadcast_arrays(outputs[..., None], steps[:, None, None] + np.array([-0.2, 0.2, np.nan]))
        axes.plot(x.ravel(), y.ravel(), color=_COLORS[norm], lw=1, label="one image")
        means, deviations = outputs.mean(1), outputs.std(1)
        axes.errorbar(means, steps, xerr=deviations, fmt="o", color=GREY, ms=6, lw=2, label="mean ± standard deviation")
        axes.axvline(0, color=GREY, lw=0.8, ls=":")
        axes.set(title=norm, xlim=(-3.6, 3.6), ylim=(len(outputs) + 0.6, 0.4), yticks=steps, ylabel="step")
        axes.set_xlabel("output of one channel")
    return (
        "The same images in the same channel over six steps. "
        + "; ".join(
            f"{norm}: means from {outputs.mean(1).min():.2f} to {outputs.mean(1).max():.2f}, standard deviations from "
            f"{outputs.std(1).min():.2f} to {outputs.std(1).max():.2f}"
            for norm, outputs in data.items()
        )
        + "."
    )


def draw_inputs_around_a_step(figure: Figure, data: Mapping[str, np.ndarray]) -> str:
    """Draw histograms of a unit's input before and after a step, a panel per network, and an arrow between the means.

    ``data`` holds what ``activation_shift.values_around_a_step`` returns for each network.
    """
    panels = np.atleast_1d(figure.subplots(1, len(data), sharey=True))
    described = []
    for axes, (network, values) in zip(panels, data.items(), strict=True):
        bins = np.linspace(values.min(), values.max(), 26)
        for each, color, label in zip(
            values, (GREY, PURPLE), ("inputs before the step", "inputs after the step"), strict=True
        ):
            axes.hist(each, bins, histtype="stepfilled", color=color, alpha=0.35)
            axes.hist(each, bins, histtype="step", color=color, lw=1.6)
            axes.plot([each.mean()] * 2, [0, 47], color=color, lw=2, label=label)
        (before, after), deviation = values.mean(1), np.sqrt(values.var(1).mean())
        arrow = {"arrowstyle": "-|>", "color": PURPLE, "lw": 1.8, "shrinkA": 0, "shrinkB": 0}
        shift = abs(after - before) / deviation
        if shift > 0.05:
            axes.annotate("", (after, 44), (before, 44), arrowprops=arrow)
        axes.set(title=f"{network}\nshift {shift:.2f}", ylim=(0, 50), xlabel="input of one unit", ylabel="images")
        described.append(f"{network}: the mean moves by {shift:.2g} standard deviations")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return "The input of one unit of the last hidden layer before and after one step. " + "; ".join(described) + "."


def draw_mean_shifts(figure: Figure, data: Mapping[str, Mapping[str, np.ndarray]], layers: Sequence[int]) -> str:
    """Draw how far the mean of a unit moves against the layer, a panel per number of steps.

    ``data`` comes from ``experiments.covariate_shift.activation_shift.mean_shifts_by_network``.
    """
    durations, described = list(next(iter(data.values()))), []
    for axes, steps in zip(figure.subplots(1, len(durations), sharey=True), durations, strict=True):
        for network, shifts in data.items():
            color, dash = _LINES[network]
            mark = _MARKS[network]
            band(axes, layers, shifts[steps], color=color, ls=dash, marker=mark, ms=5, lw=1.4, label=network)
            first, last = np.median(shifts[steps], 0)[[0, -1]]
            described.append(f"{network}, {steps}: {first:.2g} and {last:.2g}")
        axes.set(title=steps, yscale="log", ylim=(4e-4, 3), xlabel="hidden layer", xticks=layers)
        plain_ticks(axes.yaxis, (0.001, 0.01, 0.1, 1))
    figure.axes[0].set_ylabel("shift (standard deviations)")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return f"Shift of the mean in hidden layers {layers[0]} and {layers[-1]}, medians: {'; '.join(described)}."


def draw_two_gradients(figure: Figure, data) -> str:
    """Draw the loss over the two weights of a layer before and after the step of the layer below, and the gradients.

    ``data`` is what ``experiments.covariate_shift.two_gradients.measure`` returns.
    """
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    levels = np.linspace(data.losses.min(), data.losses.max(), 14)
    ends = data.weights - 4 * data.gradients
    for axes, losses, title in zip(
        panels, data.losses, ("before layer 1 steps", "after layer 1 has stepped"), strict=True
    ):
        axes.contour(*data.grid, losses, levels, colors=GREY, linewidths=0.8, alpha=0.7)
        axes.plot(*data.weights, "o", color=GREY, ms=7)
        axes.set(title=title, xlabel="first weight of layer 2", ylabel="second weight of layer 2")
        axes.set_box_aspect(1)
    for axes, end, color, name, style in (
        (panels[0], ends[0], GREY, "−G: where layer 2 steps", "-"),
        (panels[1], ends[0], GREY, "", "--"),
        (panels[1], ends[1], PURPLE, "−G′: where it would step now", "-"),
    ):
        arrow = {"arrowstyle": "-|>", "color": color, "lw": 2.2, "ls": style, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", end, data.weights, arrowprops={**arrow, "mutation_scale": 16})
        axes.plot([], [], color=color, label=name or None)
    handles = [line for axes in panels for line in axes.lines if not line.get_label().startswith("_")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    norms = np.linalg.norm(data.gradients, axis=1)
    return (
        f"The loss over the two weights of layer 2, before and after layer 1 has stepped. The gradient turns: the "
        f"cosine of old and new is {float(data.shift.cosine):.2f}, and its length changes from {norms[0]:.2f} to "
        f"{norms[1]:.2f}. The relative shift is {float(data.shift.relative_ics):.2f}."
    )


def draw_noisy_batch_norm(
    figure: Figure, data: Mapping[str, Mapping[str, dict]], lr: float, shift: float, scale: float
) -> str:
    """Draw training loss with noise and without, one panel per initialisation; see ``noisy_batch_norm``."""
    panels = figure.subplots(1, len(data), sharey=True)
    for axes, (init, rows) in zip(panels, data.items(), strict=True):
        for name, row in rows.items():
            norm, live, _ = name.partition(", your run")
            color, dash = _LINES[norm]
            line = {"ls": ":", "lw": 1, "marker": "o", "ms": 3} if live else {"ls": dash, "label": norm}
            line.setdefault("label", None)
            band(axes, row["epoch"], as_array(row["train_loss"]), color=color, **line)
        axes.set(title=f"{init} initialisation", xlim=(0, 20), ylim=(3e-3, 5), yscale="log", xlabel="epoch")
        plain_ticks(axes.yaxis, (0.01, 0.1, 1))
    panels[0].set_ylabel("training loss (nats)")
    panels[0].legend(loc="lower left", fontsize=8)
    losses = "; ".join(
        f"{init} initialisation: "
        + ", ".join(f"{name.replace(', your', ' your')} {_final_loss_text(row)}" for name, row in rows.items())
        for init, rows in data.items()
    )
    strength = f"Learning rate {lr:g}, shifts up to {shift:g}, factors up to {scale:g}."
    return f"{strength} Median training loss after 20 epochs: {losses}."


def _final_loss_text(row: dict) -> str:
    last = np.median(np.nan_to_num(np.array([run[-1] for run in row["train_loss"]], dtype=float), nan=np.inf))
    return f"{last:.2g}" if np.isfinite(last) else "diverged"


def draw_gradient_shift(figure: Figure, data: Mapping[str, Mapping], init: str, batch_size: int, lr: float) -> str:
    """Draw cosine, relative shift and relative step of each layer, one panel each; see ``gradient_shift``."""
    left, middle, right = figure.subplots(1, 3)
    for position, (norm, values) in enumerate(data.items()):
        for axes, name in ((left, "cosine"), (middle, "relative_ics"), (right, "step_ratio")):
            _draw_layers(axes, values[name], position, _COLORS[norm], norm)
    left.set(title="cosine of G and G′", ylim=(-0.1, 1.05))
    middle.set(title="relative shift, ‖G − G′‖ / ‖G‖", ylim=(0, 1.45))
    right.set(title="relative step, ‖ΔW‖ / ‖W‖", yscale="log", ylim=(1e-4, 1))
    plain_ticks(right.yaxis, (1e-3, 1e-2, 1e-1, 1))
    for axes in (left, middle, right):
        axes.set(xlim=(1.5, 4.5), xticks=(2, 3, 4), xlabel="layer")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    medians = "; ".join(
        f"{norm}: cosine {_median_text(values['cosine'])}, relative shift {_median_text(values['relative_ics'])}, "
        f"final loss {_median_text(values['loss'][:, -1])}"
        for norm, values in data.items()
    )
    return (
        f"{init} initialisation, batch size {batch_size}, learning rate {lr:g}, medians over layers and seeds. "
        f"{medians}."
    )


def _median_text(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    return f"{np.median(finite):.2f}" if len(finite) > values.size / 2 else "undefined, because most runs diverged"


def _draw_layers(axes: Axes, values: np.ndarray, position: int, color: str, label: str) -> None:
    """Draw median and range over seeds for each layer from the second on, of values (seeds, layers)."""
    x = np.arange(2, 2 + values.shape[1]) + (position - 0.5) * 0.24
    values = values[np.isfinite(values).all(1)]
    if len(values) == 0:
        axes.plot([], "os"[position], color=color, label=f"{label}: diverged")
        return
    median = np.median(values, 0)
    errors = np.abs(np.array([values.min(0), values.max(0)]) - median)
    axes.errorbar(x, median, errors, fmt="os"[position], ms=5, color=color, lw=1.4, label=label)


def draw_deep_linear(figure: Figure, cells: Mapping[str, Mapping]) -> str:
    """Draw cosine by layer and loss by step of deep linear networks; see ``deep_linear_network``."""
    left, right = figure.subplots(1, 2)
    for (norm, values), dash in zip(cells.items(), ("--", "-"), strict=True):
        layers = np.arange(2, 2 + values["cosine"].shape[1])
        band(left, layers, values["cosine"], color=_COLORS[norm], ls=dash, label=norm)
        steps = np.linspace(0, 300, values["loss"].shape[1])
        band(right, steps, values["loss"], color=_COLORS[norm], ls=dash, label=norm)
    left.axhline(0, color=GREY, lw=0.8)
    left.set(xlim=(2, 25), ylim=(-1, 1.05), xlabel="layer", ylabel="cosine of G and G′")
    right.set(xlim=(0, 300), yscale="log", xlabel="step", ylabel="loss (squared error)")
    plain_ticks(right.yaxis, (10, 100))
    right.legend()
    return (
        "; ".join(
            f"{norm}: cosine {np.median(values['cosine'][:, -1]):.2f} at the last layer, loss "
            f"{np.median(values['loss'][:, 0]):.0f} at step 0 and {np.median(values['loss'][:, -1]):.0f} at step 300"
            for norm, values in cells.items()
        )
        + " (medians over five seeds)."
    )


def draw_step_and_shift(figure: Figure, cells: Mapping[tuple, Mapping]) -> str:
    """Draw the relative shift against the relative step, one panel per initialisation; see ``gradient_shift``.

    A line joins the learning rates of one batch size; the mark grows with the batch size.
    """
    lines = {}
    for (_, init, norm, batch_size, _), row in cells.items():
        point = tuple(np.median(np.median(row[name], 1)) for name in ("step_ratio", "relative_ics"))
        if np.isfinite(point).all():
            lines.setdefault((init, norm, batch_size), []).append(point)
    inits, described = list(dict.fromkeys(init for init, *_ in lines)), []
    panels = dict(zip(inits, np.atleast_1d(figure.subplots(1, len(inits), sharex=True, sharey=True)), strict=True))
    for (init, norm, batch_size), points in lines.items():
        steps, shifts = 1000 * np.array(points)[:, 0], np.array(points)[:, 1]
        panels[init].plot(steps, shifts, "-", lw=0.8, color=_COLORS[norm], alpha=0.6)
        marker = "s" if norm == "batch norm" else "o"
        panels[init].scatter(steps, shifts, _area(batch_size), color=_COLORS[norm], marker=marker)
        between = np.interp(np.log(10), np.log(steps), shifts, np.nan, np.nan)
        if batch_size in (4, 64) and np.isfinite(between):
            described.append(f"{norm}, {init} initialisation, batch size {batch_size}: {between:.2f}")
    for init, axes in panels.items():
        axes.set(xscale="log", ylim=(0, 1.25), title=f"{init} initialisation", xlabel="relative step ‖ΔW‖ / ‖W‖ (‰)")
        plain_ticks(axes.xaxis, (1, 10, 100))
    panels[inits[0]].set_ylabel("relative shift ‖G − G′‖ / ‖G‖")
    handles = [*_network_handles(lines), *_size_handles([size for *_, size in lines])]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return f"The relative shift grows with the relative step. At a step of 10 thousandths: {'; '.join(described)}."


def _network_handles(lines: Mapping[tuple, Sequence]) -> list[Line2D]:
    """Return one legend handle per network, the second part of the keys."""
    return [
        Line2D([], [], color=_COLORS[norm], marker="s" if norm == "batch norm" else "o", lw=0.8, label=norm)
        for norm in dict.fromkeys(norm for _, norm, _ in lines)
    ]


def _area(batch_size):
    """Return the area of the mark for a batch size, in square points."""
    return 12 + 14 * np.log2(np.asarray(batch_size) / 4)


def _size_handles(batch_sizes: Sequence[int]) -> list[Line2D]:
    """Return legend handles that show how large the marks of the smallest and the largest batches are."""
    return [
        Line2D([], [], color=GREY, marker="o", ls="none", ms=_area(size) ** 0.5, label=f"batch size {size:g}")
        for size in (min(batch_sizes), max(batch_sizes))
    ]


def draw_shift_and_loss(figure: Figure, cells: Mapping[tuple, Mapping]) -> str:
    """Draw final loss against relative shift of each setting, one panel per initialisation; see ``gradient_shift``.

    A line joins the settings that differ only in the batch size; the mark grows with the batch size.
    """
    lines = {}
    for (_, init, norm, batch_size, lr), row in cells.items():
        point = batch_size, np.median(np.median(row["relative_ics"], 1)), np.median(row["final_loss"])
        if np.isfinite(point).all():
            lines.setdefault((init, norm, lr), []).append(point)
    inits, described = list(dict.fromkeys(init for init, *_ in lines)), []
    panels = dict(zip(inits, np.atleast_1d(figure.subplots(1, len(inits), sharex=True, sharey=True)), strict=True))
    for (init, norm, _), points in lines.items():
        sizes, shifts, losses = np.array(sorted(points)).T
        panels[init].plot(shifts, losses, "-", lw=0.8, color=_COLORS[norm], alpha=0.6)
        panels[init].scatter(
            shifts, losses, _area(sizes), color=_COLORS[norm], marker="s" if norm == "batch norm" else "o"
        )
    for init, axes in panels.items():
        axes.set(xscale="log", yscale="log", title=f"{init} initialisation", xlabel="relative shift, ‖G − G′‖ / ‖G‖")
        plain_ticks(axes.xaxis, (0.02, 0.1, 0.5))
        plain_ticks(axes.yaxis, (0.01, 0.1, 1))
        for norm in dict.fromkeys(norm for each, norm, _ in lines if each == init):
            points = [point for (each, of, _), row in lines.items() if (each, of) == (init, norm) for point in row]
            _, shifts, losses = np.array(points).T
            described.append(
                f"{norm}, {init} initialisation: relative shifts from {shifts.min():.2g} to {shifts.max():.2g}, losses "
                f"from {losses.min():.2g} to {losses.max():.2g}"
            )
    panels[inits[0]].set_ylabel("loss after 50 steps (nats)")
    handles = [*_network_handles(lines), *_size_handles(sizes)]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return "One point per batch size and learning rate. " + "; ".join(described) + "."
