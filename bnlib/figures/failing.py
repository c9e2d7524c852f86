"""Figures of networks with BN that fail: batches learnt by heart, micro-batches, statistics of eval mode, gamma."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnlib.figures.picture import BLUE, GREEN, GREY, PURPLE, VERMILLION, band, plain_ticks

_WHERE = {
    "own": ("its own batches", BLUE, "-"),
    "dealt": ("dealt out anew", VERMILLION, "--"),
    "evaluation": ("eval mode", GREEN, "-."),
    "test": ("new samples, eval mode", PURPLE, ":"),
}


_LIVE = {"marker": "o", "ms": 3, "lw": 1, "ls": ":"}
"""The reader's own run."""


def draw_own_and_dealt(figure: Figure, panels: Mapping[str, Mapping], epochs: Sequence[int]) -> str:
    """Losses in four ways over the epochs, a panel a training; see ``experiments.as_printed``."""
    told = []
    for axes, (title, row) in zip(
        np.atleast_1d(figure.subplots(1, len(panels), sharey=True)), panels.items(), strict=True
    ):
        for name, (label, color, dash) in _WHERE.items():
            band(axes, epochs, row[name].T, color=color, label=label, ls=dash, lw=1.4)
        axes.set(xlabel="epoch", title=title, ylim=(0, 2.4), xlim=(0, epochs[-1]))
        ends = ", ".join(f"{label} {np.median(row[name][-1]):.2f}" for name, (label, *_) in _WHERE.items())
        told.append(f"{title}: {ends}")
    figure.axes[0].set_ylabel("squared error (variance of y)")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return f"Median losses after {epochs[-1]} epochs. {'; '.join(told)}."


def draw_micro_batches(figure: Figure, data: Mapping[str, object], micro: int, lr: float) -> str:
    """Errors over steps in train and eval mode with BN of micro-batches; see ``experiments.evaluation_statistics``."""
    left, right = figure.subplots(1, 2, sharey=True)
    steps, bn, plain = data["steps"], data["batch norm"], data["no norm"]
    band(left, steps, 100 * plain["train"], color=VERMILLION, label="no norm", ls="--")
    band(left, steps, 100 * bn["train"], color=BLUE, label="BN, train mode")
    band(right, steps, 100 * plain["precise"], color=VERMILLION, label="no norm", ls="--")
    band(right, steps, 100 * bn["precise"], color=GREEN, label="BN, eval mode, statistics of the data")
    if live := data.get("live"):
        left.plot(live["steps"], 100 * live["train"], color=BLUE, **_LIVE)
        right.plot(live["steps"], 100 * live["precise"], color=GREEN, **_LIVE)
    left.set(title="training, train mode", ylabel="errors (%)")
    right.set(title="test, eval mode")
    for axes in (left, right):
        _errors_over_steps(axes, steps)
    handles = [*left.get_legend_handles_labels()[0], right.get_legend_handles_labels()[0][1]]
    figure.legend(handles, [each.get_label() for each in handles], loc="outside lower center", ncols=3)
    ends = [100 * np.median(each[:, -1]) for each in (bn["train"], bn["precise"], plain["precise"])]
    return (
        f"Steps of {data['batch size']} samples in micro-batches of {micro}, learning rate {lr:g}: at the end "
        f"{ends[0]:.1f} % errors in train mode, {ends[1]:.1f} % on the test set in eval mode; without a norm "
        f"{ends[2]:.1f} % on the test set. Medians of {len(bn['train'])} seeds."
    )


def draw_statistics(figure: Figure, data: Mapping[str, object], lr: float, momentum: float) -> str:
    """Test loss and error with running and with precise statistics; see ``experiments.evaluation_statistics``."""
    left, right = figure.subplots(1, 2)
    steps = data["steps"]
    looks = {"running": ("running averages", BLUE, "-"), "precise": ("statistics of the data", GREEN, "--")}
    for name, (label, color, dash) in looks.items():
        band(left, steps, data[name][..., 0], color=color, label=label, ls=dash)
        band(right, steps, 100 * data[name][..., 1], color=color, label=label, ls=dash)
        if live := data.get("live"):
            left.plot(live["steps"], live[name][:, 0], color=color, **_LIVE)
            right.plot(live["steps"], 100 * live[name][:, 1], color=color, **_LIVE)
    left.set(ylabel="test loss (nats)", yscale="log", ylim=(0.03, 30), xscale="log", xlabel="steps")
    plain_ticks(left.yaxis, (0.1, 1, 10))
    plain_ticks(left.xaxis, (1, 10, 100))
    right.set(ylabel="test errors (%)")
    _errors_over_steps(right, steps)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    place = list(steps).index(20)
    told = [
        " and ".join(f"{100 * np.median(data[name][:, where, 1]):.1f} %" for where in (place, -1))
        for name in ("running", "precise")
    ]
    return (
        f"Learning rate {lr:g}, momentum {momentum:g}: test errors after 20 and {steps[-1]} steps with running "
        f"averages {told[0]}, with the statistics of the data {told[1]}. After 20 steps the initial values still weigh "
        f"{_percent((1 - momentum) ** 20)} in the averages."
    )


