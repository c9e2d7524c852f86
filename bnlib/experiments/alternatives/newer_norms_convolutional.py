"""Train the network of ``batch_sizes_convolutional`` with the two norms that were made for images and small batches.

The settings are those of ``batch_sizes_convolutional``, with their own learning rates, on shuffled batches. FRN and
EvoNorm-S0 contain their activation, and no ReLU follows them.
"""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np

from bnlib.experiments.alternatives import batch_sizes, batch_sizes_convolutional
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.sweep import Run

NORMS = ("FRN", "EvoNorm-S0")
LEARNING_RATES = {1: (0.01, 0.03, 0.1, 0.3), 16: (0.01, 0.03, 0.1, 0.3, 1.0)}
"""Learning rates by batch size."""


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return both norms on shuffled batches at each batch size and learning rate."""
    chosen = [
        (norm, "shuffled", batch_size, lr)
        for norm, (batch_size, rates) in itertools.product(NORMS, LEARNING_RATES.items())
        for lr in rates
    ]
    return batch_sizes.runs(
        chosen,
        batch_sizes_convolutional.model,
        batch_sizes_convolutional.CONSTRUCTIONS,
        batch_sizes_convolutional.EPOCHS,
        batch_sizes_convolutional.POINTS,
        batch_sizes_convolutional.SEEDS[scale],
    )


EXPERIMENT = Experiment(
    name="alternatives.newer_norms_convolutional",
    question="Do FRN and EvoNorm-S0 train a convolutional network with one image per batch, and with sixteen?",
    source="the settings of alternatives.batch_sizes_convolutional",
    axes=("norm", "construction", "batch_size", "lr"),
    cells=cells,
    curves=("test_error",),
)


@cache
def load() -> dict[tuple, dict]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def best_errors(norm: str, batch_size: int, *, end: bool = False) -> np.ndarray:
    """Return the test errors at the best learning rate in per cent, one number per seed.

    They are measured after equal steps, or at the ``end`` of the runs; at batch size 1 the end is after one epoch.
    """
    point = batch_sizes_convolutional.compared_checkpoint(batch_size, end=end)
    rows = [load()[norm, "shuffled", batch_size, lr]["test_error"] for lr in LEARNING_RATES[batch_size]]
    table = np.array([[batch_sizes.error_at(run, point) for run in row] for row in rows])
    return 100 * table[batch_sizes.best_learning_rate(table)]


def error_rows() -> list[dict]:
    """Return the rows of ``batch_sizes_convolutional`` and one for each of ``NORMS``; None for what was not trained."""
    rows = batch_sizes_convolutional.error_rows()
    _, *headers = rows[0]
    for norm in NORMS:
        found = [best_errors(norm, 1), best_errors(norm, 1, end=True), best_errors(norm, 16), None]
        rows.append({"norm": norm} | dict(zip(headers, found, strict=True)))
    return rows
