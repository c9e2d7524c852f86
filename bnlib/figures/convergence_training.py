"""Figures of chapter 12 about trainings with Full Normalization: bias, rates that train, and causes of failures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bnlib.experiments.convergence.stability_map import TOY_BORDER
from bnlib.figures.picture import BLUE, GREEN, GREY, VERMILLION, band, plain_ticks

_RATE_STYLES = ((BLUE, "o", "-"), (VERMILLION, "s", "--"))


def draw_bias(figure: Figure, cells: Mapping[tuple, Mapping[str, np.ndarray]], first: int = 5) -> str:
    """Draw the bias of a gradient and its component along the true gradient, by the floor of alpha.

    Arguments:
        figure: where to draw.
        cells: from ``experiments.convergence.adjoint_errors.load``, by learning rate and floor.
        first: number of the first comparison of each training that counts.

    Returns:
        a description of the figure.
    """
    ratio, component = figure.subplots(1, 2)
    told, rates = [], sorted({lr for lr, _ in cells})
    for lr, (color, mark, dash) in zip(rates, _RATE_STYLES, strict=True):
        floors = sorted(floor for rate, floor in cells if rate == lr)
        later = [{name: each[:, first:] for name, each in cells[lr, floor].items()} for floor in floors]
        biases = np.stack([np.median(each["bias"] / each["gradient"], 1) for each in later], 1)
        along = np.stack([each["along"].mean(1) for each in later], 1)
        style = {"color": color, "marker": mark, "ms": 4, "label": f"rate {lr:g}"}
        band(ratio, floors, biases, ls=dash, **style)
        component.plot(floors, along.mean(0), ls=dash, **style)
        component.plot(floors, along.T, mark, color=color, ms=3, alpha=0.4, ls="none")
        told.append(
            f"rate {lr:g}: bias over gradient {_by_floor(np.median(biases, 0), floors)}; component along the gradient "
            f"{_by_floor(along.mean(0), floors)}"
        )
    for axes, title in ((ratio, "bias / gradient"), (component, "component along the gradient")):
        axes.set(xscale="log", xlabel="floor of α", title=title)
        axes.axhline(1, color=GREY, lw=0.8)
        plain_ticks(axes.xaxis, floors)
    ratio.set(yscale="log", ylim=(0.5, 30))
    plain_ticks(ratio.yaxis, [1, 3, 10, 30])
    component.set(ylim=(min(0, component.get_ylim()[0]), None))
    figure.legend(*ratio.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return f"In the later part of a training: {'; '.join(told)}."


def _by_floor(values: np.ndarray, floors: list[float]) -> str:
    return ", ".join(f"{value:.2g} at {floor:g}" for value, floor in zip(values, floors, strict=True))


_NETWORK_STYLES = {"convolutional": (BLUE, "o", -0.17), "fully connected": (VERMILLION, "s", 0.17)}
_ARMS = {
    "BN": "BN",
    "FN": "default, floor 0.03",
    "FN, exact statistics": "exact statistics",
    "FN, exact adjoints": "exact adjoints",
    "FN, both exact": "both exact",
    "FN, both exact at first": "both exact at first",
    "FN, floor 0.01": "floor 0.01",
    "FN, floor 0.1": "floor 0.1",
    "FN, floor 0.3": "floor 0.3",
    "FN, warm-up": "warm-up",
    "FN, falling rate": "falling rate",
    "FN, still at the end": "still at the end",
    "FN, four times the steps": "four times the steps",
    "BN, batches of 16": "BN, batches of 16",
    "FN, batches of 16": "batches of 16",
}
_GROUPS = [list(_ARMS)[start:end] for start, end in ((0, 2), (2, 6), (6, 9), (9, 13), (13, 15))]


def draw_causes_of_failures(figure: Figure, results: Mapping[tuple[str, str], Mapping[str, np.ndarray]]) -> str:
    """Draw the test error at the end of trainings that differ in one thing, a row for each that ``results`` has.

    Arguments:
        figure: where to draw.
        results: from ``experiments.convergence.causes_of_failures.load``, by network and arm.

    Returns:
        a description of the figure.
    """
    axes, told = figure.subplots(), []
    groups = [[arm for arm in group if any(arm == name for _, name in results)] for group in _GROUPS]
    # A row of space above each group.
    space = {arm: 0.6 * number for number, group in enumerate(filter(None, groups), 1) for arm in group}
    places = {arm: row + above for row, (arm, above) in enumerate(space.items())}
    for network, (color, mark, shift) in _NETWORK_STYLES.items():
        for arm, place in places.items():
            if (network, arm) in results:
                found = _draw_errors(axes, results[network, arm], place + shift, color, mark)
                told.append(f"{network}, {_ARMS[arm]}: {found}")
        axes.plot([], [], mark, color=color, ls="none", label=f"{network}, running statistics")
        axes.plot([], [], mark, color=color, mfc="none", ls="none", label=f"{network}, exact at the end")
    axes.set_yticks(list(places.values()), [_ARMS[arm] for arm in places], fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.set(xscale="log", xlim=(0.2, 110), xlabel="test error (%)", ylim=(max(places.values()) + 0.7, 0))
    plain_ticks(axes.xaxis, (0.3, 1, 3, 10, 30, 100))
    axes.grid(axis="x", color=GREY, alpha=0.25, lw=0.6)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return f"Test error (%) with the running statistics, and with exact ones: {'; '.join(told)}."


def _draw_errors(axes: Axes, values: Mapping[str, np.ndarray], place: float, color: str, mark: str) -> str:
    """Draw medians and ranges of the errors (%), and return the medians."""
    medians = []
    for name, fill, width in (("test_error", color, 1.4), ("test_error_exact", "none", 0.8)):
        errors = 100 * values[name]
        if not np.isnan(errors).all():
            low, middle, high = errors.min(), np.median(errors), errors.max()
            axes.plot([low, high], [place, place], color=color, lw=width, alpha=0.7)
            axes.plot(middle, place, mark, color=color, mfc=fill, ms=5, ls="none")
            medians.append(f"{middle:.1f}")
    return " and ".join(medians)


def draw_stability_map(figure: Figure, data: Mapping[str, Any], optimiser: str, depth: int, batch_size: int) -> str:
    """Draw test errors by learning rate and alpha, with BN below, and the border of the toy problem.

    Arguments:
        figure: where to draw.
        data: from ``experiments.convergence.stability_map.lookup``.
        optimiser, depth, batch_size: as there.

    Returns:
        a description of the figure.
    """
    axes, rates, floors = figure.subplots(), data["rates"], data["floors"]
    errors = 100 * np.vstack((data["BN"], data["FN"]))
    axes.imshow(errors, origin="lower", cmap="cividis_r", vmin=0, vmax=90, aspect="auto")
    for row, column in np.ndindex(*errors.shape):
        if row and data["trains"][row - 1, column] == 1:
            frame = Rectangle((column - 0.44, row - 0.42), 0.88, 0.84, fill=False, edgecolor=GREEN, lw=2)
            axes.add_patch(frame)
        axes.text(
            column,
            row,
            f"{errors[row, column]:.0f}",
            ha="center",
            va="center",
            fontsize=9,
            color="white" if errors[row, column] > 40 else "black",
        )
    places = np.interp(np.log(data["borders"]), np.log(rates), np.arange(len(rates)), left=-0.5, right=len(rates) - 0.5)
    axes.step(
        places,
        np.arange(len(floors)) + 0.5,
        where="post",
        color=VERMILLION,
        lw=2,
        label=f"η = {TOY_BORDER:.2g} α (1 − m), the toy problem",
    )
    axes.plot([places[-1]] * 2, [len(floors) - 0.5, len(floors) + 0.5], color=VERMILLION, lw=2)
    axes.plot([], [], "s", mfc="none", mec=GREEN, mew=2, label="at most 3 points above BN")
    axes.set_xticks(range(len(rates)), [f"{lr:g}" for lr in rates])
    axes.set_yticks(range(len(floors) + 1), ["BN", *(f"{floor:g}" for floor in floors)])
    axes.set(xlabel="learning rate", ylabel="floor of α")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    rates_of = ("none" if math.isnan(rate) else f"{rate:g}" for rate in data["largest"])
    largest = ", ".join(f"{rate} at {floor:g}" for floor, rate in zip(floors, rates_of, strict=True))
    depths = f"{depth} normalised layer{'s' * (depth > 1)}"
    return f"{optimiser}, {depths}, batch size {batch_size}: largest rate that trains, by floor of α: {largest}."
