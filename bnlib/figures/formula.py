"""Figures of chapter 1: predictions in train mode, noise of batch statistics, running means, eps, training curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from bnlib.figures.curves import describe_errors, draw_loss_and_error, final_errors_in_percent
from bnlib.figures.picture import BLUE, GREEN, GREY, VERMILLION, band, plain_ticks


def draw_predictions(figure: Figure, data, batch_size: int) -> str:
    """Draw one image beside how often each class was predicted for it, and the share of changed images by batch size.

    ``data`` is what ``experiments.formula.batch_dependence.predictions`` returns.
    """
    middle, right = figure.subplots(1, 2)
    image = middle.inset_axes((0.72, 0.55, 0.28, 0.4))
    image.imshow(data.image, cmap="gray", vmin=0, vmax=1)
    image.set(xticks=[], yticks=[], title=f"a {data.label}")
    batches = int(data.counts.sum())
    middle.bar(range(10), data.counts, color=BLUE)
    middle.set(xticks=range(10), ylim=(0, batches), xlabel="predicted class", ylabel=f"batches (of {batches})")
    middle.set_title(f"batches of {batch_size}")
    band(right, data.batch_sizes, 100 * data.changed.T, color=BLUE, label="at least one different prediction")
    place = data.batch_sizes.index(batch_size)
    shares = 100 * data.changed[place]
    right.plot(batch_size, np.median(shares), "o", color=VERMILLION, ms=7)
    right.set(xscale="log", ylim=(0, 100), xlabel="images per batch", ylabel="changed images (%)", title="all images")
    plain_ticks(right.xaxis, (4, 16, 64, 256))
    order = [digit for digit in data.counts.argsort()[::-1] if data.counts[digit]]
    listed = ", ".join(f"{digit} ({data.counts[digit]} times)" for digit in order)
    return (
        f"Batches of {batch_size}: predictions for this {data.label} in {batches} batches in train mode: {listed}. "
        f"Of all 360 test images {np.median(shares):.0f} % get another answer than in eval mode at least once (five "
        f"networks: {shares.min():.0f} to {shares.max():.0f} %), and the test error in train mode is "
        f"{100 * np.median(data.errors[place]):.1f} %."
    )


def draw_running_mean(figure: Figure, paths: dict[float, np.ndarray], data_mean: float) -> str:
    """Draw running means over batches, one line per momentum, and the mean of the data."""
    axes = figure.subplots()
    for (momentum, path), color, dash in zip(paths.items(), (VERMILLION, BLUE, GREEN), (":", "-", "--"), strict=False):
        axes.plot(path, color=color, ls=dash, lw=1.4, label=f"momentum {momentum:g}")
    axes.axhline(data_mean, color=GREY, lw=1, label="mean of the data")
    axes.set(xlim=(0, len(path) - 1), xlabel="training batches", ylabel="running mean")
    axes.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    momenta = ", ".join(f"{momentum:g}" for momentum in paths)
    return (
        f"Running mean over batches for momentum {momenta}: the larger ones reach the mean of the data quickly and "
        "then fluctuate around it, the smallest approaches it slowly and smoothly."
    )


def draw_batch_noise(figure: Figure, data, batch_size: int) -> str:
    """Draw histograms of batch means and of the normalised value of one image over random batches.

    ``data`` is what ``experiments.formula.batch_noise.random_batches`` returns.
    """
    left, right = figure.subplots(1, 2)
    deviation = np.sqrt(data.data_variance)
    left.hist(
        (data.means - data.data_mean) / deviation, bins=np.linspace(-3.2, 3.2, 65), histtype="stepfilled", color=BLUE
    )
    left.axvline(0, color=VERMILLION, ls="--", lw=1.5)
    left.set(xlim=(-3.2, 3.2), xlabel="batch mean − data mean (data std)", ylabel="batches", title="batch mean")
    right.hist(data.outputs, bins=np.linspace(-3.2, 3.2, 65), histtype="stepfilled", color=BLUE)
    right.axvline(data.output_with_data_statistics, color=VERMILLION, ls="--", lw=1.5)
    right.set(xlim=(-3.2, 3.2), xlabel="normalised value x̂", ylabel="batches", title="one image after BN")
    for axes in (left, right):
        axes.yaxis.set_label_coords(-0.24, 0.5)  # room for four digits at every batch size
    low, high = np.quantile(data.outputs, (0.05, 0.95))
    return (
        f"Batches of {batch_size}: the root mean square difference between batch mean and data mean is "
        f"{data.means.std() / deviation:.2f} standard deviations of the data. The normalised value of one image lies "
        f"between {low:.2f} and {high:.2f} in nine of ten batches; with the statistics of the whole data set (dashed) "
        f"it is {data.output_with_data_statistics:.2f}."
    )


def draw_pixel_gains(figure: Figure, data, eps: float) -> str:
    """Draw gain against variance for every pixel, and the variance of each pixel after BN.

    ``data`` is what ``experiments.formula.eps_and_small_variance.pixel_gains`` returns.
    """
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    floor = 1e-9
    v = np.geomspace(floor, 1, 200)
    left.loglog(v, 1 / np.sqrt(v + eps), color=GREY, lw=1.2)
    left.loglog(np.maximum(data.variances, floor), data.gains, "o", ms=4, color=BLUE, alpha=0.7)
    left.set(xlim=(floor * 0.6, 1), ylim=(0.2, 2e4), xlabel="variance v of the pixel", ylabel="gain 1/√(v + ε)")
    plain_ticks(left.xaxis, (floor, 1e-6, 1e-3, 1), ("0", "10⁻⁶", "10⁻³", "1"))
    plain_ticks(left.yaxis, (1, 10, 100, 1000, 10_000))
    left.set_title("one point per pixel")
    image = right.imshow(data.output_variances.reshape(8, 8), vmin=0, vmax=1, cmap="cividis")
    right.set(xticks=[], yticks=[], title="variance after BN")
    figure.colorbar(image, ax=right, shrink=0.9)
    varying = data.variances > 0
    normalised = int((data.output_variances > 0.5).sum())
    return (
        f"ε = {eps:g}: {normalised} of 64 pixels have a variance above 0.5 after BN. The {int((~varying).sum())} "
        f"pixels that never vary become 0; a change of one of them at inference would be multiplied by "
        f"{data.gains[~varying].max():.4g}. The largest gain of the others is {data.gains[varying].max():.3g}."
    )


def draw_training_curves(figure: Figure, data: dict[str, dict], batch_size: int, lr: float) -> str:
    """Draw training loss and test error over epochs, one line per entry of ``data``.

    See ``experiments.formula.training_curves``.
    """
    left, right = draw_loss_and_error(figure, data)
    for axes in (left, right):
        axes.set_xlim(0, 10)
    right.legend(loc="center right")
    return f"Batch size {batch_size}, learning rate {lr:g}, after ten epochs: {describe_errors(data)}."


def draw_error_heatmaps(
    figure: Figure, cells: dict, batch_sizes: Sequence[int], learning_rates: Sequence[float]
) -> str:
    """Draw the median test error of each norm by batch size and learning rate, in heatmaps, two in a row.

    A cell that was not measured stays empty.
    """
    norms = list(dict.fromkeys(norm for norm, _, _ in cells))
    panels = figure.subplots(len(norms) // 2, 2, sharex=True, sharey=True).flat
    for axes, norm in zip(panels, norms, strict=True):
        errors = np.full((len(learning_rates), len(batch_sizes)), np.nan)
        for row, column in np.ndindex(*errors.shape):
            cell = cells.get((norm, batch_sizes[column], learning_rates[row]))
            errors[row, column] = np.nan if cell is None else np.median(final_errors_in_percent(cell))
        axes.imshow(errors, origin="lower", cmap="cividis_r", vmin=0, vmax=90, aspect="auto")
        for row, column in np.argwhere(~np.isnan(errors)):
            error = errors[row, column]
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
        axes.set(xlabel="batch size", title=norm, ylabel="learning rate")
    return "Median test error (%) by batch size and learning rate: " + ", ".join(norms)
