"""Figures of chapter 1: predictions in train mode, batches and gradients in BN, noise, eps, training curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse, Rectangle

from bnlib import reference
from bnlib.figures.curves import describe_errors, draw_loss_and_error, final_errors_in_percent
from bnlib.figures.picture import BLUE, GREEN, GREY, VERMILLION, band, plain_ticks


def draw_two_batches(figure: Figure, data) -> str:
    """Draw batches that begin with the same image, one panel each, with the class predicted for this image.

    ``data`` is what ``experiments.formula.batch_dependence.two_batches`` returns.
    """
    for axes, (images, prediction) in zip(figure.subplots(1, len(data)), data, strict=True):
        strip = np.pad(images, ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
        axes.imshow(np.concatenate(strip, axis=1), cmap="gray", vmin=0, vmax=1)
        axes.add_patch(Rectangle((-0.5, -0.5), 10, 10, fill=False, edgecolor=VERMILLION, lw=2))
        axes.set(xticks=[], yticks=[], title=f"predicted class: {prediction}")
        axes.spines[:].set_visible(False)
    predictions = " and ".join(str(prediction) for _, prediction in data)
    others = len(data[0][0]) - 1
    return f"The same image with {others} others, in {len(data)} batches. The network predicts {predictions} for it."


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
        f"Of all 360 test images {np.median(shares):.0f} % get another prediction than in eval mode at least once "
        f"(five networks: {shares.min():.0f} to {shares.max():.0f} %), and the test error in train mode is "
        f"{100 * np.median(data.errors[place]):.1f} %."
    )


def draw_before_and_after(figure: Figure, data, batch_size: int, batch: int) -> str:
    """Draw one batch in two channels before and after BN, with the mean and a box of one standard deviation around it.

    ``data`` is what ``experiments.formula.before_and_after.one_batch`` returns.
    """
    left, right = figure.subplots(1, 2)
    for axes, values in ((left, data.before), (right, data.after)):
        mean, deviation = values.mean(0), values.std(0)
        axes.add_patch(Rectangle(mean - deviation, *(2 * deviation), fill=False, edgecolor=GREY, lw=1.2))
        axes.plot(*mean, "+", color=GREY, ms=11, mew=2, label="mean (box: ± one standard deviation)")
        axes.plot(*values[1:].T, "o", color=BLUE, mew=0, ms=6, label="other images of the batch")
        axes.plot(*values[0], "D", color=VERMILLION, ms=8, label="an image that is in every batch")
    right.plot(
        *data.in_all_batches.T,
        "D",
        mfc="none",
        mec=VERMILLION,
        ms=8,
        mew=0.8,
        label="this image in five other batches",
    )
    left.set(xlim=(-0.95, 0.45), ylim=(-0.6, 0.8), title="before BN", xlabel="channel 1", ylabel="channel 2")
    right.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), title="after BN", xlabel="channel 1", ylabel="channel 2")
    for axes in (left, right):
        axes.set_box_aspect(1)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    lowest, highest = data.in_all_batches.min(0), data.in_all_batches.max(0)
    return (
        f"Batch {batch} of {len(data.in_all_batches)}, with {batch_size} images: before BN the image is at "
        f"({data.before[0, 0]:.2f}, {data.before[0, 1]:.2f}) in every batch; in this one BN moves it to "
        f"({data.after[0, 0]:.2f}, {data.after[0, 1]:.2f}). Over the batches of this size, channel 1 lies between "
        f"{lowest[0]:.2f} and {highest[0]:.2f}, and channel 2 between {lowest[1]:.2f} and {highest[1]:.2f}."
    )


def draw_batch_of_three(figure: Figure, x: Sequence[float], h: Sequence[float]) -> str:
    """Draw how BN moves a batch of three values of one channel onto a circle, and which part of a gradient it leaves.

    Arguments:
        x: the three inputs.
        h: gradient of the loss at the three normalised values.
    """
    inputs = np.array(x, dtype=float)[:, None]
    outputs, cache = reference.batch_norm_forward(inputs, eps=0.0)
    left_over = (reference.batch_norm_backward(np.array(h, dtype=float)[:, None], cache)[0] / cache.gain)[:, 0]
    centred = np.array(h, dtype=float) - np.mean(h)
    radial = centred - left_over
    x, x_hat, deviations = inputs[:, 0], outputs[:, 0], inputs[:, 0] - inputs.mean()
    space, plane = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _draw_in_space(space, x, deviations, x_hat)
    _draw_gradient_in_space(space, x_hat, np.array(h, dtype=float))
    _draw_in_plane(plane, x_hat, radial, left_over)
    texts = [", ".join(f"{value:.2f}" for value in values) for values in (x, deviations, x_hat, left_over)]
    return (
        f"Left: the batch ({texts[0]}) is a point in space. Subtracting the mean moves it to ({texts[1]}) in the plane "
        f"of the batches with mean 0; dividing by the standard deviation moves it to ({texts[2]}) on the circle of "
        f"radius √3. At x̂ there is a gradient, whose mean points out of the plane. Right: the circle from above, with "
        f"the gradient whose mean is subtracted. Its part along x̂ is removed; the rest, ({texts[3]}), is a tangent of "
        f"the circle."
    )


_ACROSS = np.array([[2.0, -1.0, -1.0], [0.0, 1.0, -1.0]]) / np.sqrt([[6.0], [2.0]])
"""Two orthogonal directions of length 1 in the plane of the batches of three values with mean 0."""
_TILT = 0.36


def _on_screen(point: np.ndarray) -> np.ndarray:
    """Return where a point in space is drawn: (1, 1, 1) is upright, and the plane is seen from the side."""
    right, back = _ACROSS @ point
    return np.array([right, _TILT * back + np.sqrt(1 - _TILT**2) * point.sum() / np.sqrt(3)])


def _arrow(axes: Axes, start, end, color: str, style: str = "-") -> None:
    arrow = {
        "arrowstyle": "-|>",
        "color": color,
        "lw": 1.8,
        "ls": style,
        "shrinkA": 0,
        "shrinkB": 0,
        "mutation_scale": 13,
    }
    axes.annotate("", end, start, arrowprops=arrow)


def _draw_in_space(axes: Axes, x: np.ndarray, deviations: np.ndarray, x_hat: np.ndarray) -> None:
    radius = np.sqrt(3)
    axes.add_patch(Ellipse((0, 0), 9, 9 * _TILT, facecolor=GREY, alpha=0.15))
    axes.add_patch(Ellipse((0, 0), 2 * radius, 2 * radius * _TILT, fill=False, edgecolor=BLUE, lw=2))
    top = _on_screen(np.full(3, 2.5))
    _arrow(axes, (0, 0), top, GREY)
    axes.text(top[0] + 0.2, top[1], "all three values equal", va="top")
    places = [_on_screen(point) for point in (x, deviations, x_hat)]
    _arrow(axes, places[0], places[1], VERMILLION)
    _arrow(axes, places[1], places[2], BLUE)
    for place, color in zip(places, (VERMILLION, VERMILLION, BLUE), strict=True):
        axes.plot(*place, "o", color=color, ms=7)
    axes.plot(0, 0, ".", color=GREY)
    axes.text(*(places[0] + (0, 0.3)), f"x = ({', '.join(f'{value:g}' for value in x)})", ha="center")
    axes.text(*((places[0] + places[1]) / 2 + (-0.2, 0.3)), "subtract μ", va="center", ha="right")
    axes.text(*(places[1] + (0, -0.3)), "divide by √v", va="top", ha="center")
    axes.text(*(places[2] + (0.05, -0.2)), "x̂", ha="left", va="top")
    axes.set(xlim=(-4.9, 4.6), ylim=(-2.1, 4.8), title="forward: onto a circle", aspect="equal")
    axes.axis("off")


def _draw_gradient_in_space(axes: Axes, x_hat: np.ndarray, h: np.ndarray) -> None:
    """Draw the gradient h at x̂, and its mean, which points out of the plane and is removed, twice as long."""
    place, end, out = (_on_screen(point) for point in (x_hat, x_hat + 2 * h, x_hat + 2 * h.mean()))
    _arrow(axes, place, end, GREY)
    _arrow(axes, place, out, VERMILLION, "--")
    axes.text(*((place + end) / 2 + (0, 0.1)), "h", ha="center", va="bottom")
    axes.text(out[0], out[1] + 0.12, "mean of h", ha="center", va="bottom", fontsize=9)


def _draw_in_plane(axes: Axes, x_hat: np.ndarray, radial: np.ndarray, left_over: np.ndarray) -> None:
    radius = np.sqrt(3)
    axes.add_patch(Circle((0, 0), radius, fill=False, edgecolor=BLUE, lw=2))
    axes.plot(0, 0, ".", color=GREY)
    place, along, across = (_ACROSS @ vector for vector in (x_hat, radial, left_over))
    axes.plot(*np.transpose([(0, 0), place]), color=GREY, lw=1, ls=":")
    for end, color, style, text, where in (
        (along + across, GREY, "-", "h minus its mean", {"ha": "center", "va": "top"}),
        (along, VERMILLION, "--", "removed", {"ha": "right", "va": "top"}),
        (across, BLUE, "-", "what is left", {"ha": "left", "va": "center"}),
    ):
        _arrow(axes, place, place + end, color, style)
        axes.text(
            *(place + end + {"right": (-0.1, 0), "center": (0, -0.15), "left": (0.15, 0)}[where["ha"]]), text, **where
        )
    axes.plot(*place, "o", color=BLUE, ms=7)
    axes.text(*(0.8 * place + (0.25, -0.15)), "x̂")
    axes.set(xlim=(-3.2, 3.0), ylim=(-3.3, 2.0), title="backward: along the circle", aspect="equal")
    axes.axis("off")


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
