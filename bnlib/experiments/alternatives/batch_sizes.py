"""Train a fully connected network on digits with every norm, at batch sizes from 1 to 256, with many or few labels.

All networks have the same initial weights (He et al.), so that the network without normalisation is a fair baseline;
one control has PyTorch's default initialisation. Instance norm is missing, because a vector has no positions to
normalise over; ``batch_sizes_convolutional`` has it. Batch Renorm corrects from the first step, and its averages move
as fast as BN's: with the schedule of its paper it would equal BN for the first 5000 steps, longer than most runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial

import numpy as np
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


def best_learning_rate(table: np.ndarray) -> int:
    """Return the index of the learning rate with the smallest median error over seeds; ties go to the smaller mean."""
    return min(range(len(table)), key=lambda index: (np.median(table[index]), table[index].mean()))


def checkpoint(budget: str, batch_size: int) -> int:
    """Return the number of the checkpoint at the end of a budget."""
    return round(BUDGETS[budget][batch_size] * POINTS[batch_size] / EPOCHS[batch_size])


def error_at(run: list[float | None], point: int) -> float:
    """Return the error at a checkpoint; 0.9 if the run had diverged by then."""
    return 0.9 if len(run) <= point or run[point] is None else run[point]
