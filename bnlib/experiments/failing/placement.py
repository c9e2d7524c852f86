"""Compare BN before and after the activation over depths, learning rates and seeds, on digits."""

from __future__ import annotations

import itertools
from functools import cache, partial

import numpy as np

from bnlib import BatchNorm
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.experiments.framework.results import as_array
from bnlib.models import mlp
from bnlib.sweep import Run

PLACEMENTS = ("before", "after")
DEPTHS = (1, 2, 4, 8)
LEARNING_RATES = (0.03, 0.1, 0.3, 1.0)
BATCH_SIZE, EPOCHS, WIDTH = 32, 10, 64
SEEDS = {"quick": range(10), "paper": range(30)}


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return both placements at each depth and learning rate, with the same initial weights and batches."""
    return {
        (placement, depth, lr): [
            Run(
                partial(mlp, (64, *[WIDTH] * depth, 10), BatchNorm, placement=placement), "digits", BATCH_SIZE, lr,
                seed, epochs=EPOCHS, checkpoints=5,
            )
            for seed in SEEDS[scale]
        ]
        for placement, depth, lr in itertools.product(PLACEMENTS, DEPTHS, LEARNING_RATES)
    }  # fmt: skip


EXPERIMENT = Experiment(
    name="failing.placement",
    question="Is BN worse before the activation or after it?",
    source="'Why is the batch normalization layer failing?', 2025, section on placement",
    axes=("placement", "depth", "lr"),
    cells=cells,
)


@cache
def final_values(curve: str) -> dict[tuple, np.ndarray]:
    """Return the last value of a curve for each seed, by placement, depth and learning rate."""
    return {cell: as_array(row[curve])[:, -1] for cell, row in EXPERIMENT.load("quick").items()}


def after_minus_before(curve: str) -> dict[tuple[int, float], np.ndarray]:
    """Return the final value with BN after the activation minus that before, per seed, by depth and learning rate."""
    found = final_values(curve)
    grid = itertools.product(DEPTHS, LEARNING_RATES)
    return {(depth, lr): found["after", depth, lr] - found["before", depth, lr] for depth, lr in grid}


def best_median(curve: str, placement: str, depth: int) -> float:
    """Return the smallest median over seeds among the learning rates."""
    return min(float(np.median(final_values(curve)[placement, depth, lr])) for lr in LEARNING_RATES)
