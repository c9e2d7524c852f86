"""Figures of training on many machines: a unit's inputs on each worker, and test errors by method and local steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bnlib.figures.methods import method_color
from bnlib.figures.picture import BLUE, GREY, VERMILLION, plain_ticks

# A square: no statistics, or those of one worker. A diamond: statistics that all workers share.
_MARKS = {
    "without normalisation": "s",
    "layer norm": "s",
    "local BN": "s",
    "SyncBN": "D",
    "local FN": "s",
    "shared FN": "D",
}
_EVALUATIONS = {
    "train_mode": "train mode,\nlocal training batches",
    "local_test": "local statistics,\nlocal test samples",
    "worker_0": "statistics of\nworker 0",
    "averaged": "averaged",
    "pooled": "pooled",
    "recomputed": "recomputed from\nall data",
}
# BN and its variants share a colour: marks and dashes tell them apart. An open mark: the worker's own test images.
_LOOKS: dict[str, dict[str, Any]] = {
    "BN": {"marker": "o", "ls": "-"},
    "BN, recomputed": {"marker": "v", "ls": ":"},
    "FixBN": {"marker": "D", "ls": "--"},
    "group norm": {"marker": "s", "ls": "-"},
    "layer norm": {"marker": "^", "ls": ":"},
    "without normalisation": {"marker": "s", "ls": "-"},
    "FedBN": {"marker": "X", "ls": ""},
    "FedBN, own images": {"marker": "o", "ls": "-.", "mfc": "none"},
}
_LEAST = 0.4
"""Per cent; smaller errors are drawn here, because the axis is logarithmic."""
_WORDS = {"labels": "label skew", "images": "image skew"}


def draw_local_statistics(figure: Figure, data, workers: int, skew: float) -> str:
    """Draw a unit's values on each worker, normalised globally and locally; see ``machines.local_statistics``."""
    edges = np.linspace(-3.2, 3.2, 25)
    middle = (edges[1:] + edges[:-1]) / 2
    titles = ("statistics of all data", "statistics of each worker")
    for axes, values, title in zip(
        figure.subplots(1, 2, sharey=True), (data.global_norm, data.local_norm), titles, strict=True
    ):
        for number, each in enumerate(values.numpy()):
            ends = {0: (BLUE, "worker 0"), len(values) - 1: (VERMILLION, "last worker")}
            color, label = ends.get(number, (GREY, "other workers" if number == 1 else None))
            height = np.histogram(each.clip(-3.1, 3.1), edges, density=True)[0]
            front = number in ends
            axes.plot(middle, height, color=color, lw=1.6 if front else 0.7, label=label, zorder=2 + front)
            axes.plot(each.mean(), -0.05, "|", color=color, ms=9, mew=1.6, zorder=2 + front)
        axes.set(xlim=(-3.2, 3.2), ylim=(-0.1, 1.25), title=title, xlabel="normalised value of the unit (ticks: means)")
    figure.axes[0].set_ylabel("density")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return (
        f"{workers} workers, skew {skew:g}: {100 * data.share:.1f} % of this unit's variance lies between workers, "
        f"and local normalisation removes it. Mean over the 100 units of the layer {100 * data.shares.mean():.1f} %; "
        f"predicted from the share at skew 1 times skew squared: {100 * data.predicted.mean():.1f} %."
    )


def draw_label_skew(figure: Figure, data: Mapping[str, Mapping], workers: int, skew: float) -> str:
    """Draw test errors by method, and those of local BN by evaluation; see ``machines.label_skew.lookup``."""
    left, right = figure.subplots(1, 2)
    methods = list(_MARKS)
    rows = [(left, place, method, "worker_0") for place, method in enumerate(methods)]
    rows += [(right, place, "local BN", evaluation) for place, evaluation in enumerate(_EVALUATIONS)]
    for axes, place, method, evaluation in rows:
        values = _sorted_percent(data[method][evaluation])
        color = method_color(method)
        axes.plot(values[[0, -1]], [place, place], color=color, lw=1.5)
        axes.plot(np.median(values), place, _MARKS[method], color=color, ms=7)
        if f"{method}, your run" in data:
            axes.plot(_sorted_percent(data[f"{method}, your run"][evaluation]), [place], "x", color=color, ms=9, mew=2)
    left.set_yticks(range(len(methods)), methods)
    right.set_yticks(range(len(_EVALUATIONS)), _EVALUATIONS.values(), fontsize=9)
    for axes, title in ((left, "statistics of worker 0"), (right, "local BN, by evaluation")):
        axes.set(xscale="log", xlim=(0.4, 110), xlabel="error (%)", title=title)
        axes.invert_yaxis()
        plain_ticks(axes.xaxis, (1, 3, 10, 30, 100))
    told = [f"{method} {100 * np.median(data[method]['worker_0']):.1f}" for method in methods]
    local, recomputed = (100 * np.median(data["local BN"][name]) for name in ("local_test", "recomputed"))
    live = ". Crosses: your run" if any("your run" in name for name in data) else ""
    return (
        f"{workers} workers, skew {skew:g}. Median test errors in per cent with the statistics of worker 0: "
        f"{', '.join(told)}. Local BN with recomputed statistics {recomputed:.1f}; with each worker's statistics on "
        f"test samples like its own {local:.1f}. Bars: ranges over three seeds{live}."
    )


def draw_local_steps(
    figure: Figure, data: Mapping[str, Mapping[int, np.ndarray]], kind: str, skew: float, local_steps: int
) -> str:
    """Draw the errors by arm for one number of local steps, and by local steps; see ``machines.local_steps.lookup``."""
    left, right = figure.subplots(1, 2)
    for place, (arm, look) in enumerate(_LOOKS.items()):
        color = method_color(arm)
        chosen = np.sort(data[arm][local_steps]).clip(_LEAST)
        left.plot(chosen[[0, -1]], [place, place], color=color, lw=1.5)
        left.plot(np.median(chosen), place, color=color, ms=7, **{**look, "ls": ""})
        if f"{arm}, your run" in data:
            left.plot(data[f"{arm}, your run"][local_steps].clip(_LEAST), [place], "x", color=color, ms=9, mew=2)
        if look["ls"]:
            medians = [np.median(errors).clip(_LEAST) for errors in data[arm].values()]
            right.plot(list(data[arm]), medians, color=color, lw=1.5, ms=6, label=arm, **look)
    right.axvline(local_steps, color=GREY, ls=":", lw=1)
    steps = f"{local_steps} local step{'s' * (local_steps > 1)}"
    left.set(xscale="log", xlim=(0.35, 110), xlabel="test error (%)", title=steps)
    left.set_yticks(range(len(_LOOKS)), list(_LOOKS))
    left.invert_yaxis()
    right.set(xscale="log", yscale="log", ylim=(0.35, 110), title="medians", xlabel="local steps between averages")
    right.set_ylabel("test error (%)")
    plain_ticks(right.xaxis, list(data["BN"]))
    for axis in (left.xaxis, right.yaxis):
        plain_ticks(axis, (1, 3, 10, 30, 100))
    figure.legend(loc="outside lower center", ncols=4)
    told = [f"{arm} {np.median(data[arm][local_steps]):.1f}" for arm in _LOOKS]
    live = ". Crosses: your run" if any("your run" in name for name in data) else ""
    return f"{_WORDS[kind]} {skew:g}, {steps}. Median test errors in per cent: {', '.join(told)}{live}."


def _sorted_percent(values) -> np.ndarray:
    """Sort errors and convert them to per cent; an error of 0 is drawn at the left end of the logarithmic axis."""
    return np.sort(100 * np.asarray(values, float)).clip(0.5)
