"""Figures of training: curves over epochs, and what is left at the end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnlib.experiments.results import as_array
from bnlib.figures.picture import BLUE, GREEN, GREY, PURPLE, VERMILLION, band, plain_ticks

_LOOKS = {
    "batch norm": (BLUE, "-"),
    "no norm": (VERMILLION, "--"),
    "FN, same batch": (VERMILLION, "--"),
    "FN, running": (GREEN, "-."),
}


def draw_training(figure: Figure, data: dict[str, dict], batch_size: int, lr: float) -> str:
    """Training loss and test error over epochs, one entry of ``data`` a series; see ``experiments.digits_grid``."""
    left, right = _loss_and_error(figure, data)
    for axes in (left, right):
        axes.set_xlim(0, 10)
    right.legend(loc="center right")
    return f"Batch size {batch_size}, learning rate {lr:g}, after ten epochs: {_ends(data)}."


def draw_labels(figure: Figure, data: dict[str, dict], labels: int, batch_size: int, lr: float) -> str:
    """The same with batches that hold few labels; see ``experiments.labels_per_batch``."""
    left, right = _loss_and_error(figure, data)
    for axes in (left, right):
        axes.set_xlim(0, max(max(curve["epoch"]) for curve in data.values()))
    handles = {name: line for line, name in zip(*left.get_legend_handles_labels(), strict=True)}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3)
    number = "label" if labels == 1 else "labels"
    return (
        f"At most {labels} {number} in a batch, batch size {batch_size}, learning rate {lr:g}, at the end: "
        f"{_ends(data)}."
    )


def _loss_and_error(figure: Figure, data: dict[str, dict]) -> tuple[Axes, Axes]:
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


def _ends(data: dict[str, dict]) -> str:
    return "; ".join(f"{name}: {_summary(curve)}" for name, curve in data.items())


def draw_alpha(figure: Figure, data: dict[str, np.ndarray], alpha: str, construction: str, lr: float) -> str:
    """Test error against batch size, (batch sizes, seeds) a norm; see ``experiments.full_norm_digits.lookup``."""
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
    return "; ".join(f"{name}: {_summary(kept)}" for name, kept in ends.items()) + "."


def draw_error_maps(figure: Figure, cells: dict, batch_sizes: Sequence[int], learning_rates: Sequence[float]) -> str:
    """Median test error of each norm over the grid of batch size and learning rate, as numbers on a map."""
    norms = list(dict.fromkeys(norm for norm, _, _ in cells))
    for axes, norm in zip(np.atleast_1d(figure.subplots(1, len(norms), sharey=True)), norms, strict=True):
        errors = np.array(
            [[np.median(_final_errors(cells[norm, b, lr])) for b in batch_sizes] for lr in learning_rates]
        )
        axes.imshow(errors, origin="lower", cmap="cividis_r", vmin=0, vmax=90, aspect="auto")
        for (row, column), error in np.ndenumerate(errors):
            axes.text(
                column,
                row,
                f"{error:.0f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if error > 40 else "black",
            )
        axes.set_xticks(range(len(batch_sizes)), batch_sizes)
        axes.set_yticks(range(len(learning_rates)), [f"{lr:g}" for lr in learning_rates])
        axes.set(xlabel="batch size", title=norm)
    figure.axes[0].set_ylabel("learning rate")
    return "Median test error in percent over batch size and learning rate: " + ", ".join(norms)


def _final_errors(curve: dict) -> np.ndarray:
    """Test error in percent at the end of each run, also of those that ended early."""
    return 100 * np.array([run[-1] for run in curve["test_error"]])


def _summary(curve: dict) -> str:
    last = _final_errors(curve)
    if len(last) == 1:
        return f"test error {last[0]:.1f} %"
    return f"median test error {np.median(last):.1f} % ({last.min():.1f} to {last.max():.1f} over {len(last)} seeds)"
