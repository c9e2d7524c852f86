"""Figures of training on many machines: what a unit sees on each, and the errors of what they train together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from bnlib.figures.picture import BLUE, GREEN, GREY, PURPLE, VERMILLION, plain_ticks

_COLORS = {
    "no norm": GREY,
    "layer norm": GREY,
    "local BN": BLUE,
    "SyncBN": VERMILLION,
    "local FN": PURPLE,
    "shared FN": GREEN,
}
_WAYS = {
    "objective": "train mode,\nown batches",
    "own": "own statistics,\nown test samples",
    "first": "statistics of\nworker 0",
    "averaged": "averaged",
    "pooled": "pooled",
    "recomputed": "recomputed from\nall data",
}


def draw_local_statistics(figure: Figure, data, workers: int, skew: float) -> str:
    """One unit's values on each worker, normalised with common and with own statistics; ``local_statistics.View``."""
    edges = np.linspace(-3.2, 3.2, 25)
    middle = (edges[1:] + edges[:-1]) / 2
    titles = ("with the statistics of all data", "each worker with its own")
    for axes, values, title in zip(
        figure.subplots(1, 2, sharey=True), (data.raw, data.normalised), titles, strict=True
    ):
        for number, each in enumerate(values.numpy()):
            ends = {0: (BLUE, "worker 0"), len(values) - 1: (VERMILLION, "last worker")}
            color, label = ends.get(number, (GREY, "others" if number == 1 else None))
            height = np.histogram(each.clip(-3.1, 3.1), edges, density=True)[0]
            front = number in ends
            axes.plot(middle, height, color=color, lw=1.6 if front else 0.7, label=label, zorder=2 + front)
            axes.plot(each.mean(), -0.05, "|", color=color, ms=9, mew=1.6, zorder=2 + front)
        axes.set(xlim=(-3.2, 3.2), ylim=(-0.1, 1.25), title=title, xlabel="unit, normalised (ticks: means)")
    figure.axes[0].set_ylabel("density")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return (
        f"{workers} workers, skew {skew:g}: {100 * data.share:.1f} % of this unit's variance lies between the workers, "
        f"and local normalisation removes it. Mean over the 100 units of the layer {100 * data.shares.mean():.1f} %; "
        f"skew squared times the share at skew 1 is {100 * data.predicted.mean():.1f} %."
    )


def draw_many_machines(figure: Figure, data: Mapping[str, Mapping], workers: int, skew: float) -> str:
    """Test errors by method, and those of local BN by the statistics used; ``experiments.many_machines.lookup``."""
    left, right = figure.subplots(1, 2)
    methods = list(_COLORS)
    rows = [(left, place, method, "first") for place, method in enumerate(methods)]
    rows += [(right, place, "local BN", way) for place, way in enumerate(_WAYS)]
    for axes, place, method, way in rows:
        values = _shown(data[method][way])
        axes.plot(values[[0, -1]], [place, place], color=_COLORS[method], lw=1.5)
        axes.plot(np.median(values), place, "s", color=_COLORS[method], ms=7)
        if f"{method}, your run" in data:
            axes.plot(_shown(data[f"{method}, your run"][way]), [place], "x", color="#C51B7D", ms=8, mew=2)
    left.set_yticks(range(len(methods)), methods)
    right.set_yticks(range(len(_WAYS)), _WAYS.values(), fontsize=7.5)
    for axes, title in ((left, "as worker 0 would save it"), (right, "local BN, by statistics")):
        axes.set(xscale="log", xlim=(0.4, 110), xlabel="errors (%)", title=title)
        axes.invert_yaxis()
        plain_ticks(axes.xaxis, (1, 3, 10, 30, 100))
    told = [f"{method} {100 * np.median(data[method]['first']):.1f}" for method in methods]
    ways = [100 * np.median(data["local BN"][way]) for way in ("own", "recomputed")]
    live = ". Crosses: your run" if any("your run" in name for name in data) else ""
    return (
        f"{workers} workers, skew {skew:g}. Median test errors in per cent with the statistics of worker 0: "
        f"{', '.join(told)}. Local BN with recomputed statistics {ways[1]:.1f}, and where each worker uses its own on "
        f"test samples like its own {ways[0]:.1f}. Bars: range over three seeds{live}."
    )


def _shown(values) -> np.ndarray:
    """Sorted, in per cent; on a logarithmic axis no error is drawn at its left end."""
    return np.sort(100 * np.asarray(values, float)).clip(0.5)
