"""Train workers that hold only one sample each, as with large images; each method has its own best learning rate."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np

from bnlib.experiments.framework.best_rates import best_rates
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.machines.label_skew import digits, recomputed, simulate
from bnlib.training import error_rate

WORKERS, COMPARED = (2,), ("layer norm", "local BN", "SyncBN", "shared FN")
STEPS, RATES = 1000, (0.005, 0.015, 0.05, 0.15, 0.5)
SEEDS = {"quick": range(3), "paper": range(10)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return each method with each number of workers and learning rate, with random shards."""
    return {setting: SEEDS[scale] for setting in itertools.product(COMPARED, WORKERS, RATES)}


def measure(method: str, workers: int, lr: float, *, seed: int, device) -> dict[str, float]:
    """Simulate a training on the CPU with one sample per worker.

    Returns:
        the test error (a share) with the running statistics of worker 0, and with ``recomputed`` ones.
    """
    ((_, models),) = simulate(method, workers, 0.0, seed, batch_size=1, steps=STEPS, lr=lr)
    data, first = digits(), models[0].eval()
    each = {"test_error": first, "recomputed": recomputed(first, data.train_x)}
    return {name: error_rate(model, data.test_x, data.test_y) for name, model in each.items()}


EXPERIMENT = Measurement(
    name="machines.one_sample_per_worker",
    question="Which normalisation lets workers with one sample each learn together?",
    source="Lian and Liu 2019, sections 4 and 5: the global batch is a small batch, too",
    axes=("method", "workers", "lr"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


@cache
def best() -> dict[str, tuple[float, dict[str, np.ndarray]]]:
    """Return for each method with two workers its best learning rate, and its errors (%) at this rate."""
    found = {arm: each.rate for arm, each in best_rates(load(), EXPERIMENT.axes, "test_error").items()}
    return {
        method: (lr, {name: 100 * value for name, value in load()[method, workers, lr].items()})
        for (method, workers), lr in found.items()
    }


def error_rows() -> list[dict]:
    """Return the test errors (%) by method at its best rate, with running and with recomputed statistics."""
    return [
        {
            "method": method,
            "learning rate": f"{lr:g}",
            "running statistics": found["test_error"],
            "recomputed from all training data": found["recomputed"],
        }
        for method, (lr, found) in best().items()
    ]