def _percent(share: float) -> str:
    return "nothing" if share == 0 else "less than 0.1 %" if share < 1e-3 else f"{100 * share:.0f} %"


def _errors_over_steps(axes: Axes, steps: Sequence[int]) -> None:
    axes.set(xscale="log", yscale="log", ylim=(0.8, 130), xlim=(1, steps[-1]), xlabel="steps")
    plain_ticks(axes.xaxis, (1, 10, 100))
    plain_ticks(axes.yaxis, (1, 3, 10, 30, 100))


_FLOOR = 1e-20


def draw_gamma(figure: Figure, data: Mapping[str, object], network: str, gamma: float) -> str:
    """Training loss, and the gradients of the first step layer by layer; see ``experiments.gamma_at_start``."""
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    row, usual = data["row"], data["usual"]
    band(left, data["steps"], usual["loss"], color=GREY, label="γ = 1", ls="--")
    band(left, data["steps"], row["loss"], color=BLUE, label=f"γ = {gamma:g}")
    if live := data.get("live"):
        left.plot(live["steps"], live["loss"], color=BLUE, **_LIVE)
    left.axhline(np.log(10), color=GREY, lw=0.8, ls=":")
    left.set(ylim=(0, 3), xlabel="steps", ylabel="training loss (nats)", title=f"γ = {gamma:g} (grey: γ = 1)")
    kinds = {"W": ("W, weights", VERMILLION, "s"), "γ": ("γ", BLUE, "o"), "β": ("β", GREEN, "^")}
    found: Mapping[str, float] = data["gradients"]
    for kind, (label, color, mark) in kinds.items():
        own = {int(name[len(kind) :]): value for name, value in found.items() if name.startswith(kind)}
        heights = [max(value, _FLOOR) for value in own.values()]
        right.plot(list(own), heights, mark, color=color, ms=5, label=label, ls="-", lw=0.6)
    layers = max(int(name[1:]) for name in found)
    right.axhline(_FLOOR * 30, color=GREY, lw=0.6, ls=":")
    right.set(yscale="log", ylim=(_FLOOR / 10, 100), xlim=(0.5, layers + 0.5), xlabel="layer, linear or BN")
    right.set(ylabel="norm of the gradient", title="first step")
    plain_ticks(right.yaxis, (_FLOOR, 1e-15, 1e-10, 1e-5, 1), ["0", "10⁻¹⁵", "10⁻¹⁰", "10⁻⁵", "1"])
    right.set_xticks(range(1, layers + 1, 1 if layers < 6 else 3))
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    zero = sum(value == 0 for name, value in found.items() if name[0] in kinds)
    of = sum(name[0] in kinds for name in found)
    return (
        f"{network}, γ = {gamma:g} at the start: at the end the training loss is {np.median(row['loss'][:, -1]):.2f}, "
        f"the test error {100 * np.median(row['error']):.1f} % (medians of {len(row['error'])} seeds); from γ = 1 "
        f"it is {100 * np.median(usual['error']):.1f} %. In the first step the gradient is exactly 0 in {zero} of {of} "
        f"tensors W, γ and β."
    )


def draw_placement(figure: Figure, errors: Mapping[tuple, np.ndarray]) -> str:
    """Test errors by learning rate with BN before and after the ReLU, a panel a depth; see ``placement``."""
    depths = list(dict.fromkeys(depth for _, depth, _ in errors))
    rates = list(dict.fromkeys(lr for _, _, lr in errors))
    looks = {"before": (BLUE, "s-", "BN before the ReLU"), "after": (VERMILLION, "o--", "BN after it")}
    told = []
    for axes, depth in zip(np.atleast_1d(figure.subplots(1, len(depths), sharey=True)), depths, strict=True):
        for shift, (placement, (color, mark, label)) in zip((0.94, 1.06), looks.items(), strict=True):
            each = 100 * np.array([errors[placement, depth, lr] for lr in rates])
            middle = np.median(each, 1)
            reach = np.abs(np.stack([each.min(1), each.max(1)]) - middle)
            axes.errorbar(shift * np.array(rates), middle, reach, fmt=mark, color=color, ms=5, lw=1.3, label=label)
            told.append(f"{label}, depth {depth}: {', '.join(f'{value:.1f}' for value in middle)}")
        title = f"{depth} hidden layer{'s' * (depth > 1)}"
        axes.set(xscale="log", yscale="log", ylim=(0.5, 100), title=title, xlabel="learning rate")
        plain_ticks(axes.xaxis, rates[::2] if len(rates) > 3 else rates)
        plain_ticks(axes.yaxis, (1, 3, 10, 30, 100))
    figure.axes[0].set_ylabel("test error (%)")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return f"Median test errors in percent at learning rates {', '.join(f'{lr:g}' for lr in rates)}: {'; '.join(told)}."
