"""Train workers that hold only one sample each, as with large images, and compare the normalisation methods."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np

from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.machines.label_skew import evaluate_workers, simulate

WORKERS, COMPARED = (2,), ("layer norm", "local BN", "SyncBN", "shared FN")
STEPS, LEARNING_RATE = 1000, 0.05
SEEDS = {"quick": range(3), "paper": range(10)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return each method with each number of workers, with random shards."""
    return {setting: SEEDS[scale] for setting in itertools.product(COMPARED, WORKERS)}


def measure(method: str, workers: int, *, seed: int, device) -> dict[str, float]:
    """Simulate a training on the CPU with one sample per worker, and evaluate it as ``label_skew`` does."""
    ((_, models),) = simulate(method, workers, 0.0, seed, batch_size=1, steps=STEPS, lr=LEARNING_RATE)
    return {name: value for name, value in evaluate_workers(models, 1, 0.0, seed).items() if name != "train_mode"}


EXPERIMENT = Measurement(
    name="machines.one_sample_per_worker",
    question="Which normalisation lets workers with one sample each learn together?",
    source="Lian and Liu 2019, sections 4 and 5: the global batch is a small batch, too",
    axes=("method", "workers"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def error_rows() -> list[dict]:
    """Return the test errors (%) of two workers by method, with running and with recomputed statistics."""
    return [
        {
            "method": method,
            "running statistics": 100 * found["worker_0"],
            "recomputed from all training data": 100 * found["recomputed"],
        }
        for (method, _), found in load().items()
    ]
