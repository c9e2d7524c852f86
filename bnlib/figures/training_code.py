"""Figures of chapter 11: fine-tuning with batch norm, and averages of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from bnlib.figures.methods import method_color
from bnlib.figures.picture import BLUE, GREEN, GREY, VERMILLION, band, plain_ticks

_ARMS = {
    "train mode": ("BN in train mode", "s-"),
    "frozen": ("frozen BN", "o--"),
    "re-estimated, then frozen": ("re-estimated BN, then frozen", "D-."),
}
_STATISTICS = {
    "copied": ("copied from the last network", BLUE, "--"),
    "averaged": ("averaged like the weights", VERMILLION, "-"),
    "recomputed": ("recomputed from the training data", GREEN, "-."),
}


def draw_fine_tuning(figure: Figure, errors: Mapping[str, Mapping[str, Mapping[int, np.ndarray]]]) -> str:
    """Draw test errors (%) after fine-tuning by batch size, a panel per shift; see ``fine_tuning.errors_by_shift``."""
    told = []
    panels = np.atleast_1d(figure.subplots(1, len(errors), sharey=True))
    for axes, (shift, arms) in zip(panels, errors.items(), strict=True):
        for place, (arm, (label, mark)) in enumerate(_ARMS.items()):
            sizes, values = np.array(list(arms[arm])), np.array(list(arms[arm].values()))
            middle = np.median(values, 1)
            reach = [middle - values.min(1), values.max(1) - middle]
            spots = sizes * 1.08 ** (place - 1)  # side by side, so that the ranges do not hide each other
            axes.errorbar(spots, middle, reach, fmt=mark, color=method_color(label), ms=5, lw=1.4, label=label)
            numbers = ", ".join(f"{value:.1f} % at {size}" for size, value in zip(sizes, middle, strict=True))
            told.append(f"{shift}, {label}: {numbers}")
        axes.set(xscale="log", yscale="log", ylim=(0.7, 110), xlabel="batch size", title=f"{shift} digits")
        plain_ticks(axes.xaxis, (1, 2, 4, 8, 32))
        plain_ticks(axes.yaxis, (1, 2, 5, 10, 20, 50, 100))
    panels[0].set_ylabel("test error (%)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return f"Test errors after fine-tuning, by batch size. {'; '.join(told)}. Medians and ranges over five seeds."


def draw_averaged_weights(
    figure: Figure, data: Mapping[str, np.ndarray], average: str, lr: float, *, epochs: Sequence[int]
) -> str:
    """Draw test errors of averaged weights over epochs, by their running statistics; see ``averaged_weights``."""
    axes, told = figure.subplots(), []
    band(axes, epochs, 100 * data["last"], color=GREY, label="last weights", ls=":", lw=2)
    for name, (label, color, dash) in _STATISTICS.items():
        errors = 100 * np.asarray(data[name])
        band(axes, epochs, errors, color=color, label=f"statistics {label}", ls=dash, marker="o", ms=4)
        live = 100 * np.asarray(data.get(f"{name}, your run", ()), dtype=float)
        axes.plot(epochs[: len(live)], live, "x", color=color, ms=8, mew=2)
        told.append(f"{np.median(errors[:, -1]):.1f} % with statistics {label}")
    axes.set(xscale="log", yscale="log", ylim=(0.8, 110), xlabel="epochs", ylabel="test error (%)")
    plain_ticks(axes.xaxis, epochs)
    plain_ticks(axes.yaxis, (1, 2, 5, 10, 20, 50, 100))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    yours = " Crosses: your run." if any("your run" in name for name in data) else ""
    return (
        f"{average}, learning rate {lr:g}. Test errors of the averaged weights after {epochs[-1]} epochs: "
        f"{', '.join(told)}; of the last weights {100 * np.median(data['last'][:, -1]):.1f} %. Medians and ranges over "
        f"five seeds.{yours}"
    )
