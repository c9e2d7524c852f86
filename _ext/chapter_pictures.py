"""Small pictures of the main result of each chapter for the front page.

A drawing function draws on an empty figure and returns a dictionary with ``alt``, a description for readers who cannot
see the picture, and with the numbers in the sentence beside the picture. The numbers come from the same arrays as the
picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# The experiments whose results the pictures show.
from bnlib.experiments.alternatives import batch_sizes, contest
from bnlib.experiments.convergence import convergence_rates, theorem_2
from bnlib.experiments.covariate_shift import noisy_batch_norm
from bnlib.experiments.depth import gradient_growth
from bnlib.experiments.failing import evaluation_statistics
from bnlib.experiments.formula import batch_noise
from bnlib.experiments.full_normalization import labels_per_batch
from bnlib.experiments.machines import label_skew
from bnlib.experiments.objective import objective_and_evaluation
from bnlib.experiments.perils import train_mode_at_inference
from bnlib.experiments.smoothness import landscape_over_training
from bnlib.experiments.training_code import averaged_weights
from bnlib.figures import BLUE, GREEN, GREY, VERMILLION, as_array, band, plain_ticks

SIZE = (3.1, 1.9)


def draw_one_input(figure: Figure) -> dict[str, object]:
    """Chapter 1: one picture's normalised value over random batches."""
    size, axes = 8, figure.subplots()
    noise = batch_noise.random_batches(size)
    axes.hist(noise.outputs, bins=np.linspace(-2, 1.5, 50), color=BLUE, histtype="stepfilled")
    axes.axvline(noise.output_with_data_statistics, color=VERMILLION, ls="--", lw=1.5)
    _label(axes, "normalised value of one input", "batches")
    values = (*np.quantile(noise.outputs, (0.05, 0.95)), noise.output_with_data_statistics)
    low, high, usual = (f"{value:.1f}".replace("-", "−") for value in values)
    alt = (
        f"In nine of ten random batches of {size}, the normalised value of one input lies between {low} and {high}. "
        f"With the statistics of all data it is {usual} (dashed line)."
    )
    return {"alt": alt, "size": size, "low": low, "high": high}


def draw_noisy_bn(figure: Figure) -> dict[str, object]:
    """Chapter 2: test error over epochs with BN, with noisy BN, and without normalisation."""
    setting, axes = ("9 layers", "PyTorch default", 0.1), figure.subplots()
    looks = {
        ("without normalisation", 0.0, 1.0): ("without", VERMILLION, "--"),
        ("noisy BN", *noisy_batch_norm.PUBLISHED): ("noisy BN", GREEN, "-"),
        ("batch norm", 0.0, 1.0): ("batch norm", BLUE, "-"),
    }
    ends = {}
    for cell, (label, color, dash) in looks.items():
        row = noisy_batch_norm.load()[*setting, *cell]
        errors = 100 * as_array(row["test_error"])
        band(axes, row["epoch"], errors, color=color, label=label, ls=dash)
        ends[label] = _middle(errors[:, -1])
    axes.set(xlim=(0, noisy_batch_norm.EPOCHS), ylim=(0, 100))
    _label(axes, "epoch", "test error (%)", legend="center right")
    alt = (
        f"After {noisy_batch_norm.EPOCHS} epochs from PyTorch's default initialisation, the test error is "
        f"{ends['without']} % without normalisation, {ends['noisy BN']} % with noisy BN and {ends['batch norm']} % "
        "with batch norm."
    )
    return {"alt": alt, "noisy": ends["noisy BN"], "without": ends["without"]}


def draw_smoothness(figure: Figure) -> dict[str, object]:
    """Chapter 3: change of the gradient against the training loss, with and without BN."""
    size, lr, at, axes = 64, 0.1, 0.3, figure.subplots()
    found = {}
    for norm, (label, color, dash) in _PAIR.items():
        row = landscape_over_training.load()["mlp", "He", norm, size, lr]
        loss, beta = np.median(row["loss"], 0), np.median(row["relative_beta"], 0)
        order = loss.argsort()
        axes.plot(loss[order], beta[order], color=color, ls=dash, marker=".", ms=5, lw=1.3, label=label)
        found[norm] = np.exp(np.interp(np.log(at), np.log(loss[order]), np.log(beta[order])))
    axes.set(xscale="log", yscale="log", ylim=(100, 20_000))
    axes.invert_xaxis()
    plain_ticks(axes.xaxis, (2, 0.5, 0.1))
    plain_ticks(axes.yaxis, (100, 1000, 10_000))
    _label(axes, "training loss", "change of gradient", legend="upper left")
    times = round(found["without normalisation"] / found["batch norm"])
    alt = (
        f"At the same training loss, and in units of the weights, the gradient changes faster without batch norm: "
        f"{times} times as fast at a loss of {at} (He initialisation, batches of {size})."
    )
    return {"alt": alt, "times": times, "size": size, "loss": at}


