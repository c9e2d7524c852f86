"""Figures of networks with BN that fail: fixed batches, micro-batches, evaluation statistics, initial gamma."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnlib.figures.picture import BLUE, GREEN, GREY, PURPLE, VERMILLION, band, plain_ticks

_LOSSES = {
    "printed_batches": ("training batches", BLUE, "-"),
    "reshuffled_batches": ("reshuffled batches", VERMILLION, "--"),
    "eval_mode": ("eval mode", GREEN, "-."),
    "test": ("test samples, eval mode", PURPLE, ":"),
}


_LIVE_STYLE = {"marker": "o", "ms": 3, "lw": 1, "ls": ":"}
"""Style of the reader's own run."""


def draw_fixed_batches(figure: Figure, panels: Mapping[str, Mapping], epochs: Sequence[int]) -> str:
    """Draw losses over epochs by batches and mode, one panel per training run; see ``failing.published_examples``."""
    told = []
    for axes, (title, row) in zip(
        np.atleast_1d(figure.subplots(1, len(panels), sharey=True)), panels.items(), strict=True
    ):
        for name, (label, color, dash) in _LOSSES.items():
            band(axes, epochs, row[name].T, color=color, label=label, ls=dash, lw=1.4)
        axes.set(xlabel="epoch", title=title, ylim=(0, 2.4), xlim=(0, epochs[-1]))
        finals = ", ".join(f"{label} {np.median(row[name][-1]):.2f}" for name, (label, *_) in _LOSSES.items())
        told.append(f"{title}: {finals}")
    figure.axes[0].set_ylabel("squared error (random targets)")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return f"Median squared errors after {epochs[-1]} epochs with random targets. {'; '.join(told)}."


def draw_micro_batches(figure: Figure, data: Mapping[str, object], micro_batch_size: int, lr: float) -> str:
    """Draw errors over steps in train and eval mode by micro-batch size; see ``failing.evaluation_statistics``."""
    left, right = figure.subplots(1, 2, sharey=True)
    steps, bn, plain = data["steps"], data["batch norm"], data["without normalisation"]
    band(left, steps, 100 * plain["train"], color=VERMILLION, label="without normalisation", ls="--")
    band(left, steps, 100 * bn["train"], color=BLUE, label="BN, train mode")
    band(right, steps, 100 * plain["precise"], color=VERMILLION, label="without normalisation", ls="--")
    band(right, steps, 100 * bn["precise"], color=GREEN, label="BN, eval mode, precise statistics")
    if live := data.get("live"):
        left.plot(live["steps"], 100 * live["train"], color=BLUE, **_LIVE_STYLE)
        right.plot(live["steps"], 100 * live["precise"], color=GREEN, **_LIVE_STYLE)
    left.set(title="training set, train mode", ylabel="error (%)")
    right.set(title="test set, eval mode")
    for axes in (left, right):
        _errors_over_steps(axes, steps)
    handles = [*left.get_legend_handles_labels()[0], right.get_legend_handles_labels()[0][1]]
    figure.legend(handles, [each.get_label() for each in handles], loc="outside lower center", ncols=3)
    ends = [100 * np.median(each[:, -1]) for each in (bn["train"], bn["precise"], plain["precise"])]
    return (
        f"Steps of {data['batch size']} samples in micro-batches of {micro_batch_size}, learning rate {lr:g}. "
        f"Final error with BN: {ends[0]:.1f} % in train mode and {ends[1]:.1f} % on the test set in eval mode; without "
        f"normalisation: {ends[2]:.1f} % on the test set. Medians of {len(bn['train'])} seeds."
    )


def draw_evaluation_statistics(figure: Figure, data: Mapping[str, object], lr: float, momentum: float) -> str:
    """Draw test loss and error with running and with precise statistics; see ``failing.evaluation_statistics``."""
    left, right = figure.subplots(1, 2)
    steps = data["steps"]
    looks = {"running": ("running averages", BLUE, "-"), "precise": ("precise statistics", GREEN, "--")}
    for name, (label, color, dash) in looks.items():
        band(left, steps, data[name][..., 0], color=color, label=label, ls=dash)
        band(right, steps, 100 * data[name][..., 1], color=color, label=label, ls=dash)
        if live := data.get("live"):
            left.plot(live["steps"], live[name][:, 0], color=color, **_LIVE_STYLE)
            right.plot(live["steps"], 100 * live[name][:, 1], color=color, **_LIVE_STYLE)
    left.set(ylabel="test loss (nats)", yscale="log", ylim=(0.03, 30), xscale="log", xlabel="step")
    plain_ticks(left.yaxis, (0.1, 1, 10))
    plain_ticks(left.xaxis, (1, 10, 100))
    right.set(ylabel="test error (%)")
    _errors_over_steps(right, steps)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    place = list(steps).index(20)
    told = [
        " and ".join(f"{100 * np.median(data[name][:, where, 1]):.1f} %" for where in (place, -1))
        for name in ("running", "precise")
    ]
    return (
        f"Learning rate {lr:g}, momentum {momentum:g}. Test error after 20 and {steps[-1]} steps: with running "
        f"averages {told[0]}, with precise statistics {told[1]}. After 20 steps the initial values have a weight of "
        f"{_percent((1 - momentum) ** 20)}."
    )


