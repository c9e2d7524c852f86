"""Training curves over epochs, which several chapters draw, and the errors at their ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnlib.experiments.framework.results import as_array
from bnlib.figures.picture import BLUE, GREEN, GREY, PURPLE, VERMILLION, band, plain_ticks

_LOOKS = {
    "batch norm": (BLUE, "-"),
    "without normalisation": (VERMILLION, "--"),
    "FN, same batch": (VERMILLION, "--"),
    "FN, running": (GREEN, "-."),
}


def loss_and_error(figure: Figure, data: dict[str, dict]) -> tuple[Axes, Axes]:
    """Draw training loss on the left and test error on the right, a line and a band for each entry of ``data``."""
    left, right = figure.subplots(1, 2)
    for name, curve in data.items():
        norm, live, _ = name.partition(", your run")
        color, dash = _LOOKS[norm]
        line = {"color": color, "ls": dash, "label": name}
        if live:
            line.update(marker="o", ms=3, lw=1, ls=":")
        band(left, curve["epoch"], as_array(curve["train_loss"]), **line)
        band(right, curve["epoch"], 100 * as_array(curve["test_error"]), **line)
    left.set(ylim=(3e-3, 20), yscale="log", xlabel="epoch", ylabel="training loss (nats)")
    plain_ticks(left.yaxis, (0.01, 0.1, 1, 10))
    right.set(ylim=(0, 100), xlabel="epoch", ylabel="test error (%)")
    return left, right


def ends(data: dict[str, dict]) -> str:
    """Write the last test error of each entry of ``data``."""
    return "; ".join(f"{name}: {summary(curve)}" for name, curve in data.items())


_LINES = [(color, dash) for dash in ("-", "--") for color in (BLUE, VERMILLION, GREEN, PURPLE)] + [(GREY, ":")]
_CURVES = {
    "train_loss": "training loss (nats)",
    "train_error": "training error (%)",
    "test_loss": "test loss (nats)",
    "test_error": "test error (%)",
}


def draw_curves(figure: Figure, panels: dict[str, dict[str, dict]], curves: Sequence[str]) -> str:
    """The curves of an experiment over epochs: a row a panel, a column a curve, a line and a band a norm.

    Arguments:
        figure: where to draw.
        panels: rows of a result (``Experiment.load``) by panel and by norm; at most nine norms.
        curves: which of ``training.History``'s curves, one or more.
    """
    names = list(dict.fromkeys(name for norms in panels.values() for name in norms))
    looks = dict(zip(names, _LINES, strict=False))
    if len(looks) < len(names):
        raise ValueError(f"panels must have at most {len(_LINES)} norms, which is as many as can be told apart")
    grid = figure.subplots(len(panels), len(curves), squeeze=False, sharex=True, sharey="col")
    for row, (title, norms) in zip(grid, panels.items(), strict=True):
        for axes, curve in zip(row, curves, strict=True):
            is_error = curve.endswith("error")
            for name, kept in norms.items():
                color, dash = looks[name]
                values = as_array(kept[curve]) * (100 if is_error else 1)
                band(axes, kept["epoch"], values, color=color, label=name, ls=dash, lw=1.4)
            axes.set(ylabel=_CURVES[curve], title=title if curve == curves[0] else "")
            axes.set(ylim=(0, 100)) if is_error else axes.set(yscale="log")
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    # A norm may be missing in some panels.
    handles = {line.get_label(): line for axes in grid[:, 0] for line in axes.lines}
    figure.legend([handles[name] for name in names], names, loc="outside lower center", ncols=min(4, len(names)))
    ends = {f"{title}, {name}".strip(", "): kept for title, norms in panels.items() for name, kept in norms.items()}
    return "; ".join(f"{name}: {summary(kept)}" for name, kept in ends.items()) + "."


def final_errors(curve: dict) -> np.ndarray:
    """Test error in percent at the end of each run, also of those that ended early."""
    return 100 * np.array([run[-1] for run in curve["test_error"]])


def summary(curve: dict) -> str:
    """Write the last test error: the median and the range over seeds."""
    last = final_errors(curve)
    if len(last) == 1:
        return f"test error {last[0]:.1f} %"
    return f"median test error {np.median(last):.1f} % ({last.min():.1f} to {last.max():.1f} over {len(last)} seeds)"
