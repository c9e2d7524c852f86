"""Figures of internal covariate shift: moving distributions, noise behind BN, and turning gradients."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnlib.experiments.framework.results import as_array
from bnlib.figures.picture import BLUE, GREEN, GREY, VERMILLION, band, plain_ticks

_COLORS = {"without normalisation": VERMILLION, "batch norm": BLUE, "noisy BN": GREEN}
_LINES = {
    "batch norm": (BLUE, "-"),
    "noisy BN": (GREEN, "-"),
    "without normalisation": (VERMILLION, "--"),
    "noise without BN": (GREY, ":"),
}


def draw_moving_activations(figure: Figure, data: Mapping, layer: int, lr: float) -> str:
    """Quantiles of one unit's input over the steps, a panel a network; see ``experiments.moving_activations``."""
    panels = figure.subplots(1, len(data), sharey=True)
    for axes, (network, history) in zip(panels, data.items(), strict=True):
        lowest, low, middle, high, highest = history.quantiles(layer)
        color = _COLORS[network]
        axes.fill_between(history.steps, lowest, highest, color=color, alpha=0.22, linewidth=0)
        axes.fill_between(history.steps, low, high, color=color, alpha=0.35, linewidth=0)
        axes.plot(history.steps, middle, color=color, lw=1.4)
        axes.set(title=network, xlim=(0, 100), ylim=(-5, 5), xlabel="step")
    panels[0].set_ylabel("input of one activation")
    moved = ", ".join(f"{network} {_moved(history.mean_shift(layer))}" for network, history in data.items())
    return (
        f"Layer {layer}, learning rate {lr:g}: median (line), the middle 40 % and 80 % (bands) of the values of one "
        f"unit over {200} pictures. How far the means of all 100 units moved from the first step to the last, in "
        f"standard deviations, median over units: {moved}."
    )


def _moved(value: float) -> str:
    return f"{value:.2g}" if np.isfinite(value) else "diverged"


def draw_noisy_batch_norm(
    figure: Figure, data: Mapping[str, Mapping[str, dict]], lr: float, shift: float, scale: float
) -> str:
    """Training loss with noise and without, a panel an initialisation; see ``experiments.noise_behind_bn``."""
    panels = figure.subplots(1, len(data), sharey=True)
    for axes, (init, rows) in zip(panels, data.items(), strict=True):
        for name, row in rows.items():
            kind, live, _ = name.partition(", your run")
            color, dash = _LINES[kind]
            line = {"ls": ":", "lw": 1, "marker": "o", "ms": 3} if live else {"ls": dash, "label": kind}
            line.setdefault("label", None)
            band(axes, row["epoch"], as_array(row["train_loss"]), color=color, **line)
        axes.set(title=f"initialisation: {init}", xlim=(0, 20), ylim=(3e-3, 5), yscale="log", xlabel="epoch")
        plain_ticks(axes.yaxis, (0.01, 0.1, 1))
    panels[0].set_ylabel("training loss (nats)")
    panels[0].legend(loc="lower left", fontsize=8)
    ends = "; ".join(
        f"{init}: " + ", ".join(f"{name.replace(', your', ' your')} {_end(row)}" for name, row in rows.items())
        for init, rows in data.items()
    )
    strength = f"Learning rate {lr:g}, shifts up to {shift:g}, factors up to {scale:g}."
    return f"{strength} Median training loss after 20 epochs: {ends}."


def _end(row: dict) -> str:
    last = np.median(np.nan_to_num(np.array([run[-1] for run in row["train_loss"]], dtype=float), nan=np.inf))
    return f"{last:.2g}" if np.isfinite(last) else "diverged"


def draw_gradient_shift(figure: Figure, data: Mapping[str, Mapping], init: str, batch_size: int, lr: float) -> str:
    """Cosine, relative shift and size of the step of each layer; see ``experiments.gradient_shift``."""
    left, middle, right = figure.subplots(1, 3)
    for place, (norm, values) in enumerate(data.items()):
        for axes, name in ((left, "cosine"), (middle, "relative_ics"), (right, "step_ratio")):
            _points(axes, values[name], place, _COLORS[norm], norm)
    left.set(title="cosine of G and G′", ylim=(-0.1, 1.05))
    middle.set(title="‖G − G′‖ / ‖G‖", ylim=(0, 1.45))
    right.set(title="the layer's step, ‖ΔW‖ / ‖W‖", yscale="log", ylim=(1e-4, 1))
    plain_ticks(right.yaxis, (1e-3, 1e-2, 1e-1, 1))
    for axes in (left, middle, right):
        axes.set(xlim=(1.5, 4.5), xticks=(2, 3, 4), xlabel="layer")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    told = "; ".join(
        f"{norm}: cosine {_middle(values['cosine'])}, shift {_middle(values['relative_ics'])} of the gradient, loss at "
        f"the end {_middle(values['loss'][:, -1])}"
        for norm, values in data.items()
    )
    return (
        f"Initialisation {init}, batch size {batch_size}, learning rate {lr:g}, medians over layers and seeds. {told}."
    )


