"""Train the network of ``batch_sizes`` with three norms whose statistics are averages over several batches or samples.

The settings are those of ``batch_sizes``, also its three seeds, with the learning rates of ``newer_norms``. Batches are
shuffled, or have 64 images of one label. With one image per batch a run lasts an epoch, 1,437 steps, and otherwise 352
to 359 steps. The scale ``"paper"`` takes Fashion-MNIST in place of digits, and ten seeds. Moving Average BN and
Cross-Iteration BN average over 16 and 8 batches, Online Norm over about 1,000 samples. The three use their averages
from the first steps on: with the longer warm-ups of their authors' code, most runs would end before them.
"""

from __future__ import annotations

import itertools
from functools import cache, partial

import numpy as np
from torch import nn

from bnlib.experiments.alternatives import batch_sizes, newer_norms
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.models import mlp
from bnlib.sweep import Run

NORMS = {
    "Moving Average BN": "moving_average_batch_norm",
    "Online Norm": "online_norm",
    "Cross-Iteration BN": "cross_iteration_batch_norm",
}
COMPARED = (
    "without normalisation",
    "batch norm",
    "Batch Renorm",
    "Full Norm",
    "group norm",
    "weight standardisation + GN",
)
"""Norms of ``batch_sizes`` that stand beside them."""
EPOCHS = {("shuffled", 1): 1, ("shuffled", 4): 1, ("shuffled", 16): 4, ("one label", 64): 16}
"""Epochs by construction and size of the batches."""
SEEDS = {"quick": range(3), "paper": range(10)}
DATA = {"quick": ("digits", 64), "paper": ("fashion_mnist", 784)}
"""The data set of each scale, and its number of pixels."""


def model(norm: str, pixels: int = 64, *, seed: int) -> nn.Sequential:
    """Build the network with one of ``NORMS``."""
    return mlp((pixels, *batch_sizes.SIZES[1:]), NORMS[norm], init=nn.init.kaiming_normal_, seed=seed)


def points(batch_size: int, epochs: int) -> int:
    """Return the checkpoints of a run: as many per epoch as in ``batch_sizes``."""
    return round(epochs * batch_sizes.POINTS[batch_size] / batch_sizes.EPOCHS[batch_size])


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return each norm on each kind of batches at each learning rate."""
    data, pixels = DATA[scale]
    return {
        (norm, construction, batch_size, lr): [
            Run(
                partial(model, norm, pixels), data, batch_size, lr, seed,
                epochs=epochs, checkpoints=points(batch_size, epochs), batches=batch_sizes.CONSTRUCTIONS[construction],
            )
            for seed in SEEDS[scale]
        ]
        for norm, ((construction, batch_size), epochs) in itertools.product(NORMS, EPOCHS.items())
        for lr in newer_norms.LEARNING_RATES[batch_size]
    }  # fmt: skip


EXPERIMENT = Experiment(
    name="alternatives.norms_over_batches",
    question="Do norms with statistics over several batches train on small batches and on batches of one label?",
    source="the settings of alternatives.batch_sizes",
    axes=("norm", "construction", "batch_size", "lr"),
    cells=cells,
    curves=("test_error",),
)


@cache
def load() -> dict[tuple, dict]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def best_errors(norm: str, construction: str, batch_size: int) -> np.ndarray:
    """Return the test errors at the best learning rate in per cent, one number per seed; also for ``COMPARED``."""
    kept, rates = load(), newer_norms.LEARNING_RATES[batch_size]
    if norm not in NORMS:
        kept, rates = batch_sizes.load(), batch_sizes.LEARNING_RATES
    point = points(batch_size, EPOCHS[construction, batch_size])
    rows = [kept[norm, construction, batch_size, lr]["test_error"] for lr in rates]
    table = np.array([[batch_sizes.error_at(run, point) for run in row] for row in rows])
    return 100 * table[batch_sizes.best_learning_rate(table)]


def error_rows() -> list[dict]:
    """Return the test errors (%), one number per seed, by norm and batches."""
    groups = {"shuffled": "shuffled batches", "one label": "batches of one label"}
    columns = {(groups[construction], f"b = {size}"): (construction, size) for construction, size in EPOCHS}
    return [
        {"norm": norm} | {header: best_errors(norm, *batches) for header, batches in columns.items()}
        for norm in (*NORMS, *COMPARED)
    ]
