"""Figures of chapter 5: paths of a parameter and bias by oracle, and trainings with Full Normalization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from bnlib.figures.curves import NORM_STYLES, describe_errors, draw_curves, draw_loss_and_error
from bnlib.figures.picture import BLUE, GREEN, GREY, PURPLE, VERMILLION, plain_ticks

ORACLE_COLORS = {
    "batch": VERMILLION,
    "literal": PURPLE,
    "constant": GREY,
    "leave_one_out": BLUE,
    "running": GREEN,
    "same": VERMILLION,
    "independent": BLUE,
}
"""The colour of an oracle in chapters 5 and 11; ``"same"`` and ``"independent"`` are names of ``mcsgd``."""


_LIMITS = (-1.6, 1.6)


def draw_mcsgd_paths(figure: Figure, data, oracle: str, alpha: str, lr: float, optimum: float, biased: float) -> str:
    """Draw the paths of one parameter under Algorithm 2.

    Arguments:
        figure: where to draw.
        data: ``Paths`` of ``experiments.full_normalization.mcsgd_paths``.
        oracle, alpha, lr: of the runs.
        optimum: the best parameter.
        biased: the parameter where the mean gradient of the oracle "same" is 0.

    Returns:
        a description of the figure.
    """
    axes, (low, high) = figure.subplots(), _LIMITS
    middle, inside = np.median(data.values, 0), np.clip(data.values, 2 * low, 2 * high)
    axes.fill_between(data.steps, inside.min(0), inside.max(0), color=BLUE, alpha=0.25, linewidth=0)
    axes.plot(data.steps, np.clip(middle, 2 * low, 2 * high), color=BLUE, label=f"w, median of {len(inside)} runs")
    axes.axhline(optimum, color=VERMILLION, ls="--", lw=1.2, label="best w")
    axes.axhline(biased, color=GREY, ls=":", lw=1.2, label="zero of the biased gradient")
    axes.set(xlim=(0, data.steps[-1]), ylim=_LIMITS, xlabel="step k", ylabel="parameter w")
    axes.legend(loc="lower right", ncols=3, fontsize=8)
    late = np.median(middle[-len(middle) // 4 :])
    outside = int((np.abs(data.values[:, -1]) > high).sum())
    text = f"Oracle {oracle}, α = {alpha}, learning rate {lr:g}: the median of w ends near {late:.2f}; the best is "
    return text + f"{optimum:.2f}. At the end {outside} of {len(inside)} runs lie outside the figure."


_ORACLE_MARKS = {"batch": "s--", "literal": "v:", "constant": "x:", "leave_one_out": "^-.", "running": "D-"}


def draw_oracle_bias(figure: Figure, cells: Mapping[tuple, Mapping]) -> str:
    """Draw the bias of each oracle's gradient against the batch size, one panel per depth; return a description.

    ``cells`` is the result of ``experiments.full_normalization.oracle_bias``.
    """
    told = []
    depths = sorted({depth for depth, _, _ in cells})
    for axes, depth in zip(figure.subplots(1, len(depths), sharey=True), depths, strict=True):
        for shift, (oracle, mark) in zip(np.linspace(-0.08, 0.08, 5), _ORACLE_MARKS.items(), strict=True):
            color = ORACLE_COLORS[oracle]
            sizes = [b for d, name, b in cells if (d, name) == (depth, oracle)]
            bias = np.array([cells[depth, oracle, b]["bias"] for b in sizes])
            middle = np.median(bias, 1)
            reach = np.abs(np.stack([bias.min(1), bias.max(1)]) - middle)
            axes.errorbar(np.array(sizes) + shift, middle, reach, fmt=mark, color=color, ms=5, lw=1.2, label=oracle)
            told.append(f"{oracle}, {depth}: {', '.join(f'{value:.2g}' for value in middle)}")
        axes.set(xticks=[1, 2, 3], xlabel="batch size", ylim=(-0.1, 3.6))
        axes.set_title(f"{depth} normalised layer{'s' * (depth > 1)}")
    figure.axes[0].set_ylabel("bias / norm of the gradient")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return f"Median bias by oracle and number of layers, at batch sizes from 1 or 2 to 3: {'; '.join(told)}."


_LIAN_STYLES = {
    "BN": NORM_STYLES["batch norm"],
    "FN, same batch": (ORACLE_COLORS["batch"], "--"),
    "FN, literal": (ORACLE_COLORS["literal"], ":"),
    "FN, running": (ORACLE_COLORS["running"], "-."),
    "FN, default": (ORACLE_COLORS["running"], "-"),  # the same oracle with another alpha
}


def draw_lian_figures(figure: Figure, panels: dict[str, dict[str, dict]], curves: Sequence[str]) -> str:
    """Draw ``draw_curves`` of BN and of Full Normalization, each oracle in its own colour; return a description."""
    return draw_curves(figure, panels, curves, _LIAN_STYLES)


def draw_labels_per_batch(figure: Figure, data: dict[str, dict], labels: int, batch_size: int, lr: float) -> str:
    """Draw training loss and test error with few labels per batch; return a description.

    ``data`` is from ``experiments.full_normalization.labels_per_batch.lookup``.
    """
    left, right = draw_loss_and_error(figure, data)
    for axes in (left, right):
        axes.set_xlim(0, max(max(curve["epoch"]) for curve in data.values()))
    handles = {name: line for line, name in zip(*left.get_legend_handles_labels(), strict=True)}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3)
    number = "label" if labels == 1 else "labels"
    return (
        f"At most {labels} {number} in a batch, batch size {batch_size}, learning rate {lr:g}, at the end: "
        f"{describe_errors(data)}."
    )


def draw_errors_by_alpha(figure: Figure, data: dict[str, np.ndarray], alpha: str, construction: str, lr: float) -> str:
    """Draw test error against batch size; ``data`` has an array (batch sizes, seeds) for each norm.

    See ``experiments.full_normalization.oracles_on_digits.lookup``.
    """
    axes, told = figure.subplots(), []
    sizes = data["batch sizes"]
    for norm, (color, mark) in {"batch norm": (BLUE, "s-"), "Full Normalization": (GREEN, "D-.")}.items():
        errors = 100 * data[norm]
        middle = np.median(errors, 1)
        reach = np.abs(np.stack([errors.min(1), errors.max(1)]) - middle)
        axes.errorbar(sizes, middle, reach, fmt=mark, color=color, ms=6, lw=1.4, label=norm)
        told.append(f"{norm} {', '.join(f'{value:.1f}' for value in middle)}")
    axes.set(xscale="log", yscale="log", ylim=(1, 120), xlabel="batch size", ylabel="test error (%)")
    plain_ticks(axes.xaxis, sizes)
    plain_ticks(axes.yaxis, (1, 3, 10, 30, 90))
    axes.legend(loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.18))
    return (
        f"Batches {construction}, α with {alpha}, learning rate {lr:g}: median test errors in percent at batch sizes "
        f"{', '.join(map(str, sizes))}: {'; '.join(told)}. Bars: range over three seeds."
    )