def _middle(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    return f"{np.median(finite):.2f}" if len(finite) > values.size / 2 else "none, for most runs diverged"


def _points(axes: Axes, values: np.ndarray, place: int, color: str, label: str) -> None:
    """The median over seeds of each layer from the second on, with a line from the lowest to the highest."""
    x = np.arange(2, 2 + values.shape[1]) + (place - 0.5) * 0.24
    values = values[np.isfinite(values).all(1)]
    if len(values) == 0:
        axes.plot([], "os"[place], color=color, label=f"{label}: diverged")
        return
    middle = np.median(values, 0)
    reach = np.abs(np.array([values.min(0), values.max(0)]) - middle)
    axes.errorbar(x, middle, reach, fmt="os"[place], ms=5, color=color, lw=1.4, label=label)


def draw_deep_linear(figure: Figure, cells: Mapping[str, Mapping]) -> str:
    """Cosine by layer and loss by step of deep linear networks; see ``experiments.deep_linear_shift``."""
    left, right = figure.subplots(1, 2)
    for (norm, values), dash in zip(cells.items(), ("--", "-"), strict=True):
        layers = np.arange(2, 2 + values["cosine"].shape[1])
        band(left, layers, values["cosine"], color=_COLORS[norm], ls=dash, label=norm)
        steps = np.linspace(0, 300, values["loss"].shape[1])
        band(right, steps, values["loss"], color=_COLORS[norm], ls=dash, label=norm)
    left.axhline(0, color=GREY, lw=0.8)
    left.set(xlim=(2, 25), ylim=(-1, 1.05), xlabel="layer", ylabel="cosine of G and G′")
    right.set(xlim=(0, 300), yscale="log", xlabel="step", ylabel="loss (mean square)")
    plain_ticks(right.yaxis, (10, 100))
    right.legend()
    return (
        "; ".join(
            f"{norm}: cosine {np.median(values['cosine'][:, -1]):.2f} at the last layer, loss "
            f"{np.median(values['loss'][:, 0]):.0f} at first and {np.median(values['loss'][:, -1]):.0f} after 300 steps"
            for norm, values in cells.items()
        )
        + " (medians over five seeds)."
    )


def draw_shift_and_loss(figure: Figure, cells: Mapping[tuple, Mapping]) -> str:
    """The relative shift of each setting against the loss it reached; see ``experiments.gradient_shift``."""
    axes, points = figure.subplots(), {}
    for (_, init, norm, *_), row in cells.items():
        shift, loss = np.median(np.median(row["relative_ics"], 1)), np.median(row["loss"][:, -1])
        points.setdefault((norm, init), []).append((shift, loss))
    told = []
    for (norm, init), pairs in points.items():
        shifts, losses = np.array([pair for pair in pairs if np.isfinite(pair).all()]).T
        filled = _COLORS[norm] if init == "He" else "none"
        mark = "s" if norm == "batch norm" else "o"
        axes.plot(shifts, losses, mark, ms=6, color=_COLORS[norm], mfc=filled, ls="none", label=f"{norm}, {init}")
        reach = f"{shifts.min():.2g} to {shifts.max():.2g}, losses from {losses.min():.2g} to {losses.max():.2g}"
        told.append(f"{norm}, initialisation {init}: shifts from {reach}")
    axes.set(xscale="log", yscale="log", xlabel="‖G − G′‖ / ‖G‖", ylabel="loss after 50 steps (nats)")
    plain_ticks(axes.xaxis, (0.02, 0.05, 0.1, 0.2, 0.5, 1))
    plain_ticks(axes.yaxis, (0.01, 0.1, 1))
    figure.legend(loc="outside right upper")
    return "One point a setting of batch size and learning rate. " + "; ".join(told) + "."