def draw_fixed_batches(figure: Figure) -> dict[str, object]:
    """Chapter 4: errors on memorised random labels, in the batches of the training and in other batches."""
    row = objective_and_evaluation.lookup("random", "fixed", 16)["batch norm"]
    names = {"objective": "its own batches", "reshuffled": "reshuffled", "evaluation": "eval mode"}
    errors, axes = {key: 100 * row[key][:, 1] for key in names}, figure.subplots()
    for place, values in enumerate(errors.values()):
        axes.barh(place, np.median(values), color=BLUE, height=0.6)
        axes.plot([values.min(), values.max()], [place, place], color=GREY, lw=1.5)
    axes.set_yticks(range(len(names)), names.values())
    axes.invert_yaxis()
    axes.set(xlim=(0, 100))
    _label(axes, "error (%)", "")
    numbers = {key: _middle(values) for key, values in errors.items()}
    alt = (
        f"After training on random labels in batches that never change: an error of {numbers['objective']} % in "
        f"these batches, {numbers['reshuffled']} % in reshuffled batches and {numbers['evaluation']} % in eval mode."
    )
    return {"alt": alt, **numbers}


def draw_labels(figure: Figure) -> dict[str, object]:
    """Chapter 5: test error against the number of labels in a batch, with BN and with Full Normalization."""
    size, lr, labels, axes = 16, 0.03, labels_per_batch.LABELS, figure.subplots()
    ends = {}
    for norm, label, color, mark in (
        ("batch norm", "batch norm", BLUE, "s-"),
        ("FN, running", "Full Normalization", GREEN, "D-."),
    ):
        rows = [labels_per_batch.load()[norm, count, size, lr]["test_error"] for count in labels]
        ends[norm] = _errors(axes, labels, rows, mark, color, label)
    axes.set(ylim=(0, 100))
    axes.set_xticks(labels)
    _label(axes, "different labels in a batch", "test error (%)", legend="upper right")
    alt = (
        f"In batches of {size} images of one label, the test error is {ends['batch norm'][0]} % with batch norm and "
        f"{ends['FN, running'][0]} % with Full Normalization. With ten labels per batch it is "
        f"{ends['batch norm'][-1]} and {ends['FN, running'][-1]} %."
    )
    return {"alt": alt, "batch_norm": ends["batch norm"][0], "full_norm": ends["FN, running"][0], "size": size}


def draw_train_mode(figure: Figure) -> dict[str, object]:
    """Chapter 6: accuracy of a trained network in train mode, against the batch size."""
    sizes, axes, ends = train_mode_at_inference.BATCH_SIZES, figure.subplots(), {}
    for order, color, dash in (("shuffled", BLUE, "-"), ("sorted", VERMILLION, "--")):
        row = train_mode_at_inference.load()["fully connected", order]
        right = 100 * row["train_mode"]
        band(axes, sizes, right, color=color, label=f"{order} by class" if order == "sorted" else order, ls=dash)
        ends[order] = dict(zip(sizes, map(_middle, right.T), strict=True))
    usual = _middle(100 * row["eval_mode"])
    axes.axhline(float(np.median(100 * row["eval_mode"])), color=GREY, ls=":", lw=1.2)
    axes.set(xscale="log", ylim=(0, 104))
    plain_ticks(axes.xaxis, sizes[::2])
    _label(axes, "batch size", "right in train mode (%)", legend="center")
    alt = (
        f"In train mode, the accuracy in shuffled batches rises from {ends['shuffled'][1]} % with one image to "
        f"{ends['shuffled'][128]} % with 128. If the images are sorted by class, it rises more slowly. "
        f"In eval mode it is {usual} % (dotted line)."
    )
    return {"alt": alt, "eval_mode": usual, "one": ends["shuffled"][1], "sorted": ends["sorted"][32]}


