"""Figures of chapter 6: what BN answers when its statistics are those of other data than it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnlib.figures.picture import BLUE, GREEN, GREY, PURPLE, VERMILLION, band, plain_ticks


def draw_in_use(
    figure: Figure,
    data: Mapping[str, Mapping[str, np.ndarray]],
    network: str,
    batch_size: int,
    *,
    batch_sizes: Sequence[int],
    served: Sequence[int],
) -> str:
    """Accuracy in train mode by batch size, and in eval mode afterwards; see ``experiments.train_mode_in_use``."""
    left, right = figure.subplots(1, 2, sharey=True)
    looks = {"shuffled": (BLUE, "o-"), "sorted": (VERMILLION, "s--")}
    place, told = list(batch_sizes).index(batch_size), []
    for order, (color, mark) in looks.items():
        here, after = 100 * data[order]["train_mode"], 100 * data[order]["afterwards"]
        band(left, batch_sizes, here, color=color, label=f"{order} samples", marker=mark[0], ls=mark[1:], ms=4)
        left.plot(batch_size, np.median(here[:, place]), mark[0], color=color, ms=9)
        band(right, np.arange(len(served)), after, color=color, label="_", marker=mark[0], ls=mark[1:], ms=4)
        told.append(
            f"{order} {np.median(here[:, place]):.1f} % ({here[:, place].min():.1f} to {here[:, place].max():.1f}) in "
            f"train mode, at worst {np.median(after, 0).min():.1f} % in eval mode afterwards"
        )
    eval_mode = 100 * np.median(data["shuffled"]["eval_mode"])
    for axes in (left, right):
        axes.axhline(eval_mode, color=GREY, ls=":", lw=1.2, label="eval mode, before" if axes is left else "_")
    left.axvline(batch_size, color=GREY, lw=0.7)
    left.set(xscale="log", ylim=(0, 104), xlabel="batch size", ylabel="right answers (%)", title="in train mode")
    plain_ticks(left.xaxis, batch_sizes)
    right.set(xlabel="batches answered in train mode before", title=f"in eval mode, after batches of {batch_size}")
    right.set_xticks(range(len(served)), [str(number) for number in served], fontsize=8)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return (
        f"The {network} network, asked in batches of {batch_size}: {'; '.join(told)}. In eval mode before: "
        f"{eval_mode:.1f} %. Medians and ranges over five seeds."
    )


_STATISTICS = {
    "running": "running\n(shared)",
    "pooled": "both\ndomains\npooled",
    "own": "each\ndomain's\nown",
    "separate": "own\nfrom the\nstart",
}


def draw_towers(figure: Figure, data: Mapping[str, np.ndarray], domains: str, share: float, batch_size: int) -> str:
    """Test accuracy in both domains with four kinds of statistics; see ``experiments.two_towers``."""
    axes = figure.subplots()
    names = ("digits", {"inverted": "inverted digits", "MNIST": "MNIST"}[domains])
    told = []
    for domain, (name, color, mark) in enumerate(zip(names, (BLUE, VERMILLION), "os", strict=True)):
        for spot, way in enumerate(_STATISTICS):
            if way in data:
                _column(axes, spot + (domain - 0.5) * 0.24, 100 * data[way][:, domain], color, mark)
        axes.plot([], [], mark, color=color, ms=7, label=name)
        if "run" in data:
            run = [100 * data["run"][way][domain] for way in ("running", "pooled", "own")]
            axes.plot(np.arange(3) + (domain - 0.5) * 0.24, run, "_", color=color, ms=18, mew=2)
    for way, title in _STATISTICS.items():
        if way in data:
            values = [f"{np.median(100 * column):.1f}" for column in data[way].T]
            told.append(f"{title.replace(chr(10), ' ')} {' and '.join(values)} %")
    if "separate" not in data:
        axes.text(3, 50, "a batch holds\nboth domains", ha="center", va="center", fontsize=9, color=GREY)
    axes.axhline(10, color=GREY, ls=":", lw=1)
    axes.set_xticks(range(len(_STATISTICS)), _STATISTICS.values())
    axes.set(xlim=(-0.5, 3.5), ylim=(0, 103), ylabel="right answers on the test set (%)", xlabel="statistics in use")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    yours = " Dashes: your run." if "run" in data else ""
    losses = np.median(data["loss"], 0)
    return (
        f"Digits and {names[1]}, {share:.0%} of each batch of {batch_size} from one domain. Training losses of the "
        f"towers: {losses[0]:.3f} and {losses[1]:.3f}. Right answers, {names[0]} and {names[1]}: {'; '.join(told)}. "
        f"Medians and ranges over {len(data['loss'])} seeds.{yours}"
    )


def _column(axes: Axes, spot: float, values: np.ndarray, color: str, mark: str) -> None:
    axes.vlines(spot, values.min(), values.max(), color=color, lw=1.6)
    axes.plot(np.full(len(values), spot), values, ".", color=color, ms=4, alpha=0.7)
    axes.plot(spot, np.median(values), mark, color=color, ms=8)


_JUDGES = {
    "BN, separate batches": ("batch norm", "separate"),
    "BN, mixed batches": ("batch norm", "mixed"),
    "BN, eval mode": ("batch norm", "eval"),
    "BN later, separate batches": ("later batch norm", "separate"),
    "BN later, eval mode": ("later batch norm", "eval"),
    "layer norm": ("layer norm", "eval"),
    "no norm": ("no norm", "eval"),
}
_JUDGE_LOOKS = {"batch norm": (BLUE, "o"), "later batch norm": (PURPLE, "D")}


def draw_discriminator(figure: Figure, data: Mapping, kind: str, batches: str) -> str:
    """Samples as BN passes them on, and how often a discriminator is right; see ``experiments.discriminator``."""
    left, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
    left.plot(*data["real"].T, "o", color=BLUE, ms=2.5, label="real", alpha=0.8)
    left.plot(*data["fake"].T, "x", color=VERMILLION, ms=3.5, label="generated", alpha=0.8)
    left.set(xlim=(-3.4, 3.4), ylim=(-3.4, 3.4), aspect="equal", title="after BN")
    left.set(xlabel="coordinate 1", ylabel="coordinate 2")
    numbers, told = data["numbers"], []
    for row, (name, (norm, mode)) in enumerate(_JUDGES.items()):
        values = 100 * numbers[norm][mode]
        color, mark = _JUDGE_LOOKS.get(norm, (GREEN, "s"))
        right.plot(np.median(values), row, mark, color=color, ms=7)
        right.hlines(row, values.min(), values.max(), color=color, lw=1.6)
        told.append(f"{name} {np.median(values):.0f} %")
    right.axvline(50, color=GREY, ls=":", lw=1)
    right.set_yticks(range(len(_JUDGES)), _JUDGES)
    right.set(
        xlim=(-3, 103), ylim=(len(_JUDGES) - 0.5, -0.5), xlabel="new samples judged rightly (%)", title="asked in"
    )
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2)
    trained = {"separate": "all-real and all-generated batches", "mixed": "mixed batches"}[batches]
    bn = numbers["batch norm"]
    return (
        f"Generated samples {kind}, trained in {trained}. Judged rightly: {', '.join(told)}. BN's loss at the end is "
        f"{np.median(bn['loss']):.3f} (knowing nothing: 0.693); of the gradient that reaches generated samples, "
        f"{100 * np.median(bn['push']):.0f} % is a common shift."
    )


def draw_shifted(
    figure: Figure,
    data: Mapping[str, np.ndarray],
    shift: float,
    share: float,
    *,
    shifts: Sequence[float],
    shares: Sequence[float],
) -> str:
    """Accuracy on shifted data with three kinds of statistics; see ``experiments.shifted_in_use``."""
    left, right = figure.subplots(1, 2, sharey=True)
    looks = {
        "training": ("of the training", BLUE, "o", "-"),
        "half": ("halfway", PURPLE, "D", "-."),
        "new": ("of the new data", VERMILLION, "s", "--"),
        "balanced": ("new, old proportions", GREEN, "^", ":"),
    }
    row, column, told = list(shifts).index(shift), list(shares).index(share), []
    for way, (name, color, mark, line) in looks.items():
        values = 100 * data[way]
        look = {"color": color, "marker": mark, "ls": line, "ms": 4}
        band(left, 100 * np.asarray(shares), values[:, row], label=name, **look)
        band(right, shifts, values[:, :, column], label="_", **look)
        middle = np.median(values[:, row, column])
        left.plot(100 * share, middle, mark, color=color, ms=9)
        right.plot(shift, middle, mark, color=color, ms=9)
        told.append(f"{name} {middle:.1f} %")
    left.set(ylim=(0, 103), xlabel="share of one class (%)", ylabel="right answers (%)")
    left.set_title(f"pictures {shift:g} brighter")
    right.set(xlabel="added to each pixel (0 black, 1 white)", title=f"{share:.0%} of one class")
    right.set_xticks(shifts)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return (
        f"Pictures {shift:g} brighter, {share:.0%} of them of one class. Right answers with statistics "
        f"{', '.join(told)}. Medians and ranges over five seeds."
    )
