"""Figures of deep stacks: gradient norms by layer, losses of full-batch descent, and their jumps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from bnlib.figures.methods import method_color
from bnlib.figures.picture import BLUE, GREEN, GREY, PURPLE, VERMILLION, band, plain_ticks

_ACTIVATIONS = {"ReLU": BLUE, "tanh": VERMILLION, "linear": GREEN}
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _color(name: str) -> str:
    return method_color(name, _ACTIVATIONS.get(name, PURPLE))


def power(exponent: int) -> str:
    """Write 10 to the power of ``exponent`` as text."""
    return f"10{str(exponent).translate(_SUPERSCRIPTS)}"


def _powers(axis: Axis, exponents: Sequence[int]) -> None:
    plain_ticks(axis, [10.0**each for each in exponents], [power(each) for each in exponents])


def draw_gradients(figure: Figure, data, network: str, characters: int) -> str:
    """Draw gradient norms by layer before training; see ``depth.gradient_growth.GradientsByLayer``."""
    axes, (weights, theory) = figure.subplots(), (data.gradient_norms, data.theory)
    layers = np.arange(1, weights.shape[1] + 1)
    # Norms that underflowed to 0 are drawn below the axis.
    band(axes, layers, np.maximum(weights, 1e-30), color=BLUE, label="measured")
    middle = np.median(weights, 0)
    if theory is not None:
        line = middle[-1] * theory ** (layers[-1] - layers.astype(float))
        axes.plot(layers, line, color=GREY, ls="--", lw=1.2, label="theory")
    axes.set(yscale="log", ylim=(1e-14, 1e18), xlim=(1, layers[-1]), xlabel="hidden layer (1: nearest to the input)")
    axes.set(ylabel="gradient norm at the weights")
    _powers(axes.yaxis, range(-12, 19, 6))
    axes.legend(loc="upper right")
    ratio = middle[0] / middle[-1]
    told = f"{network}, {characters} characters: ratio of gradient norms, layer 1 to layer {layers[-1]}: {ratio:.2g}"
    if ratio > 0:
        told += f", a factor of {ratio ** (1 / (layers[-1] - 1)):.3f} per layer"
    return told + (f" (theory {theory:.3f})." if theory is not None else ".")


def draw_descent(figure: Figure, data: Mapping[str, object], what: str, lr: float) -> str:
    """Draw losses over steps, and the absolute change of the loss in each step; see ``depth.descent.Curves``.

    Arguments:
        figure: where to draw.
        data: two curves by name, and optionally those of a live run, named ``NAME, your run``.
        what: description of the network.
        lr: the learning rate.
    """
    left, right = figure.subplots(1, 2)
    looks, told = {}, []
    for name, curves in data.items():
        base, live, _ = name.partition(", your run")
        color, dash = looks.setdefault(base, (_color(base), "--" if looks else "-"))
        line = {"color": color, "ls": dash, "lw": 1}
        if live:
            line.update(marker="o", ms=2, ls=":")
        # Each run by itself: the median of three would hide the jumps.
        for number, losses in enumerate(np.clip(curves.losses, -1, 1e6)):
            left.plot(losses, label=name.replace("residual", "skip connections") if number == 0 else None, **line)
            change = np.abs(np.diff(losses))
            right.plot(np.arange(1, len(losses)), np.where(change > 0, change, np.nan), **line)
        told.append(f"{name}: {_describe(curves)}")
    left.set(ylim=(0, 5), xlabel="step", ylabel="loss (nats)")
    right.set(yscale="log", ylim=(1e-9, 1e2), xlabel="step", ylabel="|change of the loss| per step (nats)")
    _powers(right.yaxis, range(-8, 3, 2))
    # Without end, a short live run would move the axis.
    for axes in (left, right):
        axes.set_xlim(0, max(curves.losses.shape[1] for curves in data.values()) - 1)
    handles = {name: line for line, name in zip(*left.get_legend_handles_labels(), strict=True)}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=2)
    return f"{what}, learning rate {lr:g}. " + "; ".join(told) + "."


def draw_depth(figure: Figure, data: Mapping[str, object], depth: int, lr: float) -> str:
    """Draw the descent of a stack with ``depth`` layers."""
    return draw_descent(figure, data, f"{depth} hidden layers", lr)


def draw_variant(figure: Figure, data: Mapping[str, object], variant: str, lr: float) -> str:
    """Draw the descent of a ``variant`` with 100 layers."""
    return draw_descent(figure, data, f"100 hidden layers, {variant}", lr)


def _describe(curves) -> str:
    """Describe final loss, jitter and progress, as medians over seeds."""
    if curves.losses.shape[1] < 3:
        return "just started"
    there = np.isfinite(curves.losses[:, -1]) & (curves.losses[:, -1] < 1e6)
    lost = f", {np.count_nonzero(~there)} of {len(there)} runs diverged" if not there.all() else ""
    if not there.any():
        return "diverged"
    end, jitter, progress = (np.median(each[there]) for each in (curves.losses[:, -1], curves.jitter, curves.progress))
    return f"final loss {end:.3g}, jitter {jitter:.2g}, progress {progress:.2g} nats per step{lost}"


def draw_jitter(
    figure: Figure, rates: Sequence[float], lines: Mapping[str, np.ndarray], limits: Mapping[str, float], level: float
) -> str:
    """Draw the mean absolute change of the loss per step against the learning rate, one line and band per stack.

    Arguments:
        figure: where to draw.
        rates: learning rates; a shorter line covers the last of them.
        lines: at most four arrays (seeds, rates) by name, in nats.
        limits: 2 / sharpness for some of the names, drawn as a triangle on the axis.
        level: loss difference of two unrelated networks in nats, drawn as a horizontal line.
    """
    axes, told = figure.subplots(), []
    looks = zip((GREEN, PURPLE, BLUE, VERMILLION), (":", "-.", "-", "--"), strict=True)
    for (name, values), (color, dash) in zip(lines.items(), looks, strict=False):
        here = np.asarray(rates)[-values.shape[1] :]
        band(axes, here, np.clip(values, 1e-30, 1e30), color=color, ls=dash, label=name)
        if name in limits:
            axes.plot([limits[name]], [2e-9], marker="^", ms=9, color=color, ls="none", clip_on=False)
            told.append(f"{name}: 2 / sharpness = {limits[name]:.1g}")
    axes.axhline(level, color=GREY, lw=1, ls="--", label="two unrelated networks")
    axes.set(
        xscale="log",
        yscale="log",
        ylim=(2e-9, 1e1),
        xlabel="learning rate",
        ylabel="|change of the loss| per step (nats)",
    )
    _powers(axes.xaxis, range(-20, 9, 4))
    _powers(axes.yaxis, range(-8, 2, 2))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return "Mean absolute change of the loss per step against the learning rate. " + "; ".join(told) + "."


_GROUP_STYLES = {
    "baseline": ("o", BLUE),
    "growth removed, BN kept": ("^", PURPLE),
    "skip connections": ("D", GREEN),
}
"""Mark and colour of groups of cures; in all others the gradient grows."""


def draw_relu_and_bn(figure: Figure, samples: int = 25) -> str:
    """Draw how ReLU brings the values of a normalised unit closer together and the next BN stretches them again.

    Arguments:
        figure: where to draw.
        samples: number of values, quantiles of the standard normal distribution.

    Returns:
        a description of the figure.
    """
    normalised = np.array([NormalDist().inv_cdf((rank + 0.5) / samples) for rank in range(samples)])
    # The mean and the standard deviation of max(0, z) for a standard normal z.
    mean, deviation = 1 / np.sqrt(2 * np.pi), np.sqrt(0.5 - 1 / (2 * np.pi))
    rectified = np.maximum(normalised, 0)
    axes = figure.subplots()
    for values in np.stack((normalised, rectified, (rectified - mean) / deviation), 1):
        axes.plot((0, 1, 2), values, "o-", ms=3.5, lw=0.9, color=BLUE if values[0] > 0 else GREY)
    spreads = ("1", f"{deviation:.2f}", "1")
    stages = ("after BN", "after ReLU", "after next BN")
    labels = [f"{stage}\nstd {each}" for stage, each in zip(stages, spreads, strict=True)]
    axes.set_xticks((0, 1, 2), labels)
    axes.set(xlim=(-0.3, 2.3), ylabel="value of one unit")
    return (
        f"{samples} values of a unit: ReLU sets the negative half to 0 and lowers the standard deviation from 1 to "
        f"{deviation:.2f}; the next BN stretches the differences by {1 / deviation:.2f}."
    )


def draw_suspects(figure: Figure, groups: Mapping[str, Mapping[str, object]]) -> str:
    """Draw the roughness of each variant, one row per variant; see ``depth.cure_outcomes.Outcome``.

    Arguments:
        figure: where to draw.
        groups: outcomes by group and label; the one outcome of the first group is the baseline.
    """
    axes, first = figure.subplots(), next(iter(groups))
    (baseline,) = groups[first].values()
    rows, names, told = [0.0], list(groups[first]), []
    for group in groups:
        mark, color = _GROUP_STYLES.get(group, ("s", GREY))
        if group != first and [*groups[group]] != [group]:  # the name of the group has a row of its own
            rows.append(rows[-1] + 1.4)
            names.append(f"{group}:")
        for name, each in groups[group].items():
            if group != first:
                rows.append(rows[-1] + (1.4 if name == group else 1))
                names.append(name.removeprefix(f"{group}, "))
            _dot(axes, rows[-1], each.roughness, fmt=mark, color=color, ms=5, lw=1.2)
            told.append(f"{name} {_three_digits(each.roughness)}")
    axes.set(xscale="log", xlim=(0.8, 2000), ylim=(rows[-1] + 0.8, -0.8), xlabel="roughness at 0.0001")
    axes.set_yticks(rows, names)
    axes.tick_params(axis="y", length=0, labelsize=9)
    axes.axvline(np.median(baseline.roughness), color=GREY, lw=0.8, ls=":")
    plain_ticks(axes.xaxis, (1, 10, 100, 1000))
    return "Roughness of 100 layers at 0.0001: " + "; ".join(told) + "."


def _dot(axes: Axes, row: float, values: np.ndarray, **style) -> None:
    """Draw the median and the range of the seeds; a seed that diverged lies beyond the axis."""
    values = np.nan_to_num(values, nan=1e30, posinf=1e30)
    middle = np.median(values)
    axes.errorbar([middle], [row], xerr=[[middle - values.min()], [values.max() - middle]], **style)


def _three_digits(values: np.ndarray) -> str:
    return f"{np.median(np.nan_to_num(values, nan=np.inf)):.3g}"


def draw_lstms(figure: Figure, data) -> str:
    """Draw the growth of gradients and the roughness by number of LSTM layers; see ``depth.stacked_lstms.by_depth``."""
    left, right = figure.subplots(1, 2)
    ratios = data.ratios["shared"]
    left.plot(list(ratios), [np.median(each) for each in ratios.values()], "o-", color=BLUE, ms=5, mfc="none")
    left.axhline(1, color=GREY, lw=1, ls=":")
    told = []
    for (lr, runs), color in zip(data.roughness.items(), (PURPLE, GREEN), strict=True):
        values = np.array([np.nan_to_num(each, nan=np.inf) for each in runs.values()])
        right.plot(list(runs), np.median(values, 1), "o-", color=color, label=f"learning rate {lr:g}")
        right.vlines(list(runs), values.min(1), values.max(1).clip(max=1e3), color=color, lw=1)
        told += [f"at rate {lr:g} {', '.join(f'{np.median(value):.2g}' for value in values)}"]
    right.axhline(1, color=GREY, lw=1, ls=":")
    left.set(yscale="log", ylabel="gradient norm, first / last layer", title="before training")
    right.set(yscale="log", ylim=(0.8, 200), ylabel="roughness", title="20 steps")
    for axes in (left, right):
        axes.set(xscale="log", xlabel="LSTM layers")
        plain_ticks(axes.xaxis, (10, 20, 40, 100))
    _powers(left.yaxis, range(0, 9, 2))
    plain_ticks(right.yaxis, (1, 3, 10, 30, 100))
    figure.legend(loc="outside lower center", ncols=2)
    grown = ", ".join(f"{np.median(each):.2g}" for each in ratios.values())
    depths = ", ".join(map(str, ratios))
    return (
        f"Stacks of {depths} LSTMs with shared statistics. Gradient norm at the first layer over the last: {grown}. "
        f"Median roughness over three seeds: {'; '.join(told)}."
    )