def draw_young_averages(figure: Figure) -> dict[str, object]:
    """Chapter 7: test error over the first steps, with running averages and with recomputed statistics."""
    momentum, step, axes = 0.01, 100, figure.subplots()
    row = evaluation_statistics.by_momentum(0.1, momentum)
    place, ends = row["steps"].index(step), {}
    for key, label, color, dash in (
        ("running", "running averages", BLUE, "-"),
        ("precise", "recomputed", GREEN, "--"),
    ):
        errors = 100 * row[key][..., 1]
        band(axes, row["steps"], errors, color=color, label=label, ls=dash)
        ends[key] = _middle(errors[:, place])
    axes.set(xscale="log", ylim=(0, 100))
    plain_ticks(axes.xaxis, (1, 10, 100))
    _label(axes, "training steps", "test error (%)", legend="upper right")
    alt = (
        f"After {step} steps, the test error is {ends['running']} % with running averages of momentum {momentum} and "
        f"{ends['precise']} % with recomputed statistics."
    )
    return {"alt": alt, "momentum": momentum, "step": step, **ends}


def draw_deep_gradients(figure: Figure) -> dict[str, object]:
    """Chapter 8: gradient norm at each of 100 layers before training: BN, layer norm, and no normalisation."""
    characters, axes = 50, figure.subplots()
    for network, label, color, dash in (
        ("batch norm", "batch norm", BLUE, "-"),
        ("layer norm", "layer norm", GREEN, "-."),
        ("without normalisation, He init", "without", VERMILLION, "--"),
    ):
        row = gradient_growth.load()[network, characters, gradient_growth.WIDTH]
        layers = np.r_[1, 5 : gradient_growth.DEPTH : 5, row["gradient_norms"].shape[1]]
        band(axes, layers, row["gradient_norms"][:, layers - 1], color=color, label=label, ls=dash)
        if network == "batch norm":
            norms = row["gradient_norms"]
            growth, whole = np.median(row["growth"][:, 0]), np.median(norms[:, 0] / norms[:, -1])
    axes.set(yscale="log", xlim=(1, gradient_growth.DEPTH))
    plain_ticks(axes.yaxis, (1, 1e3, 1e6, 1e9), ("1", "10³", "10⁶", "10⁹"))
    _label(axes, "layer (1 is next to the input)", "gradient norm", legend="upper right")
    numbers = {"growth": f"{growth:.2f}", "depth": gradient_growth.DEPTH, "millions": round(whole / 1e6)}
    alt = (
        f"With batch norm, the gradient grows by a factor of {growth:.2f} per layer on its way back to the input, and "
        f"of {numbers['millions']} million in all. With layer norm, or without normalisation from He "
        "initialisation, the gradient stays nearly level."
    )
    return {"alt": alt, **numbers}


def draw_alternatives(figure: Figure) -> dict[str, object]:
    """Chapter 9: test error against the batch size, at the best learning rate of each normalisation."""
    sizes, axes, ends = batch_sizes.BATCH_SIZES, figure.subplots(), {}
    for norm, label, color, mark in (
        ("without normalisation", "without", VERMILLION, "o--"),
        ("layer norm", "layer norm", GREEN, "^-."),
        ("batch norm", "batch norm", BLUE, "s-"),
    ):
        tables = [contest.errors(norm, batch_sizes.EQUAL_SAMPLES, "shuffled", size) for size in sizes]
        ends[norm] = _errors(
            axes, sizes, [table[batch_sizes.best_learning_rate(table)] for table in tables], mark, color, label
        )
    axes.set(xscale="log", yscale="log", ylim=(1, 120))
    plain_ticks(axes.xaxis, sizes)
    plain_ticks(axes.yaxis, (1, 10, 100))
    _label(axes, "batch size", "test error (%)", legend="upper center")
    without, layer, batch = (f"{each[0]} and {each[-1]} %" for each in ends.values())
    alt = (
        f"At the best learning rates, the test errors in batches of {sizes[0]} and {sizes[-1]} are {without} without "
        f"normalisation, {layer} with layer norm and {batch} with batch norm."
    )
    return {"alt": alt} | {norm.replace(" ", "_"): dict(zip(sizes, each, strict=True)) for norm, each in ends.items()}


def draw_machines(figure: Figure) -> dict[str, object]:
    """Chapter 10: test error of ten machines against the label skew, for local, synchronised and shared statistics."""
    workers, skews, axes, ends = 10, label_skew.SKEWS, figure.subplots(), {}
    for method, label, color, mark in (
        ("local BN", "local batch norm", BLUE, "s-"),
        ("SyncBN", "synchronised", VERMILLION, "o--"),
        ("shared FN", "shared Full Norm", GREEN, "D-."),
    ):
        rows = [label_skew.lookup(workers, skew)[method]["worker_0"] for skew in skews]
        ends[method] = _errors(axes, skews, rows, mark, color, label)
    axes.set(ylim=(0, 100))
    _label(axes, "label skew between machines", "test error (%)", legend="upper left")
    alt = (
        f"If each of {workers} machines has the images of one digit (skew 1), the test error is "
        f"{ends['local BN'][-1]} % with local batch norm and the running statistics of the first machine, "
        f"{ends['SyncBN'][-1]} % with synchronised batch norm and {ends['shared FN'][-1]} % with shared Full Norm."
    )
    return {"alt": alt, "local": ends["local BN"][-1], "sync": ends["SyncBN"][-1]}


