"""The pictures of a report of ``bnlib.diagnose``, drawn from the values of its findings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnlib.doctor.report import Finding
from bnlib.doctor.running_averages import MISMATCH
from bnlib.figures.picture import BLUE, GREEN, GREY, PURPLE, VERMILLION, Picture, picture

_MODES = {
    "train": ("train mode", BLUE),
    "train_reshuffled": ("train mode, reshuffled", VERMILLION),
    "eval_recomputed": ("eval mode, recomputed", PURPLE),
    "eval": ("eval mode", GREEN),
}
_MOST_LAYERS, _MOST_CURVES, _LISTED_SHARES = 8, 4, 4
_SIZES, _LONGEST_NAME = 8, 24
_CURVES = ((BLUE, "-"), (VERMILLION, "--"), (GREEN, "-."), (PURPLE, ":"))


def pictures(group: Sequence[Finding]) -> Iterator[tuple[Picture, str]]:
    """Yield a picture and its caption for each kind of values that findings of one code have.

    Arguments:
        group: findings of one code in one or more layers.
    """
    first = group[0].values
    if len(first.get("losses", {})) > 1:
        shares = first.get("share_of_gap", {})
        shares = shares if len(shares) > 1 else {}
        caption = "The loss on the same samples in several modes."
        if shares:
            caption += " The shares say which layers the gap closes in, as one after the other gets precise statistics."
        size = (6.6 if shares else 3.4, 0.6 + 0.45 * _rows(first["losses"], shares))
        yield picture(draw_losses, first["losses"], shares, size=size), caption
    by_layer = {each.layer: each.values for each in group if "mean_difference" in each.values}
    if by_layer:
        shown = dict(list(by_layer.items())[:_MOST_LAYERS])
        caption = (
            "Running statistics compared with those of the data, over the channels of a layer: median (dot), middle "
            "half (thick) and 5 % to 95 % (thin). If the dots are in the band, the statistics match."
        ) + _left_out(by_layer, shown)
        yield picture(draw_running_against_data, shown, size=(6.6, 0.9 + 0.5 * len(shown))), caption
    by_layer = {each.layer: each.values for each in group if "variance" in each.values}
    if by_layer:
        shown = dict(list(by_layer.items())[:_MOST_CURVES])
        caption = "The variance of the layer's input in each channel, in order, and eps." + _left_out(by_layer, shown)
        yield picture(draw_variance_and_eps, shown, size=(3.4, 2.1)), caption
    if "gradient_norms" in first:
        caption = "The norm of the gradient at the output of each norm layer."
        yield picture(draw_gradient_norms, first["gradient_norms"], size=(3.4, 2.1)), caption
    if "labels_by_batch" in first:
        caption = "The labels in each batch: the larger a dot, the more samples of the batch have this label."
        yield picture(draw_labels, first["labels_by_batch"]), caption


def _left_out(all_layers: Mapping, shown: Mapping) -> str:
    rest = len(all_layers) - len(shown)
    return f" {rest} more layer{'s are' if rest > 1 else ' is'} not shown." if rest else ""


def draw_losses(figure: Figure, losses: Mapping[str, Mapping], shares: Mapping[str, float]) -> str:
    """Draw the loss in each mode as a bar and, if known, the share of each layer in the gap."""
    axes, *others = np.atleast_1d(figure.subplots(1, 1 + bool(shares)))
    known = {name: losses[key] for key, (name, _) in _MODES.items() if key in losses}
    means = [each["mean"] for each in known.values()]
    colours = [colour for key, (_, colour) in _MODES.items() if key in losses]
    texts = [_loss_text(each) for each in known.values()]
    rows = _rows(losses, shares)
    _labelled_bars(axes, list(known), means, texts, colours, rows)
    axes.set_xlabel("loss")
    told = "; ".join(f"{name} {text}" for name, text in zip(known, texts, strict=True))
    if not shares:
        return f"Losses: {told}."
    largest = sorted(shares.items(), key=lambda pair: -abs(pair[1]))[:_LISTED_SHARES]
    names = [_layer(name) for name, _ in largest]
    percent = [100 * share for _, share in largest]
    texts = [f"{value:.0f} %" for value in percent]
    _labelled_bars(others[0], names, percent, texts, [GREY] * len(names), rows)
    others[0].set_xlabel("share of the gap (%)")
    layers = ", ".join(f"{name} {text}" for name, text in zip(names, texts, strict=True))
    return f"Losses: {told}. Share of the layers in the gap: {layers}."


def _rows(losses: Mapping, shares: Mapping) -> int:
    return max(len(losses), min(len(shares), _LISTED_SHARES))


def _loss_text(score: Mapping[str, Any]) -> str:
    text = _number(score["mean"])
    return text if score["error_rate"] is None else f"{text} (error {100 * score['error_rate']:.1f} %)"


def _labelled_bars(
    axes: Axes, names: Sequence[str], values: Sequence[float], texts: Sequence[str], colours: Sequence[str], rows: int
) -> None:
    """Draw horizontal bars with the name and the number of each above it, so that long names fit a narrow screen.

    There is room for ``rows`` bars, so that the bars of two panels are equally thick.
    """
    places = np.arange(len(names))
    lengths = [value if math.isfinite(value) else 0.0 for value in values]
    axes.barh(places + 0.2, lengths, height=0.35, color=colours)
    for place, name, text in zip(places, names, texts, strict=True):
        axes.text(0, place - 0.05, f"{name}: {text}", va="bottom", transform=axes.get_yaxis_transform())
    axes.set(yticks=[], ylim=(rows - 0.5, -0.5))
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=GREY, lw=0.8)


def draw_running_against_data(figure: Figure, by_layer: Mapping[str, Mapping]) -> str:
    """Draw the differences of the means and the ratios of the standard deviations, a row per layer."""
    left, right = figure.subplots(1, 2, sharey=True)
    told = []
    for place, (name, values) in enumerate(by_layer.items()):
        for axes, key in ((left, "mean_difference"), (right, "deviation_ratio")):
            _range(axes, place, values[key])
            axes.text(0, place - 0.12, _layer(name), va="bottom", transform=axes.get_yaxis_transform())
        middles = (_number(_median(values[key])) for key in ("mean_difference", "deviation_ratio"))
        told.append("{} {} and {}".format(_layer(name), *middles))
    largest = max(
        (abs(each) for v in by_layer.values() for each in v["mean_difference"] if math.isfinite(each)), default=0
    )
    left.axvspan(-MISMATCH, MISMATCH, color=GREY, alpha=0.25, lw=0)
    right.axvspan(2**-MISMATCH, 2**MISMATCH, color=GREY, alpha=0.25, lw=0)
    left.set_xlim(-1.1 * max(largest, 1.5), 1.1 * max(largest, 1.5))
    if largest > 20:
        left.set_xscale("symlog", linthresh=MISMATCH)
        powers = range(0, math.floor(math.log10(largest)) + 1, math.ceil(math.log10(largest) / 2))
        ticks = [sign * 10.0**power for power in powers for sign in (-1, 1)]
        left.set_xticks([0, *ticks], [_number(each) for each in (0, *ticks)])
    right.set_xscale("log", base=2)
    low, high = right.get_xlim()
    right.set_xlim(min(low, 0.4), max(high, 2.5))
    _plain_powers(right)
    left.set(xlabel="(running mean – mean of data) / std of data", yticks=[])
    right.set(xlabel="running std / std of data", yticks=[])
    for axes in (left, right):
        axes.set_ylim(len(by_layer) - 0.3, -0.7)
        axes.spines["left"].set_visible(False)
    return (
        "Running statistics against the data. Median over channels of the difference of the means, in standard "
        f"deviations, and of the ratio of the standard deviations: {'; '.join(told)}."
    )


def _range(axes: Axes, place: float, values: Sequence[float]) -> None:
    """Draw the quantiles of a layer: 5 % to 95 % thin, the middle half thick, and the median as a dot."""
    number = len(values) - 1
    at = [values[round(share * number)] for share in (0.05, 0.25, 0.5, 0.75, 0.95)]
    if not all(map(math.isfinite, at)):
        axes.text(1, place, "not finite", ha="right", transform=axes.get_yaxis_transform())
        return
    axes.plot([at[0], at[4]], [place, place], color=BLUE, lw=1)
    axes.plot([at[1], at[3]], [place, place], color=BLUE, lw=4, solid_capstyle="butt")
    axes.plot(at[2], place, "o", ms=6, color=VERMILLION, mec="none")


def draw_variance_and_eps(figure: Figure, by_layer: Mapping[str, Mapping]) -> str:
    """Draw the variances of the channels of each layer in order, and eps."""
    axes, told = figure.subplots(), []
    smallest_eps = min(values["eps"] for values in by_layer.values())
    positive = [each for values in by_layer.values() for each in values["variance"] if 0 < each < math.inf]
    floor = 0.1 * min([smallest_eps, *positive])
    for (name, values), (colour, dash) in zip(by_layer.items(), _CURVES, strict=False):
        variances = [max(each, floor) for each in values["variance"]]
        axes.plot(np.linspace(0, 100, len(variances)), variances, color=colour, ls=dash, label=_layer(name))
        zero = sum(each == 0 for each in values["variance"]) / len(variances)
        told.append(
            f"{_layer(name)}: median {_number(_median(values['variance']))}" + f", {zero:.0%} are 0" * (zero > 0)
        )
    for value in {values["eps"] for values in by_layer.values()}:
        axes.axhline(value, color=GREY, lw=1)
        axes.annotate(f"eps = {value:g}", (100, value), xytext=(0, 3), textcoords="offset points", ha="right")
    label = (
        "variance" if floor < min(min(values["variance"]) for values in by_layer.values()) else "variance (0: lowest)"
    )
    axes.set(yscale="log", xlabel="channels, in the order of their variance (%)", ylabel=label, xlim=(0, 100))
    axes.minorticks_off()
    figure.legend(loc="outside lower center", ncols=2)
    return f"Variances of the inputs, with eps {smallest_eps:g}. {'; '.join(told)}."


def draw_gradient_norms(figure: Figure, norms: Mapping[str, float]) -> str:
    """Draw the gradient norm at the output of each layer."""
    axes, values = figure.subplots(), list(norms.values())
    finite = [(place, each) for place, each in enumerate(values, 1) if 0 < each < math.inf]
    axes.plot(*zip(*finite, strict=True), "o-", color=BLUE, ms=4) if finite else None
    axes.set(yscale="log", xlabel="norm layer, first to last", ylabel="gradient norm")
    axes.minorticks_off()
    return (
        f"Gradient norms of {len(values)} layers: {_number(values[0])} at the first, {_number(values[-1])} at the last."
    )


def draw_labels(figure: Figure, labels_by_batch: Sequence[Sequence[int]]) -> str:
    """Draw how many samples of each batch have each label, beside the same samples in random batches."""
    together = np.concatenate([np.asarray(each, dtype=int) for each in labels_by_batch])
    names, classes = np.unique(together, return_inverse=True)
    ends = np.cumsum([len(each) for each in labels_by_batch])
    parts = partial(np.split, indices_or_sections=ends[:-1])
    orders = {"these batches": classes, "the same samples, shuffled": np.random.default_rng(0).permutation(classes)}
    counts = {}
    for axes, (title, order) in zip(figure.subplots(1, 2, sharey=True), orders.items(), strict=True):
        shares = np.array([np.bincount(each, minlength=len(names)) / max(len(each), 1) for each in parts(order)])
        # Markers of few sizes make a small file.
        levels = np.ceil(shares * _SIZES)
        for level in range(1, _SIZES + 1):
            batch, label = (levels == level).nonzero()
            axes.plot(batch + 1, label, "o", ms=6 * (level / _SIZES) ** 0.5, color=BLUE, mec="none")
        axes.set(title=title, xlabel="batch")
        counts[title] = (shares > 0).sum(1).mean()
    figure.axes[0].set_ylabel("label")
    if len(names) <= 12:
        figure.axes[0].set_yticks(range(len(names)), [str(name) for name in names])
    else:
        figure.axes[0].set_yticks([0, len(names) - 1], [str(names[0]), str(names[-1])])
    told = "; ".join(f"{title} {count:.1f}" for title, count in counts.items())
    return f"Labels per batch, of {len(names)} labels, on average: {told}."


def _plain_powers(axes: Axes) -> None:
    """Label the powers of two of a logarithmic axis with numbers, at most six of them."""
    low, high = (math.log2(each) for each in axes.get_xlim())
    step = max(1, math.ceil((high - low) / 6))
    powers = [step * each for each in range(math.ceil(low / step), math.floor(high / step) + 1)]
    axes.set_xticks([2.0**each for each in powers], [_number(2.0**each) for each in powers])
    axes.minorticks_off()


def _median(values: Sequence[float]) -> float:
    return values[len(values) // 2]


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else str(value).replace("inf", "infinite")


def _layer(name: str) -> str:
    """Return the name of a layer as a label; of a long one, the beginning and the end."""
    short = name if len(name) <= _LONGEST_NAME else f"{name[:8]}…{name[9 - _LONGEST_NAME :]}"
    return f"layer {short}" if name else "the model itself"
