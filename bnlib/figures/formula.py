"""Figures of the formula: what a batch does to a picture, running averages, and eps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from bnlib.figures.curves import ends, final_errors, loss_and_error
from bnlib.figures.picture import BLUE, GREEN, GREY, VERMILLION, plain_ticks


def draw_answers(figure: Figure, image: np.ndarray, answers: np.ndarray) -> str:
    """One picture, shape (H, W), and how often each of ten classes was answered for it."""
    left, right = figure.subplots(1, 2, width_ratios=(1, 3))
    left.imshow(image, cmap="gray", vmin=0, vmax=1)
    left.set(xticks=[], yticks=[], title="the picture")
    counts = np.bincount(answers, minlength=10)
    right.bar(range(10), counts, color=BLUE)
    right.set(xticks=range(10), xlabel="class answered", ylabel=f"batches of {len(answers)}")
    told = ", ".join(f"{digit} ({counts[digit]} times)" for digit in counts.argsort()[::-1] if counts[digit])
    return f"A handwritten digit and what a network in train mode takes it for in {len(answers)} batches: {told}."


def draw_running(figure: Figure, paths: dict[float, np.ndarray], target: float) -> str:
    """Running means over batches, one path a momentum, and the mean of the data they should find."""
    axes = figure.subplots()
    for (momentum, path), color, dash in zip(paths.items(), (VERMILLION, BLUE, GREEN), (":", "-", "--"), strict=False):
        axes.plot(path, color=color, ls=dash, lw=1.4, label=f"momentum {momentum:g}")
    axes.axhline(target, color=GREY, lw=1, label="mean of the data")
    axes.set(xlim=(0, len(path) - 1), xlabel="batches seen", ylabel="running mean")
    axes.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    momenta = ", ".join(f"{momentum:g}" for momentum in paths)
    return (
        f"Running mean over batches for momentum {momenta}: the larger ones reach the mean of the data at once and "
        "then jitter about it, the smallest approaches it slowly and smoothly."
    )


def draw_batch_noise(figure: Figure, data, batch_size: int) -> str:
    """Histograms of batch means and of one picture's output over random batches; see ``experiments.batch_noise``."""
    left, right = figure.subplots(1, 2)
    mean, variance = data.whole
    spread = np.sqrt(variance)
    left.hist((data.means - mean) / spread, bins=np.linspace(-3.2, 3.2, 65), histtype="stepfilled", color=BLUE)
    left.axvline(0, color=VERMILLION, ls="--", lw=1.5)
    left.set(xlim=(-3.2, 3.2), xlabel="batch mean − data mean (data std)", ylabel="batches", title="the batch mean")
    right.hist(data.outputs, bins=np.linspace(-3.2, 3.2, 65), histtype="stepfilled", color=BLUE)
    right.axvline(data.alone, color=VERMILLION, ls="--", lw=1.5)
    right.set(xlim=(-3.2, 3.2), xlabel="normalised value x̂", ylabel="batches", title="one picture's output")
    for axes in (left, right):
        axes.yaxis.set_label_coords(-0.24, 0.5)  # room for four digits at every batch size
    shares = f"{np.quantile(data.outputs, 0.05):.2f} and {np.quantile(data.outputs, 0.95):.2f}"
    return (
        f"Batches of {batch_size}: the batch mean misses the data mean by {data.means.std() / spread:.2f} standard "
        f"deviations (root mean square). The same picture comes out between {shares} in nine batches of ten; with the "
        f"statistics of the whole data set (dashed) it is {data.alone:.2f}."
    )


def draw_gain(figure: Figure, data, eps: float) -> str:
    """Gain against variance for every pixel, and the variance each has left; see ``experiments.eps_gain``."""
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    floor = 1e-9
    v = np.geomspace(floor, 1, 200)
    left.loglog(v, 1 / np.sqrt(v + eps), color=GREY, lw=1.2)
    left.loglog(np.maximum(data.variances, floor), data.gains, "o", ms=4, color=BLUE, alpha=0.7)
    left.set(xlim=(floor * 0.6, 1), ylim=(0.2, 2e4), xlabel="variance v of the pixel", ylabel="gain 1/√(v + ε)")
    plain_ticks(left.xaxis, (floor, 1e-6, 1e-3, 1), ("0", "10⁻⁶", "10⁻³", "1"))
    plain_ticks(left.yaxis, (1, 10, 100, 1000, 10_000))
    left.set_title("one point a pixel")
    image = right.imshow(data.output_variances.reshape(8, 8), vmin=0, vmax=1, cmap="cividis")
    right.set(xticks=[], yticks=[], title="variance after BN")
    figure.colorbar(image, ax=right, shrink=0.9)
    alive = data.variances > 0
    kept = int((data.output_variances > 0.5).sum())
    return (
        f"ε = {eps:g}: {kept} of 64 pixels keep more than half of unit variance. The {int((~alive).sum())} pixels that "
        f"never change come out as 0, and would be multiplied by {data.gains[~alive].max():.4g} if they ever did; "
        f"the largest gain among the others is {data.gains[alive].max():.3g}."
    )


def draw_training(figure: Figure, data: dict[str, dict], batch_size: int, lr: float) -> str:
    """Draw training loss and test error over epochs, a line for each entry of ``data``.

    See ``experiments.formula.training_curves``.
    """
    left, right = loss_and_error(figure, data)
    for axes in (left, right):
        axes.set_xlim(0, 10)
    right.legend(loc="center right")
    return f"Batch size {batch_size}, learning rate {lr:g}, after ten epochs: {ends(data)}."


def draw_error_maps(figure: Figure, cells: dict, batch_sizes: Sequence[int], learning_rates: Sequence[float]) -> str:
    """Median test error of each norm over the grid of batch size and learning rate, as numbers on a map."""
    norms = list(dict.fromkeys(norm for norm, _, _ in cells))
    for axes, norm in zip(np.atleast_1d(figure.subplots(1, len(norms), sharey=True)), norms, strict=True):
        errors = np.array([[np.median(final_errors(cells[norm, b, lr])) for b in batch_sizes] for lr in learning_rates])
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
