"""Figures of chapter 2: how distributions shift during training, noisy BN, and how gradients change direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

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


def draw_step_and_shift(figure: Figure, cells: Mapping[tuple, Mapping], ringed: tuple[int, float]) -> str:
    """Draw the relative shift against the relative step, one panel per initialisation; see ``gradient_shift``.

    One mark is one setting, and grows with the batch size. ``ringed`` are the batch size and the learning rate of the
    settings with a ring.
    """
    points: dict[tuple, list] = {}
    for (_, init, norm, batch_size, lr), row in cells.items():
        step, shift = (np.median(np.median(row[name], 1)) for name in ("step_ratio", "relative_ics"))
        if np.isfinite(step + shift):
            points.setdefault((init, norm), []).append((1000 * step, shift, batch_size, lr))
    inits, described = list(dict.fromkeys(init for init, _ in points)), []
    panels = dict(zip(inits, np.atleast_1d(figure.subplots(1, len(inits), sharex=True, sharey=True)), strict=True))
    for (init, norm), each in points.items():
        axes, style = panels[init], {"color": _COLORS[norm], "marker": _MARKS[norm]}
        steps, shifts, sizes, rates = np.array(each).T
        axes.scatter(steps, shifts, _area(sizes), **style, alpha=0.75, linewidths=0)
        (chosen,) = np.flatnonzero((sizes == ringed[0]) & (rates == ringed[1]))
        axes.plot(steps[chosen], shifts[chosen], "o", mfc="none", color=GREY, ms=15, mew=1.5)
        described.append(f"{norm}, {init} initialisation: {steps[chosen]:.1f} and {shifts[chosen]:.2f}")
    for init, axes in panels.items():
        axes.set(xscale="log", ylim=(0, 1.25), title=f"{init} initialisation", xlabel="relative step ‖ΔW‖ / ‖W‖ (‰)")
        plain_ticks(axes.xaxis, (1, 10, 100))
    panels[inits[0]].set_ylabel("relative shift ‖G − G′‖ / ‖G‖")
    sizes = [size for each in points.values() for *_, size, _ in each]
    handles = [*_network_handles([norm for _, norm in points]), *_size_handles(sizes)]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return (
        "The relative shift grows with the relative step. Relative step (‰) and relative shift at a batch size of "
        f"{ringed[0]} and a learning rate of {ringed[1]:g}: {'; '.join(described)}."
    )


def _network_handles(norms: Sequence[str]) -> list[Line2D]:
    """Return one legend handle per network."""
    return [
        Line2D([], [], color=_COLORS[norm], marker=_MARKS[norm], ls="none", label=norm) for norm in dict.fromkeys(norms)
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
