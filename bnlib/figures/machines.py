"""Figures of training on many machines: a unit's inputs on each worker, and test errors by method and local steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bnlib.figures.methods import method_color
from bnlib.figures.picture import BLUE, GREEN, GREY, PURPLE, VERMILLION, plain_ticks

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
_BY_LOCAL_STEPS = ((GREY, ":"), (GREEN, "--"), (BLUE, "-"), (PURPLE, "-."))
_LEAST = 0.4
"""Per cent; smaller errors are drawn here, because the axis is logarithmic."""
_WORDS = {"labels": "label skew", "images": "image skew"}


def draw_batches_of_workers(figure: Figure, batches: Mapping[str, np.ndarray]) -> str:
    """Draw the images of one step, a row per worker, with a frame around what local BN and SyncBN normalise together.

    Arguments:
        figure: an empty figure.
        batches: "worker number" -> images (N, 8, 8), values 0 to 1.
    """
    rows = np.stack(list(batches.values()))
    workers, size = rows.shape[:2]
    padded = np.pad(rows, ((0, 0), (0, 0), (2, 2), (1, 1)), constant_values=np.nan)
    picture = np.concatenate([np.concatenate(row, axis=1) for row in padded], axis=0)
    frames = {"local BN": [(12 * worker, 12) for worker in range(workers)], "SyncBN": [(0, 12 * workers)]}
    for axes, (method, places) in zip(figure.subplots(1, 2), frames.items(), strict=True):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="none")
        for top, height in places:
            axes.add_patch(
                Rectangle(
                    (-0.8, top + 0.3), 10 * size + 0.6, height - 1.6, fill=False, edgecolor=method_color(method), lw=2
                )
            )
        axes.set_yticks([12 * worker + 5.5 for worker in range(workers)], list(batches))
        axes.set(xticks=[], xlim=(-1.5, 10 * size + 0.5), ylim=(12 * workers - 0.5, -0.9))
        count = f"{len(places)} batches" if len(places) > 1 else "one batch"
        axes.set_title(f"{method}: {count}")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return (
        f"The images of one step, {size} for each of {workers} workers: each row shows few digits, "
        "all rows together show more. Local BN normalises each row by itself, SyncBN all rows together."
    )


def draw_averaging_paths(figure: Figure, data) -> str:
    """Draw weights of workers between averages, and their distance from the average; see ``averaging_paths``."""
    left, right = figure.subplots(1, 2)
    for number, each in enumerate(data.workers.numpy()):
        for worker in range(each.shape[1]):
            label = "weights of one worker" if number == worker == 0 else None
            left.plot(*each[:, worker].T, color=GREY, lw=1, marker=".", ms=2.5, label=label)
    left.plot(*data.averages.numpy().T, "D-", color=VERMILLION, ms=6, lw=1.5, label="average of all workers", zorder=3)
    left.set(xlabel="first principal component", ylabel="second component", title="three rounds of 16 local steps")
    for (steps, distance), (color, ls) in zip(data.distances.items(), _BY_LOCAL_STEPS, strict=True):
        name = f"{steps} local step{'s' * (steps > 1)}"
        right.plot(range(1, len(distance) + 1), distance.numpy(), ls, color=color, lw=1.6, label=name)
    right.set(xlabel="step", ylabel="distance / norm of weights", title="distance from the average")
    right.set_ylim(bottom=0)
    right.set_xticks(range(0, 65, 16))
    figure.legend(loc="outside lower center", ncols=3)
    ends = ", ".join(f"{steps}: {float(distance.max()):.2f}" for steps, distance in data.distances.items())
    return (
        "Five paths leave a common point in different directions. After 16 steps, the next round starts from the "
        "average of the five workers. In this plane, the average is close to the start of the round before. Three "
        "rounds are shown. Largest distance of the workers "
        f"from their average, as a share of the norm of the weights, by local steps: {ends}."
    )


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