def _percent(share: float) -> str:
    return "0 %" if share == 0 else "less than 0.1 %" if share < 1e-3 else f"{100 * share:.0f} %"


def _errors_over_steps(axes: Axes, steps: Sequence[int]) -> None:
    axes.set(xscale="log", yscale="log", ylim=(0.8, 130), xlim=(1, steps[-1]), xlabel="step")
    plain_ticks(axes.xaxis, (1, 10, 100))
    plain_ticks(axes.yaxis, (1, 3, 10, 30, 100))


_FLOOR = 1e-20


def draw_initial_gamma(figure: Figure, data: Mapping[str, object], network: str, gamma: float) -> str:
    """Draw the training loss, and the gradient norms of the first step by layer; see ``failing.initial_gamma``."""
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    chosen, usual = data["chosen"], data["gamma 1"]
    band(left, data["steps"], usual["loss"], color=GREY, label="γ = 1", ls="--")
    band(left, data["steps"], chosen["loss"], color=BLUE, label=f"γ = {gamma:g}")
    if live := data.get("live"):
        left.plot(live["steps"], live["loss"], color=BLUE, **_LIVE_STYLE)
    left.axhline(np.log(10), color=GREY, lw=0.8, ls=":")
    left.set(ylim=(0, 3), xlabel="step", ylabel="training loss (nats)", title=f"γ = {gamma:g} (grey: γ = 1)")
    kinds = {"W": ("W, weights", VERMILLION, "s"), "γ": ("γ", BLUE, "o"), "β": ("β", GREEN, "^")}
    found: Mapping[str, float] = data["gradients"]
    for kind, (label, color, mark) in kinds.items():
        own = {int(name[len(kind) :]): value for name, value in found.items() if name.startswith(kind)}
        heights = [max(value, _FLOOR) for value in own.values()]
        right.plot(list(own), heights, mark, color=color, ms=5, label=label, ls="-", lw=0.6)
    layers = max(int(name[1:]) for name in found)
    right.axhline(_FLOOR * 30, color=GREY, lw=0.6, ls=":")
    right.set(yscale="log", ylim=(_FLOOR / 10, 100), xlim=(0.5, layers + 0.5), xlabel="index of the linear or BN layer")
    right.set(ylabel="gradient norm", title="first step")
    plain_ticks(right.yaxis, (_FLOOR, 1e-15, 1e-10, 1e-5, 1), ["0", "10⁻¹⁵", "10⁻¹⁰", "10⁻⁵", "1"])
    right.set_xticks(range(1, layers + 1, 1 if layers < 6 else 3))
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    zero = sum(value == 0 for name, value in found.items() if name[0] in kinds)
    of = sum(name[0] in kinds for name in found)
    return (
        f"{network}, initial γ = {gamma:g}: the final training loss is {np.median(chosen['loss'][:, -1]):.2f} nats, "
        f"the test error {100 * np.median(chosen['test_error']):.1f} % (medians of {len(chosen['test_error'])} seeds); "
        f"with γ = 1 it is {100 * np.median(usual['test_error']):.1f} %. In the first step the gradient is exactly 0 "
        f"in {zero} of {of} parameter tensors W, γ and β."
    )


def draw_placement(figure: Figure, errors: Mapping[tuple, np.ndarray]) -> str:
    """Draw test errors by learning rate with BN before and after the ReLU, one panel per depth, at most two a row."""
    depths = list(dict.fromkeys(depth for _, depth, _ in errors))
    columns = min(2, len(depths))
    rows = math.ceil(len(depths) / columns)
    figure.set_figheight(figure.get_figheight() * (1 + 0.6 * (rows - 1)))
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for unused in grid.flat[len(depths) :]:
        unused.remove()
    rates = list(dict.fromkeys(lr for _, _, lr in errors))
    looks = {"before": (BLUE, "s-", "BN before the ReLU"), "after": (PURPLE, "o--", "BN after the ReLU")}
    told = []
    for axes, depth in zip(figure.axes, depths, strict=True):
        for shift, (placement, (color, mark, label)) in zip((0.94, 1.06), looks.items(), strict=True):
            each = 100 * np.array([errors[placement, depth, lr] for lr in rates])
            middle = np.median(each, 1)
            reach = np.abs(np.stack([each.min(1), each.max(1)]) - middle)
            axes.errorbar(shift * np.array(rates), middle, reach, fmt=mark, color=color, ms=5, lw=1.3, label=label)
            told.append(f"{label}, depth {depth}: {', '.join(f'{value:.1f}' for value in middle)}")
        title = f"{depth} hidden layer{'s' * (depth > 1)}"
        axes.set(xscale="log", yscale="log", ylim=(0.5, 100), title=title, xlabel="learning rate")
        plain_ticks(axes.xaxis, rates)
        plain_ticks(axes.yaxis, (1, 3, 10, 30, 100))
    for axes in grid[:, 0]:
        axes.set_ylabel("test error (%)")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return f"Median test errors in percent at learning rates {', '.join(f'{lr:g}' for lr in rates)}: {'; '.join(told)}."
