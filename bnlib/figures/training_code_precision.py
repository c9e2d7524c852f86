"""Figures of chapter 11: a skipped step, gradient checkpointing, and quantised weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from bnlib.figures.methods import method_color
from bnlib.figures.picture import BLUE, GREEN, GREY, PURPLE, VERMILLION, band, plain_ticks

_DASHES = {"batch norm": "-", "Batch Renorm": ":", "Full Norm": "--", "layer norm": "-."}


def draw_skipped_step(
    figure: Figure, results: Mapping[str, Mapping[str, np.ndarray]], checkpoints: Sequence[int], bad_step: int
) -> str:
    """Draw training losses and test errors by norm around a step that was skipped; see ``training_code.skipped_step``.

    Arguments:
        figure: the figure.
        results: for each norm, its cell of the result.
        checkpoints: the steps of the values.
        bad_step: the step that was skipped.
    """
    left, right = figure.subplots(1, 2)
    for norm, found in results.items():
        line = {"color": method_color(norm), "label": norm, "ls": _DASHES[norm]}
        band(left, checkpoints, found["train_loss"], **line)
        band(right, checkpoints, 100 * found["test_error"], **line)
    left.set(title="train mode", ylabel="training loss (nats)", ylim=(0, 2))
    right.set(title="eval mode", ylabel="test error (%)", ylim=(0, 100))
    for axes in (left, right):
        axes.axvline(bad_step, color=GREY, lw=0.8, ls=":")
        axes.set(xlabel="step", xlim=(0, checkpoints[-1]))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    told = [
        f"{norm}: training loss {_loss(found['train_loss'][:, -1])}, test error in eval mode "
        f"{100 * np.median(found['test_error'][:, -1]):.0f} %"
        for norm, found in results.items()
    ]
    return f"At step {bad_step} a batch has one infinite pixel, and the step is skipped. At the end, {'; '.join(told)}."


def _loss(values: np.ndarray) -> str:
    return "not finite" if np.isnan(values).all() else f"{np.nanmedian(values):.2f} nats"


def draw_means_by_format(figure: Figure, means: Mapping[float, Mapping[str, np.ndarray]]) -> str:
    """Draw running means over batches by number format, one panel per momentum.

    Arguments:
        figure: the figure.
        means: for each momentum, what ``training_code.half_precision_statistics.running_means`` returns.
    """
    looks = {"float32": (PURPLE, "-", 5), "float16": (GREEN, "--", 2), "bfloat16": (VERMILLION, "-", 2)}
    told = []
    for axes, (momentum, found) in zip(figure.subplots(1, len(means), squeeze=False)[0], means.items(), strict=True):
        for name, (color, ls, width) in looks.items():
            batches = range(1, len(found[name]) + 1)
            axes.plot(batches, found[name], color=color, ls=ls, lw=width, label=name, solid_capstyle="butt")
        axes.set(title=f"momentum {momentum:g}", xlabel="batches", ylabel="running mean (% of the mean)")
        axes.set(xlim=(0, len(found["float32"])), ylim=(0, 105))
        ends = ", ".join(f"{name} {found[name][-1]:.0f} %" for name in looks)
        told.append(f"momentum {momentum:g}: {ends}")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return f"Running means rise from 0 and end at this share of the mean of the data: {'; '.join(told)}."


def draw_gradient_checkpointing(
    figure: Figure, results: Mapping[float, Mapping[str, Mapping[str, np.ndarray]]], steps: Sequence[int]
) -> str:
    """Draw test errors over steps with and without checkpointing, one panel per momentum.

    Arguments:
        figure: the figure.
        results: for each momentum, the cells with checkpointing "off" and "on"; see
            ``training_code.gradient_checkpointing``.
        steps: numbers of steps of the values.
    """
    told = []
    panels = np.atleast_1d(figure.subplots(1, len(results), sharey=True))
    for axes, (momentum, found) in zip(panels, results.items(), strict=True):
        band(axes, steps, 100 * found["off"]["precise"], color=GREEN, label="recomputed statistics", ls=":")
        band(axes, steps, 100 * found["off"]["running"], color=BLUE, label="without checkpointing")
        band(axes, steps, 100 * found["on"]["running"], color=VERMILLION, label="with checkpointing", ls="--")
        axes.set(title=f"momentum {momentum:g}", xscale="log", yscale="log", ylim=(1.5, 120), xlabel="step")
        plain_ticks(axes.xaxis, (1, 10, 100))
        plain_ticks(axes.yaxis, (2, 5, 10, 20, 50, 100))
        at_20, last = (
            " and ".join(f"{100 * np.median(found[each]['running'][:, place]):.0f} %" for each in ("off", "on"))
            for place in (list(steps).index(20), -1)
        )
        told.append(f"momentum {momentum:g}: {at_20} after 20 steps, {last} after {steps[-1]}")
    figure.axes[0].set_ylabel("test error (%), eval mode")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return f"Test error in eval mode without and with checkpointing, {'; '.join(told)}. Medians of seeds."


_SCALES = {"per tensor": (VERMILLION, "-"), "per channel": (GREEN, "--"), "per tensor, equalised": (PURPLE, ":")}


def draw_quantised_weights(
    figure: Figure, data: Mapping[str, np.ndarray], network: str, bits: int, all_bits: Sequence[int]
) -> str:
    """Draw the ranges of a layer's channels beside the rounding step, and test errors by number of bits.

    Arguments:
        figure: the figure.
        data: a cell of ``training_code.quantised_weights``.
        network: its label, for the description.
        bits: the number of bits that the figure marks.
        all_bits: the numbers of bits of the errors.
    """
    left, right = figure.subplots(1, 2)
    first = np.sort(data["ranges"][0])[::-1]
    places = np.arange(1, len(first) + 1)
    steps = first / (2 ** (bits - 1) - 1)
    left.bar(places, first, width=0.7, color=GREY, alpha=0.5, label="largest weight of the channel")
    left.plot(places, np.full(len(first), steps[0]), color=VERMILLION)
    left.plot(places, steps, color=GREEN, ls="--")
    left.set(yscale="log", ylim=(3e-5, 5), xlabel="channel", ylabel="absolute value", title=f"{bits} bits")
    plain_ticks(left.yaxis, (1e-4, 1e-3, 0.01, 0.1, 1), ["0.0001", "0.001", "0.01", "0.1", "1"])
    left.set_xticks(places[:: max(1, len(places) // 8)])
    for name, (color, dash) in _SCALES.items():
        if name != "per tensor, equalised" or network != "convolutional":
            band(right, all_bits, 100 * data[name], color=color, label=name, ls=dash)
    right.axvline(bits, color=GREY, lw=0.8, ls=":")
    right.axhline(100 * np.median(data["float"]), color=GREY, lw=1, ls="-.", label="weights in float32")
    right.set(ylim=(0, 100), xlim=(max(all_bits), min(all_bits)), xlabel="bits per weight", ylabel="test error (%)")
    handles = [each for axes in (right, left) for each in axes.get_legend_handles_labels()[0]]
    figure.legend(handles, [each.get_label() for each in handles], loc="outside lower center", ncols=3)
    place = list(all_bits).index(bits)
    told = ", ".join(f"{name} {100 * np.median(data[name][:, place]):.1f} %" for name in list(_SCALES)[:2])
    lost = int((first < steps[0] / 2).sum())
    return (
        f"{network}, {bits} bits: with one scale per tensor the rounding step is {steps[0]:.2g}, and {lost} of "
        f"{len(first)} channels have only weights that are rounded to 0. Median test errors: {told}, "
        f"{100 * np.median(data['float']):.1f} % without quantisation."
    )
