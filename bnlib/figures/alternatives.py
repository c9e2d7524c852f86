"""Figures that compare norms: normalisation groups, invariances, and test errors."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from bnlib.experiments.alternatives import contest
from bnlib.figures.methods import method_color
from bnlib.figures.picture import BLUE, GREEN, GREY, PURPLE, VERMILLION, plain_ticks


def draw_normalisation_groups(figure: Figure, data, norm: str, kind: str, batch_size: int) -> str:
    """Draw which weights and values are normalised together; see ``alternatives.normalisation_groups``."""
    weights, forward, backward = figure.subplots(1, 3, width_ratios=(0.55, 1, 1))
    rows, channels, inputs = 3, 8, 5
    positions = 1 if kind == "vectors" else 4
    empty = np.zeros((batch_size, channels, positions), dtype=bool)
    shown = (empty, empty) if data is None else (data.forward, data.backward)
    _cells(weights, np.zeros((channels, inputs, 1), bool) if data is None else data.weights[:, :, None], PURPLE)
    weights.set(title="weights", xlabel="input", ylabel="channel")
    weights.set(xlim=(0, inputs), ylim=(channels + 2.6, 0))
    _box(
        weights,
        channels + 0.9,
        channels + 2.2,
        inputs,
        "norm of x",
        PURPLE if norm == "cosine normalisation" and data else "none",
    )
    for axes, values, title, color in zip(
        (forward, backward), shown, ("forward", "backward"), (BLUE, VERMILLION), strict=True
    ):
        _cells(axes, values, color)
        middle = 0.5 if positions == 1 else 0.26
        axes.plot(middle, middle, "o", color="white", mec=GREY, ms=5)
        axes.set(title=title, xlabel="channel", xlim=(0, channels), ylim=(rows + 1, 0))
        past = data is not None and (data.past_forward if axes is forward else data.past_backward)
        _box(axes, rows + 0.4, rows + 0.9, channels, "earlier batches", color if past else "none")
    forward.set_ylabel("sample")
    for axes in (weights, forward, backward):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return _describe_groups(data, norm, kind, batch_size)


def _box(axes: Axes, top: float, bottom: float, width: float, text: str, fill: str) -> None:
    corners = [[(0, top), (width, top), (width, bottom), (0, bottom)]]
    axes.add_collection(PolyCollection(corners, facecolors=[fill], edgecolors=[GREY], linewidths=0.6))
    color = {} if fill == "none" else {"color": "white"}
    axes.text(width / 2, (top + bottom) / 2, text, ha="center", va="center", fontsize=9, **color)


def _cells(axes: Axes, marked: np.ndarray, color: str) -> None:
    """A grid (rows, columns, positions) of cells, each of one square or four, filled where marked."""
    side = 1 if marked.shape[2] == 1 else 2
    pitch = 0.86 / side
    square = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * (pitch - 0.05 * (side > 1))
    row, column, place = np.indices(marked.shape).reshape(3, -1)
    corners = np.stack([column + 0.07 + place % side * pitch, row + 0.07 + place // side * pitch], 1)
    squares = corners[:, None] + square
    fills = [color if each else "none" for each in marked.ravel()]
    axes.add_collection(PolyCollection(squares, facecolors=fills, edgecolors=[GREY], linewidths=0.5))


def _describe_groups(data, norm: str, kind: str, batch_size: int) -> str:
    samples = "1 sample" if batch_size == 1 else f"{batch_size} samples"
    start = f"{norm}, {kind}, {samples}: "
    if data is None:
        why = (
            "it needs several positions per channel, which vectors do not have"
            if norm == "instance norm"
            else "its paper and bnlib define it for linear layers only"
        )
        return f"{start}does not exist; {why}."
    forward, backward = int(data.forward.sum()), int(data.backward.sum())
    parts = [
        _count("the output of the marked value depends on", "forward", forward, data.past_forward),
        _count("the gradient of its output reaches", "backward", backward, data.past_backward),
    ]
    if data.weights.any():
        parts.append(f"the weights into its channel are normalised together, {int(data.weights.sum())} of them")
    if norm == "cosine normalisation":
        parts.append("the input of the sample is divided by its norm")
    if data.backward.sum() == 0:
        parts.append("so nothing below this layer learns")
    return start + "; ".join(parts) + "."


def _count(what: str, direction: str, count: int, past: bool) -> str:
    nothing = {"forward": "no value at all", "backward": "no value"}[direction]
    values = nothing if count == 0 else "one value, itself" if count == 1 else f"{count} values"
    averages = {
        "forward": " and averages over earlier batches",
        "backward": ", corrected by averages over earlier batches",
    }
    return f"{what} {values}{averages[direction] * past}"


_MARKS = {
    "yes": {"marker": "o", "color": GREEN, "ms": 8},
    "later": {"marker": "o", "color": BLUE, "mfc": "none", "ms": 8},
    "no": {"marker": "x", "color": VERMILLION, "ms": 7},
    "-": {"marker": "_", "color": GREY, "ms": 6},
}


def draw_norm_properties(
    figure: Figure, properties: Mapping[tuple[str, str], Mapping[str, str]], names: Mapping[str, str]
) -> str:
    """Draw a marker for each property of each norm; see ``alternatives.norm_properties.verdicts``.

    Arguments:
        figure: where to draw.
        properties: verdicts by norm and kind of input.
        names: titles of the norms, in the order to show them.
    """
    kinds, told = list(dict.fromkeys(kind for _, kind in properties)), []
    for axes, kind in zip(figure.subplots(1, len(kinds), sharey=True), kinds, strict=True):
        rows = {norm: row for (norm, of), row in properties.items() if of == kind}
        columns = list(next(iter(rows.values())))
        for height, norm in enumerate(names):
            for place, verdict in enumerate(rows.get(norm, {}).values()):
                axes.plot(place, height, ls="", **_MARKS[verdict])
        axes.set(title=kind, xlim=(-0.6, len(columns) - 0.4), ylim=(len(names) - 0.4, -0.6))
        axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names.values())
        for place in (2.5, len(columns) - 1.5):  # between promises, invariances and what the layer learns from
            axes.axvline(place, color=GREY, ls=":", lw=1)
        axes.tick_params(length=0)
        told += [
            f"{names[norm]}, {kind}: {', '.join(name for name, verdict in row.items() if verdict == 'yes')}"
            for norm, row in rows.items()
        ]
    shown = {verdict for row in properties.values() for verdict in row.values()}
    for verdict, label in (("yes", "holds"), ("later", "holds once averages have adapted"), ("no", "fails")):
        if verdict in shown:
            figure.axes[0].plot([], [], ls="", label=label, **_MARKS[verdict])
    figure.legend(loc="outside lower center", ncols=3)
    return f"Properties that hold. {'; '.join(told)}."


def draw_batch_sizes(
    figure: Figure, data: Mapping[str, np.ndarray], budget: str, construction: str, batch_size: int
) -> str:
    """Draw test errors of the main norms, (learning rates, seeds) each; see ``alternatives.contest.lookup``."""
    axes = figure.subplots()
    errors, rates, live = data["errors"], data["rates"], data.get("live", {})
    names = list(contest.MAIN) if not errors else list(errors)
    title = f"{construction}, batch size {batch_size}, {budget}"
    told = []
    for row, name in enumerate(names):
        if name not in errors:
            continue
        table = 100 * np.maximum(errors[name], 1 / 720)  # a logarithmic axis has no 0: half an image of 360
        best = data["best"][name]
        color = method_color(name)
        axes.plot(np.median(table, 1), np.full(len(table), row), "o", color=color, mfc="none", ms=4, lw=0)
        axes.hlines(row, table[best].min(), table[best].max(), color=color, lw=2.5)
        axes.plot(np.median(table[best]), row, "D", color=color, ms=7)
        at_an_end = best in (0, len(table) - 1)
        axes.text(125, row, f"{rates[name][best]:g}{'*' * at_an_end}", va="center", fontsize=9)
        told.append(f"{name} {np.median(100 * errors[name][best]):.1f}")
        if name in live:
            axes.plot(100 * max(live[name], 1 / 720), row, "x", color=color, ms=8)
    axes.axvline(90, color=GREY, ls=":", lw=1)
    axes.text(125, -1.05, "learning rate", va="center", fontsize=9)
    axes.set(xscale="log", xlim=(0.4, 110), ylim=(len(names) - 0.4, -0.6), xlabel="test error (%)")
    axes.set_yticks(range(len(names)), [textwrap.fill(name, 22) for name in names])
    plain_ticks(axes.xaxis, (1, 10, 90))  # more would touch each other
    if not errors:
        axes.text(6, len(names) / 2, f"no class has {batch_size} images", ha="center")
        return f"{title}: there are no such batches, because no class has {batch_size} images."
    seeds = "Bars: ranges over seeds; circles: medians at other learning rates."
    return f"{title}: median test errors in percent at the best learning rate: {', '.join(told)}. {seeds}"
