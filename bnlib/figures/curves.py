"""Training curves over epochs, shared by several chapters, and descriptions of the final test errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnlib.experiments.framework.results import as_array
from bnlib.figures.picture import BLUE, GREEN, GREY, PURPLE, VERMILLION, band, plain_ticks

NORM_STYLES = {
    "batch norm": (BLUE, "-"),
    "without normalisation": (VERMILLION, "--"),
    "FN, same batch": (VERMILLION, "--"),
    "FN, running": (GREEN, "-."),
}
"""Colour and dashes of a norm. An oracle of Full Normalization has its colour in every figure of chapter 5."""


def draw_loss_and_error(figure: Figure, data: dict[str, dict]) -> tuple[Axes, Axes]:
    """Draw training loss on the left and test error on the right, a line and a band per entry of ``data``.

    A name that ends in ", your run" is drawn in the style of its norm, with dots.
    """
    left, right = figure.subplots(1, 2)
    for name, curve in data.items():
        norm, live, _ = name.partition(", your run")
        color, dash = NORM_STYLES[norm]
        line = {"color": color, "ls": dash, "label": name}
        if live:
            line.update(marker="o", ms=3, lw=1, ls=":")
        band(left, curve["epoch"], as_array(curve["train_loss"]), **line)
        band(right, curve["epoch"], 100 * as_array(curve["test_error"]), **line)
    left.set(ylim=(3e-3, 20), yscale="log", xlabel="epoch", ylabel="training loss (nats)")
    plain_ticks(left.yaxis, (0.01, 0.1, 1, 10))
    right.set(ylim=(0, 100), xlabel="epoch", ylabel="test error (%)")
    return left, right


def describe_errors(data: dict[str, dict]) -> str:
    """Describe the final test error of each entry of ``data`` in one line."""
    return "; ".join(f"{name}: {describe_error(curve)}" for name, curve in data.items())


_LINE_STYLES = [(color, dash) for dash in ("-", "--") for color in (BLUE, VERMILLION, GREEN, PURPLE)] + [(GREY, ":")]
_CURVE_LABELS = {
    "train_loss": "training loss (nats)",
    "train_error": "training error (%)",
    "test_loss": "test loss (nats)",
    "test_error": "test error (%)",
}


def draw_curves(
    figure: Figure,
    panels: dict[str, dict[str, dict]],
    curves: Sequence[str],
    styles: Mapping[str, tuple[str, str]] | None = None,
) -> str:
    """Draw the curves of an experiment over epochs: a row per panel, a column per curve, a line and a band per norm.

    Arguments:
        figure: where to draw.
        panels: cells of a result (``Experiment.panels``) by panel title and by norm; at most nine norms.
        curves: names of curves of ``training.History``, one or more.
        styles: colour and dashes by norm; None for the book's colours in the order of the norms.

    Raises:
        ValueError: more than nine norms.
    """
    names = list(dict.fromkeys(name for norms in panels.values() for name in norms))
    styles = dict(zip(names, _LINE_STYLES, strict=False)) if styles is None else styles
    if len(styles) < len(names):
        raise ValueError(
            f"panels must have at most {len(_LINE_STYLES)} norms, one per line style, got {len(names)}: draw fewer"
        )
    grid = figure.subplots(len(panels), len(curves), squeeze=False, sharex=True, sharey="col")
    for row, (title, norms) in zip(grid, panels.items(), strict=True):
        for axes, curve in zip(row, curves, strict=True):
            is_error = curve.endswith("error")
            for name, cell in norms.items():
                color, dash = styles[name]
                values = as_array(cell[curve]) * (100 if is_error else 1)
                band(axes, cell["epoch"], values, color=color, label=name, ls=dash, lw=1.4)
            axes.set(ylabel=_CURVE_LABELS[curve], title=title if curve == curves[0] else "")
            axes.set(ylim=(0, 100)) if is_error else axes.set(yscale="log")
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    # A norm may be missing in some panels.
    handles = {line.get_label(): line for axes in grid[:, 0] for line in axes.lines}
    columns = 2 if sum(map(len, names)) > 80 else min(4, len(names))  # long names would be cut off
    figure.legend([handles[name] for name in names], names, loc="outside lower center", ncols=columns)
    cells = {f"{title}, {name}".strip(", "): cell for title, norms in panels.items() for name, cell in norms.items()}
    return describe_errors(cells) + "."


def final_errors_in_percent(curve: dict) -> np.ndarray:
    """Return the last test error of each run in %, also of runs that ended early because they diverged."""
    return 100 * np.array([run[-1] for run in curve["test_error"]])


def describe_error(curve: dict) -> str:
    """Describe the final test error: its median and range over seeds."""
    last = final_errors_in_percent(curve)
    if len(last) == 1:
        return f"test error {last[0]:.1f} %"
    return f"median test error {np.median(last):.1f} % ({last.min():.1f} to {last.max():.1f} over {len(last)} seeds)"