def draw_averaged_weights(figure: Figure) -> dict[str, object]:
    """Chapter 11: test error of averaged weights over epochs, with averaged and with recomputed statistics."""
    axes, ends = figure.subplots(), {}
    row = averaged_weights.lookup("EMA 0.999", 0.1)
    for kind, color, dash in (("averaged", VERMILLION, "--"), ("recomputed", BLUE, "-")):
        errors = 100 * row[kind]
        band(axes, averaged_weights.CHECKPOINTS, errors, color=color, label=kind, ls=dash)
        ends[kind] = _middle(errors[:, -1])
    axes.set(xscale="log", ylim=(0, 100))
    plain_ticks(axes.xaxis, averaged_weights.CHECKPOINTS)
    _label(axes, "epochs", "test error (%)", legend="lower left")
    alt = (
        f"After {averaged_weights.EPOCHS} epochs, the test error of averaged weights is {ends['averaged']} % with "
        f"running statistics that are averaged like the weights, and {ends['recomputed']} % with recomputed ones."
    )
    return {"alt": alt, **ends}


def draw_theorem(figure: Figure) -> dict[str, object]:
    """Chapter 12: the sum that Theorem 2 bounds, with the largest bias that it allows and with a usual oracle."""
    axes, ends = figure.subplots(), convergence_rates.bin_ends(theorem_2.STEPS)
    kept, grown = ends >= 100, {}
    for oracle, label, color, dash in (
        ("largest bias", "largest bias", VERMILLION, "--"),
        ("independent", "independent batch", BLUE, "-"),
    ):
        sums = theorem_2.load()[oracle, *theorem_2.MISSING_CONDITION]["weighted"]
        band(axes, ends[kept], sums[:, kept], color=color, label=label, ls=dash)
        grown[oracle] = np.median(sums[:, -1] / sums[:, kept][:, 0])
    axes.set(xscale="log", ylim=(0, None))
    plain_ticks(axes.xaxis, (100, 1000, 10_000))
    _label(axes, "training steps", "sum of squared gradients", legend="upper left")
    first, last, times = int(ends[kept][0]), int(ends[-1]), f"{grown['largest bias']:.1f}"
    alt = (
        f"From step {first} to step {last:,}, the weighted sum of squared gradients becomes {times} times as large "
        f"with the largest bias that the theorem allows. With independent batches it grows by a factor of "
        f"{grown['independent']:.1f}."
    )
    return {"alt": alt, "first": first, "last": f"{last:,}", "times": times}


PICTURES = {
    "01_the_formula": draw_one_input,
    "02_internal_covariate_shift": draw_noisy_bn,
    "03_lipschitz_smoothness": draw_smoothness,
    "04_the_objective": draw_fixed_batches,
    "05_full_normalization": draw_labels,
    "06_perils": draw_train_mode,
    "07_why_is_my_bn_failing": draw_young_averages,
    "08_deep_stacks": draw_deep_gradients,
    "09_alternatives": draw_alternatives,
    "10_many_machines": draw_machines,
    "11_training_code": draw_averaged_weights,
    "12_convergence": draw_theorem,
}
"""The drawing of each chapter, by the name of its page."""

_PAIR = {"without normalisation": ("without", VERMILLION, "--"), "batch norm": ("batch norm", BLUE, "-")}


def _middle(values: np.ndarray) -> str:
    """Return the median over seeds as text with two digits."""
    median = float(np.median(values))
    return f"{median:.2g}" if median < 99 else f"{median:.0f}"


def _errors(axes: Axes, x: Sequence[float], rows: Sequence, mark: str, color: str, label: str) -> list[str]:
    """Draw the median and the range of each row's final errors in per cent; return the medians."""
    ends = [100 * np.array([np.atleast_1d(run)[-1] for run in row], dtype=float) for row in rows]
    middle = np.array([np.median(each) for each in ends])
    reach = [middle - [each.min() for each in ends], [each.max() for each in ends] - middle]
    axes.errorbar(x, middle, reach, fmt=mark, color=color, ms=4, lw=1.4, label=label)
    return [_middle(each) for each in ends]


def _label(axes: Axes, x: str, y: str, legend: str = "") -> None:
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=9)
    if legend:
        axes.legend(loc=legend, fontsize=8.5, handlelength=1.6, labelspacing=0.3)
