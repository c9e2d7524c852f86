"""Read the contest of all norms: the errors of ``batch_sizes`` and of ``newer_norms``, each at its best learning rate.

The newer norms were trained on shuffled batches for five epochs, with five seeds; the others with three. Ghost Batch
Norm appears where it differs from batch norm, in batches of 64 and 256.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np
import torch

from bnlib.experiments.alternatives import batch_sizes, newer_norms
from bnlib.experiments.alternatives.batch_sizes import (
    BATCH_SIZES,
    EQUAL_SAMPLES,
    EQUAL_STEPS,
    best_learning_rate,
    checkpoint,
    error_at,
    possible,
)

NORMS = (
    "without normalisation",
    "without normalisation, PyTorch init",
    "batch norm",
    "Ghost BN",
    "Full Norm",
    "Batch Renorm",
    "layer norm",
    "RMSNorm",
    "group norm",
    "FRN",
    "EvoNorm-S0",
    "weight norm",
    "weight standardisation + GN",
    "cosine normalisation",
    "dynamic tanh",
)
"""The norms in the order of the tables."""

MAIN = (
    "without normalisation",
    "batch norm",
    "Full Norm",
    "Batch Renorm",
    "layer norm",
    "RMSNorm",
    "group norm",
)
"""The norms of the figure, which the chapter compares with each other; the others are in its folded tables."""


@cache
def newer() -> dict[tuple, dict]:
    """Load the committed result of ``newer_norms``."""
    return newer_norms.EXPERIMENT.load("quick")


def rates(norm: str, batch_size: int) -> tuple[float, ...]:
    """Return the learning rates of a norm."""
    return newer_norms.learning_rates(norm, batch_size) if norm in newer_norms.NORMS else batch_sizes.LEARNING_RATES


def trained(norm: str, budget: str, construction: str, batch_size: int) -> bool:
    """Tell whether a norm was trained on such batches for so long."""
    if not possible(construction, batch_size):
        return False
    if norm not in newer_norms.NORMS:
        return True
    enough = batch_sizes.BUDGETS[budget][batch_size] <= newer_norms.epochs(norm, batch_size)
    return enough and (construction == "shuffled" or batch_size == 1)


def errors(norm: str, budget: str, construction: str, batch_size: int) -> np.ndarray:
    """Return test errors (shares) at the end of a budget, shape (learning rates, seeds); 0.9 for a run that diverged.

    Raises:
        ValueError: no class has ``batch_size`` samples, or the norm was not trained on such batches for so long.
    """
    if not possible(construction, batch_size):
        raise ValueError(f"batch_size must be at most 139 for batches of one label, got {batch_size}")
    if not trained(norm, budget, construction, batch_size):
        raise ValueError(f"norm must be one that was trained on {construction} batches of {batch_size}, got {norm!r}")
    point = checkpoint(budget, batch_size)
    rows = [_curves(norm, construction, batch_size, lr) for lr in rates(norm, batch_size)]
    return np.array([[error_at(run, point) for run in row] for row in rows])


def _curves(norm: str, construction: str, batch_size: int, lr: float) -> list:
    if norm in newer_norms.NORMS:
        return newer()[norm, batch_size, lr]["test_error"]
    made = "shuffled" if batch_size == 1 else construction
    return batch_sizes.load()[norm, made, batch_size, lr]["test_error"]


def lookup(budget: str, construction: str, batch_size: int) -> dict[str, object]:
    """Return the errors, the learning rates, and the index of the best rate, for each trained norm of ``MAIN``."""
    names = [norm for norm in MAIN if trained(norm, budget, construction, batch_size)]
    found = {norm: errors(norm, budget, construction, batch_size) for norm in names}
    return {
        "errors": found,
        "rates": {norm: rates(norm, batch_size) for norm in names},
        "best": {norm: best_learning_rate(table) for norm, table in found.items()},
    }


def train(
    budget: str, construction: str, batch_size: int, device: torch.device | str | None = None
) -> Iterator[tuple[int, int, dict[str, object]]]:
    """Train the norms of ``MAIN`` now, each at its best learning rate; see ``Experiment.live``.

    Raises:
        ValueError: no class has ``batch_size`` samples.
    """
    if not possible(construction, batch_size):
        raise ValueError(f"batch_size must be at most 139 for batches of one label, got {batch_size}")
    shown, point, live = lookup(budget, construction, batch_size), checkpoint(budget, batch_size), {}
    best = {norm: rates(norm, batch_size)[index] for norm, index in shown["best"].items()}
    made = "shuffled" if batch_size == 1 else construction
    older = {norm: (norm, made, batch_size, lr) for norm, lr in best.items() if norm not in newer_norms.NORMS}
    later = {norm: (norm, batch_size, lr) for norm, lr in best.items() if norm in newer_norms.NORMS}
    parts = [(batch_sizes.EXPERIMENT, older), (newer_norms.EXPERIMENT, later)][: 1 + bool(later)]
    for part, (experiment, cells) in enumerate(parts):
        for done, total, curves in experiment.live(cells, {}, device):
            ends = {norm: curves[f"{norm}, your run"]["test_error"][0] for norm in cells}
            live |= {norm: run[min(point, len(run) - 1)] for norm, run in ends.items()}
            yield done + part * total, len(parts) * total, shown | {"live": dict(live)}


def best_errors(norm: str, construction: str, batch_size: int, budget: str = EQUAL_SAMPLES) -> np.ndarray:
    """Return the test errors at the best learning rate in per cent, one number per seed.

    Raises:
        ValueError: no class has ``batch_size`` samples.
    """
    table = errors(norm, budget, construction, batch_size)
    return 100 * table[best_learning_rate(table)]


def median_errors(construction: str, budget: str, sizes: Iterable[int]) -> dict[str, list[float]]:
    """Return the median test errors at the best learning rate in per cent: for each norm one number per batch size.

    Norms that were not trained at all of these sizes are left out.
    """
    sizes = list(sizes)
    return {
        norm: [float(np.median(best_errors(norm, construction, size, budget))) for size in sizes]
        for norm in NORMS
        if all(trained(norm, budget, construction, size) for size in sizes)
    }


def one_image_or_one_label_rows() -> list[dict]:
    """Return the test errors (%), one number per seed, for batches of one image and for 64 images of one label.

    The first column is after equal samples, the second after equal steps.
    """
    return [
        {
            "norm": norm,
            "one image": best_errors(norm, "shuffled", 1),
            "64 images of one label": best_errors(norm, "one label", 64, EQUAL_STEPS),
        }
        for norm in batch_sizes.NORMS
    ]


def shuffled_error_rows() -> list[dict]:
    """Return the median test errors (%) on shuffled batches by norm, batch size and training budget.

    None stands for what was not trained.
    """
    return _error_rows(NORMS, itertools.product(("shuffled",), (EQUAL_SAMPLES, EQUAL_STEPS), BATCH_SIZES))


def few_label_rows() -> list[dict]:
    """Return the median test errors (%) of the older norms after equal steps on batches of two labels and of one."""
    settings = [
        (construction, EQUAL_STEPS, size)
        for construction in ("two labels", "one label")
        for size in BATCH_SIZES[1:]
        if possible(construction, size)
    ]
    return _error_rows(batch_sizes.NORMS, settings)


def _error_rows(norms: Iterable[str], settings: Iterable[tuple[str, str, int]]) -> list[dict]:
    """Return one row per norm, with a column for each construction of batches, budget and batch size."""
    columns = {
        (_group(construction, budget), f"b = {size}"): (construction, budget, size)
        for construction, budget, size in settings
    }
    return [{"norm": norm} | {header: _median(norm, *setting) for header, setting in columns.items()} for norm in norms]


def _group(construction: str, budget: str) -> str:
    return budget if construction == "shuffled" else construction


def _median(norm: str, construction: str, budget: str, batch_size: int) -> float | None:
    if not trained(norm, budget, construction, batch_size):
        return None
    return float(np.median(best_errors(norm, construction, batch_size, budget)))


def selection_bias() -> float:
    """Return by how much errors rise if the learning rate is chosen by the other seeds, in percentage points.

    The best rate is usually chosen by the same test errors that are then reported, which makes them look too small.
    Here each seed is measured at the rate that is best for the other two. The mean is over the norms of ``batch_sizes``
    on shuffled batches and batches of two labels, and the batch sizes 16, 64 and 256, after equal steps.
    """
    rises = []
    for norm, construction, batch_size in itertools.product(
        batch_sizes.NORMS, ("shuffled", "two labels"), (16, 64, 256)
    ):
        table = 100 * errors(norm, EQUAL_STEPS, construction, batch_size)
        seeds = range(table.shape[1])
        chosen = [table[best_learning_rate(np.delete(table, seed, 1)), seed] for seed in seeds]
        rises.append(np.median(chosen) - np.median(table[best_learning_rate(table)]))
    return float(np.mean(rises))
