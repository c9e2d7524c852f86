"""Figures of chapter 6: how accurate networks with BN are when the statistics do not fit the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnlib.figures.methods import method_color
from bnlib.figures.picture import BLUE, GREEN, GREY, PURPLE, VERMILLION, band, plain_ticks


def draw_one_channel(figure: Figure, rows: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> str:
    """Draw values of one channel, of samples of kind A and of kind B, in one row for each choice of statistics."""
    axes, told = figure.subplots(), []
    for place, (title, kinds) in enumerate(rows.items()):
        axes.axhline(place, color=GREY, lw=0.7, zorder=0)
        for kind, values, color, mark, side in zip("AB", kinds, (BLUE, VERMILLION), "os", (-0.14, 0.14), strict=True):
            spots, label = np.full(len(values), place + side), f"samples of kind {kind}" if place == 0 else "_"
            axes.plot(values, spots, mark, color=color, ms=7, label=label)
        # Its square stands below the line; the number says where the last value is in each row.
        where = {"xytext": (7, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
        axes.annotate(f"{kinds[-1][-1]:.3g}", (kinds[-1][-1], place + 0.14), **where)
        numbers = ("and".join(f" {value:.3g} " for value in values).strip() for values in kinds)
        told.append(f"{title}: A {', B '.join(numbers)}".replace("\n", " "))
    axes.axvline(0, color=GREY, ls=":", lw=1, zorder=0)
    axes.set_yticks(range(len(rows)), rows)
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel="value in the channel")
    axes.margins(x=0.08)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return f"Two values of each kind. {'; '.join(told)}."


def draw_train_mode_at_inference(
    figure: Figure,
    data: Mapping[str, Mapping[str, np.ndarray]],
    network: str,
    batch_size: int,
    *,
    batch_sizes: Sequence[int],
    batches_served: Sequence[int],
) -> str:
    """Draw accuracy in train mode by batch size, and in eval mode afterwards; ``perils.train_mode_at_inference``."""
    left, right = figure.subplots(1, 2, sharey=True)
    looks = {"shuffled": (BLUE, "o-"), "sorted": (VERMILLION, "s--")}
    place, told = list(batch_sizes).index(batch_size), []
    for order, (color, mark) in looks.items():
        here, after = 100 * data[order]["train_mode"], 100 * data[order]["eval_mode_afterwards"]
        band(left, batch_sizes, here, color=color, label=f"test set {order}", marker=mark[0], ls=mark[1:], ms=4)
        left.plot(batch_size, np.median(here[:, place]), mark[0], color=color, ms=9)
        if "run" in data:
            dash = {"marker": "_", "ls": "", "color": color, "ms": 18, "mew": 2}
            left.plot(batch_sizes, 100 * np.array(data["run"][order]["train_mode"]), **dash)
            right.plot(100 * np.array(data["run"][order]["eval_mode_afterwards"]), **dash)
        band(right, np.arange(len(batches_served)), after, color=color, label="_", marker=mark[0], ls=mark[1:], ms=4)
        told.append(
            f"{order} {np.median(here[:, place]):.1f} % ({here[:, place].min():.1f} to {here[:, place].max():.1f}) in "
            f"train mode, then at worst {np.median(after, 0).min():.1f} % in eval mode"
        )
    eval_mode = 100 * np.median(data["shuffled"]["eval_mode"])
    for axes in (left, right):
        axes.axhline(eval_mode, color=GREY, ls=":", lw=1.2, label="eval mode, before" if axes is left else "_")
    left.axvline(batch_size, color=GREY, lw=0.7)
    left.set(xscale="log", ylim=(0, 104), xlabel="batch size", ylabel="accuracy (%)", title="train mode")
    plain_ticks(left.xaxis, batch_sizes)
    right.set(xlabel="batches predicted in train mode", title=f"eval mode, after batches of {batch_size}")
    right.set_xticks(range(len(batches_served)), [str(number) for number in batches_served], fontsize=8)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    run = data.get("run")
    yours = f" Dashes: your run, {100 * run['shuffled']['eval_mode']:.1f} % in eval mode." if run else ""
    return (
        f"Test accuracy of the {network} network with batches of {batch_size} samples: {'; '.join(told)}. In eval mode "
        f"before: {eval_mode:.1f} %. Medians and ranges over five seeds.{yours}"
    )


_STATISTICS = {
    "running": "running,\nshared",
    "pooled": "recomputed,\nboth\ndomains",
    "per_domain": "recomputed,\nper\ndomain",
    "domain_batch_norm": "domain-\nspecific\nBN",
}


def draw_two_towers(figure: Figure, data: Mapping[str, np.ndarray], domains: str, share: float, batch_size: int) -> str:
    """Draw test accuracy in both domains by the statistics of eval mode; see ``perils.two_towers``."""
    axes = figure.subplots()
    names = ("digits", {"inverted": "inverted digits", "MNIST": "MNIST"}[domains])
    told = []
    for domain, (name, color, mark) in enumerate(zip(names, (BLUE, VERMILLION), "os", strict=True)):
        for spot, statistics in enumerate(_STATISTICS):
            if statistics in data:
                _draw_seeds(axes, spot + (domain - 0.5) * 0.24, 100 * data[statistics][:, domain], color, mark)
        axes.plot([], [], mark, color=color, ms=7, label=name)
        if "run" in data:
            run = [100 * data["run"][name][domain] for name in ("running", "pooled", "per_domain")]
            axes.plot(np.arange(3) + (domain - 0.5) * 0.24, run, "_", color=color, ms=18, mew=2)
    for statistics, title in _STATISTICS.items():
        if statistics in data:
            values = [f"{np.median(100 * column):.1f}" for column in data[statistics].T]
            told.append(f"{title.replace(chr(10), ' ')} {' and '.join(values)} %")
    if "domain_batch_norm" not in data:
        axes.text(3, 50, "batches hold\nboth domains", ha="center", va="center", fontsize=9, color=GREY)
    axes.axhline(10, color=GREY, ls=":", lw=1)
    axes.set_xticks(range(len(_STATISTICS)), _STATISTICS.values())
    axes.set(xlim=(-0.5, 3.5), ylim=(0, 103), ylabel="test accuracy (%)", xlabel="statistics in eval mode")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    yours = " Dashes: your run." if "run" in data else ""
    losses = np.median(data["loss"], 0)
    return (
        f"Digits and {names[1]}, {share:.0%} of each batch of {batch_size} from one domain. Training losses of the "
        f"towers: {losses[0]:.3f} and {losses[1]:.3f} nats. Test accuracy on {names[0]} and {names[1]}: "
        f"{'; '.join(told)}. Medians and ranges over {len(data['loss'])} seeds.{yours}"
    )


def _draw_seeds(axes: Axes, spot: float, values: np.ndarray, color: str, mark: str) -> None:
    axes.vlines(spot, values.min(), values.max(), color=color, lw=1.6)
    axes.plot(np.full(len(values), spot), values, ".", color=color, ms=4, alpha=0.7)
    axes.plot(spot, np.median(values), mark, color=color, ms=8)


_EVALUATIONS = {
    "BN, separate batches": ("batch norm", "separate"),
    "BN, mixed batches": ("batch norm", "mixed"),
    "BN, eval mode": ("batch norm", "eval"),
    "BN in layer 2, separate batches": ("batch norm, layer 2 only", "separate"),
    "BN in layer 2, eval mode": ("batch norm, layer 2 only", "eval"),
    "layer norm": ("layer norm", "eval"),
    "without normalisation": ("without normalisation", "eval"),
}
_EVALUATION_MARKS = {"batch norm": "o", "batch norm, layer 2 only": "D"}


def draw_discriminator(figure: Figure, data: Mapping, kind: str, batches: str) -> str:
    """Draw samples after BN, and the accuracy of discriminators; see ``perils.gan_discriminator``."""
    left, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
    left.plot(*data["real"].T, "o", color=GREY, ms=2.5, label="real", alpha=0.8)
    left.plot(*data["fake"].T, "x", color=GREEN, ms=3.5, label="generated", alpha=0.8)
    left.set(xlim=(-3.4, 3.4), ylim=(-3.4, 3.4), aspect="equal", title="samples after BN")
    left.set(xlabel="coordinate 1", ylabel="coordinate 2")
    numbers, told = data["numbers"], []
    for row, (name, (norm, mode)) in enumerate(_EVALUATIONS.items()):
        values = 100 * numbers[norm][mode]
        color, mark = method_color(norm), _EVALUATION_MARKS.get(norm, "s")
        right.plot(np.median(values), row, mark, color=color, ms=7)
        right.hlines(row, values.min(), values.max(), color=color, lw=1.6)
        told.append(f"{name} {np.median(values):.0f} %")
        if norm in data.get("run", {}):
            right.plot(100 * data["run"][norm][mode], row, "|", color=color, ms=16, mew=2)
    right.axvline(50, color=GREY, ls=":", lw=1)
    right.set_yticks(range(len(_EVALUATIONS)), _EVALUATIONS)
    right.set(
        xlim=(-3, 103),
        ylim=(len(_EVALUATIONS) - 0.5, -0.5),
        xlabel="accuracy on new samples (%)",
        title="normalisation, evaluation",
    )
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2)
    trained = {"separate": "separate batches of real and of generated samples", "mixed": "mixed batches"}[batches]
    bn = numbers["batch norm"]
    yours = " Strokes: your run." if "run" in data else ""
    return (
        f"Generated samples {kind}, trained on {trained}. Accuracy on new samples: {', '.join(told)}. The final loss "
        f"with BN is {np.median(bn['loss']):.3f} nats (random guessing: 0.693).{yours}"
    )


def draw_distribution_shift(
    figure: Figure,
    data: Mapping[str, np.ndarray],
    shift: float,
    share: float,
    *,
    shifts: Sequence[float],
    shares: Sequence[float],
) -> str:
    """Draw accuracy on shifted data by the statistics of eval mode; see ``perils.distribution_shift``."""
    left, right = figure.subplots(1, 2, sharey=True)
    looks = {
        "training": ("training data", BLUE, "o", "-"),
        "halfway": ("halfway", PURPLE, "D", "-."),
        "recomputed": ("test data", VERMILLION, "s", "--"),
        "recomputed_balanced": ("test data, balanced", GREEN, "^", ":"),
    }
    row, column, told = list(shifts).index(shift), list(shares).index(share), []
    for statistics, (name, color, mark, line) in looks.items():
        values = 100 * data[statistics]
        look = {"color": color, "marker": mark, "ls": line, "ms": 4}
        band(left, 100 * np.asarray(shares), values[:, row], label=name, **look)
        band(right, shifts, values[:, :, column], label="_", **look)
        middle = np.median(values[:, row, column])
        left.plot(100 * share, middle, mark, color=color, ms=9)
        right.plot(shift, middle, mark, color=color, ms=9)
        told.append(f"{name} {middle:.1f} %")
    left.set(ylim=(0, 103), xlabel="share of one class (%)", ylabel="accuracy (%)")
    pixels = f"{shift:g} added to each pixel" if shift else "unchanged pixels"
    left.set_title(pixels)
    right.set(xlabel="value added to each pixel (black 0, white 1)", title=f"{share:.0%} of one class")
    right.set_xticks(shifts)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return (
        f"Test images: {pixels}, {share:.0%} of the images from one class. Accuracy with statistics of: "
        f"{', '.join(told)}. Medians and ranges over five seeds."
    )


def draw_adaptation_at_test_time(
    figure: Figure, data: Mapping[str, Mapping[str, np.ndarray]], images: str, *, batch_sizes: Sequence[int]
) -> str:
    """Draw accuracy on streams of test images by batch size; see ``perils.adaptation_at_test_time``."""
    looks = {
        "training": ("training statistics", BLUE, "o", "-"),
        "mixed": ("mixed", PURPLE, "D", "-."),
        "batch": ("statistics of the batch", VERMILLION, "s", "--"),
        "tent": ("TENT", GREEN, "^", ":"),
    }
    told = []
    for axes, (stream, arms) in zip(figure.subplots(1, len(data), sharey=True), data.items(), strict=True):
        for arm, (name, color, mark, line) in looks.items():
            label = name if axes is figure.axes[0] else "_"
            band(axes, batch_sizes, 100 * arms[arm], color=color, label=label, marker=mark, ls=line, ms=4)
        axes.set(xscale="log", ylim=(0, 103), xlabel="batch size", title=stream)
        plain_ticks(axes.xaxis, batch_sizes)
        middles = {name: 100 * np.median(arms[arm], 0) for arm, (name, *_) in looks.items()}
        told.append(
            f"{stream}: " + ", ".join(f"{name} {row[0]:.0f} to {row[-1]:.0f} %" for name, row in middles.items())
        )
    figure.axes[0].set(ylabel="accuracy (%)")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return (
        f"Accuracy on {images} images, from batches of {batch_sizes[0]} to batches of {batch_sizes[-1]}. "
        f"{'; '.join(told)}. Medians and ranges over five seeds."
    )
