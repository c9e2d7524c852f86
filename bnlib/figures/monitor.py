"""The figure of ``bnlib.Monitor``: what it measured of each layer during a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from bnlib.arguments import check_kind, check_one_of
from bnlib.figures.picture import BLUE, GREEN, GREY, PURPLE, VERMILLION
from bnlib.monitor import QUANTITIES, Monitor

_STYLES = [(color, dash) for dash in ("-", "--") for color in (BLUE, VERMILLION, GREEN, PURPLE)]
_LABELS = {
    "distance": "distance",
    "drift": "drift",
    "initial_weight": "weight of initial values",
    "between_batches": "share between batches",
    "variance_over_eps": "variance / eps",
    "below_eps": "channels below eps",
    "dead": "channels without variance",
    "gamma": "|gamma|",
    "small_gamma": "channels with small gamma",
    "updates": "updates per step",
    "calls": "calls per step",
    "values_per_channel": "values per channel",
    "train_mode": "train mode",
    "non_finite": "channels not finite",
}
_LOGARITHMIC = ("variance_over_eps", "values_per_channel", "initial_weight")


def size_of(quantities: Sequence[str]) -> tuple[float, float]:
    """Return the size of the figure for so many panels, in inches."""
    rows = math.ceil(len(quantities) / 2)
    return (7.2 if len(quantities) > 1 else 4.0), 2.4 * rows + 0.5


def draw_monitor(figure: Figure, monitor: Monitor, quantities: Sequence[str]) -> str:
    """Draw a panel per quantity with a line per layer, at most eight: those with the largest values of the first one.

    A dotted line is at the step that first showed a finding.

    Arguments:
        figure: where to draw.
        monitor: a ``bnlib.Monitor`` that has measured something.
        quantities: keys of ``bnlib.monitor.QUANTITIES``.

    Raises:
        ValueError: a quantity has no such key, or the log is empty.
    """
    check_kind("monitor", monitor, Monitor, "a bnlib.Monitor")
    log, first_steps = monitor.log, monitor.first_steps
    for name in quantities:
        check_one_of("quantities", name, QUANTITIES)
    if not log:
        raise ValueError("the monitor must have measured something to be drawn, got an empty log: train a step first")
    layers = _chosen(log, quantities[0])
    grid = figure.subplots(math.ceil(len(quantities) / 2), min(2, len(quantities)), squeeze=False).ravel()
    for axes, quantity in zip(grid, quantities, strict=False):
        for layer, (color, dash) in zip(layers, _STYLES, strict=False):
            steps, values = _line(log, layer, quantity)
            label = f"layer {layer}" if layer else "model"
            axes.plot(steps, values, color=color, ls=dash, marker="o", ms=3, label=label)
        drawn = [value for line in axes.lines for value in line.get_ydata() if math.isfinite(value)]
        if quantity in _LOGARITHMIC and drawn and min(drawn) > 0:
            axes.set_yscale("log")
        elif drawn:
            axes.set_ylim(0, 1.1 * max(drawn) or 1.0)
        for step in set(first_steps.values()):
            axes.axvline(step, color=GREY, lw=0.8, ls=":")
        axes.set(xlabel="step", ylabel=_LABELS[quantity], xlim=(0, 1.02 * log[-1]["step"]))
    for axes in grid[len(quantities) :]:
        axes.remove()
    if len(layers) > 1:
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return _description(log, layers, quantities, first_steps)


def _chosen(log: Sequence[Mapping], quantity: str) -> list[str]:
    """Return the names of the layers to draw, in the order of the log."""
    largest: dict[str, float] = {}
    for row in log:
        largest[row["layer"]] = np.nanmax([largest.get(row["layer"], -math.inf), row[quantity]])
    first = sorted(largest, key=largest.get, reverse=True)[: len(_STYLES)]
    return [name for name in largest if name in first]


def _line(log: Sequence[Mapping], layer: str, quantity: str) -> tuple[list[int], list[float]]:
    rows = [row for row in log if row["layer"] == layer]
    return [row["step"] for row in rows], [row[quantity] for row in rows]


def _description(
    log: Sequence[Mapping], layers: Sequence[str], quantities: Sequence[str], first_steps: Mapping[tuple[str, str], int]
) -> str:
    count = len({row["layer"] for row in log})
    drawn = f"{count} norm layers" if count == len(layers) else f"{len(layers)} of {count} norm layers"
    told = []
    for quantity in quantities:
        values = [value for layer in layers for value in _line(log, layer, quantity)[1] if math.isfinite(value)]
        if values:
            told.append(f"{QUANTITIES[quantity]}, from {min(values):.2g} to {max(values):.2g}")
    found = [f"{code} in layer {layer or 'model'} at step {step}" for (code, layer), step in first_steps.items()]
    text = f"{drawn.capitalize()}, steps {log[0]['step']} to {log[-1]['step']}: {'; '.join(told)}."
    return f"{text} Findings: {'; '.join(found[:6])}." if found else f"{text} No findings."
