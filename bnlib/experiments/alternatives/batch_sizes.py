"""Train a fully connected network on digits with every norm, at batch sizes from 1 to 256, with many or few labels.

All networks have the same initial weights (He et al.), so that the network without normalisation is a fair baseline;
one control has PyTorch's default initialisation. Instance norm is missing, because a vector has no positions to
normalise over; ``batch_sizes_convolutional`` has it. Batch Renorm corrects from the first step, and its averages move
as fast as BN's: with the schedule of its paper it would equal BN for the first 5000 steps, longer than most runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial

import numpy as np
import torch
from torch import nn

from bnlib import BatchRenorm
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.models import mlp
from bnlib.samplers import MaxLabelsPerBatch, Sampler, shuffled, single_label
from bnlib.sweep import Run

SIZES = (64, 64, 64, 10)
NORMS = {
    "without normalisation": None,
    "without normalisation, PyTorch init": None,
    "batch norm": "batch_norm",
    "Full Norm": "full_norm",
    "Batch Renorm": partial(BatchRenorm, momentum=0.1, r_max=3.0, d_max=5.0),
    "layer norm": "layer_norm",
    "group norm": "group_norm",
    "weight norm": "weight_norm",
    "weight standardisation + GN": "weight_standardisation",
    "cosine normalisation": "cosine",
}
CONSTRUCTIONS: dict[str, Sampler] = {
    "shuffled": shuffled,
    "two labels": MaxLabelsPerBatch(2),
    "one label": single_label,
}
EPOCHS = {1: 5, 4: 5, 16: 5, 64: 16, 256: 72}
"""Epochs by batch size: enough for both budgets."""
POINTS = {1: 20, 4: 5, 16: 5, 64: 16, 256: 72}
BATCH_SIZES = tuple(EPOCHS)
LEARNING_RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
EQUAL_SAMPLES, EQUAL_STEPS = "equal samples", "equal steps"
BUDGETS = {EQUAL_SAMPLES: dict.fromkeys(BATCH_SIZES, 5.0), EQUAL_STEPS: {1: 0.25, 4: 1.0, 16: 4.0, 64: 16.0, 256: 72.0}}
"""Epochs after which runs are compared: five epochs, which are 6,400 (incomplete batches are dropped) to 7,185 samples,
or as many as make 352 to 360 steps."""
SEEDS = {"quick": range(3), "paper": range(10)}


def trained(construction: str, batch_size: int) -> bool:
    """Tell whether the cell was trained: no class has 256 samples, and batches of one sample do not depend on it."""
    return batch_size > 1 if construction == "two labels" else construction == "shuffled" or 1 < batch_size < 256


def model(norm: str, *, seed: int) -> nn.Sequential:
    """Build the network with one of ``NORMS``."""
    init = None if norm.endswith("PyTorch init") else nn.init.kaiming_normal_
    return mlp(SIZES, NORMS[norm], init=init, seed=seed)


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return each norm with each construction of batches at each batch size and learning rate."""
    grid = itertools.product(NORMS, CONSTRUCTIONS, BATCH_SIZES, LEARNING_RATES)
    chosen = [cell for cell in grid if trained(cell[1], cell[2])]
    return runs(chosen, model, CONSTRUCTIONS, EPOCHS, POINTS, SEEDS[scale])


def runs(
    chosen: Iterable[tuple[str, str, int, float]],
    model: Callable[..., nn.Module],
    constructions: Mapping[str, Sampler],
    epochs: Mapping[int, int],
    points: Mapping[int, int],
    seeds: Iterable[int],
) -> dict[tuple, list[Run]]:
    """Return the runs of cells (norm, construction, batch size, learning rate) on digits, one per seed."""
    return {
        (norm, construction, batch_size, lr): [
            Run(
                partial(model, norm), "digits", batch_size, lr, seed,
                epochs=epochs[batch_size], checkpoints=points[batch_size], batches=constructions[construction],
            )
            for seed in seeds
        ]
        for norm, construction, batch_size, lr in chosen
    }  # fmt: skip


EXPERIMENT = Experiment(
    name="alternatives.batch_sizes",
    question="Which normalisation trains at which batch size, and on which batches?",
    source="Irpan 2017, On The Perils of Batch Norm, last section",
    axes=("norm", "construction", "batch_size", "lr"),
    cells=cells,
    curves=("test_error",),
)


@cache
def load() -> dict[tuple, dict]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def possible(construction: str, batch_size: int) -> bool:
    """Tell whether such batches exist: no class has 256 samples."""
    return construction != "one label" or batch_size < 256


def errors(norm: str, budget: str, construction: str, batch_size: int) -> np.ndarray:
    """Return test errors (shares) at the end of a budget, shape (learning rates, seeds); 0.9 for a run that diverged.

    Raises:
        ValueError: no class has ``batch_size`` samples.
    """
    if not possible(construction, batch_size):
        raise ValueError(f"batch_size must be at most 139 for batches of one label, got {batch_size}")
    made, point = "shuffled" if batch_size == 1 else construction, _checkpoint(budget, batch_size)
    rows = [load()[norm, made, batch_size, lr]["test_error"] for lr in LEARNING_RATES]
    return np.array([[error_at(run, point) for run in row] for row in rows])


def best_learning_rate(table: np.ndarray) -> int:
    """Return the index of the learning rate with the smallest median error over seeds; ties go to the smaller mean."""
    return min(range(len(table)), key=lambda index: (np.median(table[index]), table[index].mean()))


def lookup(budget: str, construction: str, batch_size: int) -> dict[str, object]:
    """Return the errors by norm, the learning rates, and the index of the best rate for each norm."""
    if not possible(construction, batch_size):
        return {"errors": {}, "rates": LEARNING_RATES, "best": {}}
    found = {norm: errors(norm, budget, construction, batch_size) for norm in NORMS}
    return {
        "errors": found,
        "rates": LEARNING_RATES,
        "best": {norm: best_learning_rate(table) for norm, table in found.items()},
    }


def train(
    budget: str, construction: str, batch_size: int, device: torch.device | str | None = None
) -> Iterator[tuple[int, int, dict[str, object]]]:
    """Train all norms now, each at its best learning rate; see ``Experiment.live``.

    Raises:
        ValueError: no class has ``batch_size`` samples.
    """
    if not possible(construction, batch_size):
        raise ValueError(f"batch_size must be at most 139 for batches of one label, got {batch_size}")
    shown, point = lookup(budget, construction, batch_size), _checkpoint(budget, batch_size)
    made = "shuffled" if batch_size == 1 else construction
    cells = {norm: (norm, made, batch_size, LEARNING_RATES[index]) for norm, index in shown["best"].items()}
    for done, total, curves in EXPERIMENT.live(cells, {}, device):
        ends = {norm: curves[f"{norm}, your run"]["test_error"][0] for norm in NORMS}
        yield done, total, shown | {"live": {norm: run[min(point, len(run) - 1)] for norm, run in ends.items()}}


def _checkpoint(budget: str, batch_size: int) -> int:
    return round(BUDGETS[budget][batch_size] * POINTS[batch_size] / EPOCHS[batch_size])


def error_at(run: list[float | None], point: int) -> float:
    """Return the error at a checkpoint; 0.9 if the run had diverged by then."""
    return 0.9 if len(run) <= point or run[point] is None else run[point]


def best_errors(norm: str, construction: str, batch_size: int, budget: str = EQUAL_SAMPLES) -> np.ndarray:
    """Return the test errors at the best learning rate in per cent, one number per seed.

    Raises:
        ValueError: no class has ``batch_size`` samples.
    """
    table = errors(norm, budget, construction, batch_size)
    return 100 * table[best_learning_rate(table)]


def median_errors(construction: str, budget: str, batch_sizes: Iterable[int]) -> dict[str, list[float]]:
    """Return the median test errors at the best learning rate in per cent: for each norm one number per batch size."""
    return {
        norm: [float(np.median(best_errors(norm, construction, size, budget))) for size in batch_sizes]
        for norm in NORMS
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
        for norm in NORMS
    ]


ONE_LABEL_SIZES = (4, 16, 64)
"""Batch sizes above 1 for which batches of one label exist."""


def median_error_rows() -> list[dict]:
    """Return the median test errors (%) by norm: shuffled batches after equal samples, one label after equal steps."""
    columns = {
        ("shuffled, equal samples", BATCH_SIZES): median_errors("shuffled", EQUAL_SAMPLES, BATCH_SIZES),
        ("one label, equal steps", ONE_LABEL_SIZES): median_errors("one label", EQUAL_STEPS, ONE_LABEL_SIZES),
    }
    rows = []
    for norm in NORMS:
        row: dict = {"norm": norm}
        for (group, sizes), medians in columns.items():
            row |= {(group, f"b = {size}"): value for size, value in zip(sizes, medians[norm], strict=True)}
        rows.append(row)
    return rows


def selection_bias() -> float:
    """Return by how much errors rise if the learning rate is chosen by the other seeds, in percentage points.

    The best rate is usually chosen by the same test errors that are then reported, which makes them look too small.
    Here each seed is measured at the rate that is best for the other two. The mean is over all norms, shuffled batches
    and batches of two labels, and the batch sizes 16, 64 and 256, after equal steps.
    """
    rises = []
    for norm, construction, batch_size in itertools.product(NORMS, ("shuffled", "two labels"), (16, 64, 256)):
        table = 100 * errors(norm, EQUAL_STEPS, construction, batch_size)
        seeds = range(table.shape[1])
        chosen = [table[best_learning_rate(np.delete(table, seed, 1)), seed] for seed in seeds]
        rises.append(np.median(chosen) - np.median(table[best_learning_rate(table)]))
    return float(np.mean(rises))


def good_learning_rate_rows(margin: float = 2.0) -> list[dict]:
    """Return for each norm how many learning rates have a median error within ``margin`` points of the best.

    Shuffled batches of 16, 64 and 256, after equal steps.
    """

    def count(norm: str, batch_size: int) -> int:
        medians = np.median(100 * errors(norm, EQUAL_STEPS, "shuffled", batch_size), 1)
        return int((medians <= medians.min() + margin).sum())

    return [{"norm": norm} | {("batch size", f"{size}"): count(norm, size) for size in (16, 64, 256)} for norm in NORMS]
