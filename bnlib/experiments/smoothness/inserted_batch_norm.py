"""Insert BN without changing what a network computes, and look for the learning rates at which training is stable.

The networks are those of ``stable_learning_rates``. Before training, the network with BN has the same weights, the same
outputs and the same loss as the network without.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from torch.nn import functional as F

from bnlib import tables
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.smoothness import initial_sharpness, stable_rates_near_border
from bnlib.experiments.smoothness.stable_learning_rates import (
    DEPTHS,
    INITS,
    LEARNING_RATES,
    SEEDS,
    descend,
    network,
    samples,
)
from bnlib.experiments.smoothness.weight_gradients import with_batch_norm
from bnlib.probes import LearningRateScan, sharpness


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return initialisation and number of hidden layers in all combinations."""
    return {setting: SEEDS[scale] for setting in itertools.product(INITS, DEPTHS)}


def measure(init: str, depth: int, *, seed: int, device: str) -> dict[str, Any]:
    """Insert BN after every hidden linear layer, and train at each of ``LEARNING_RATES``.

    Returns:
        ``sharpness`` before training, with respect to all parameters; one number per learning rate: ``stable`` and
        ``loss``, as in ``stable_learning_rates.measure``.
    """
    x, y = samples(device)
    model = with_batch_norm(network(init, "without normalisation", depth, seed).to(device), x, range(depth))
    runs = [descend(copy.deepcopy(model), (x, y), lr) for lr in LEARNING_RATES]
    found = {name: [run[name] for run in runs] for name in runs[0]}
    top = sharpness(model, lambda model: F.cross_entropy(model(x), y), tolerance=1e-2).value
    return found | {"sharpness": top.item()}


EXPERIMENT = Measurement(
    name="smoothness.inserted_batch_norm",
    question="At which learning rates is a network stable into which BN is inserted without changing its outputs?",
    source="Santurkar et al. 2018, Observation 4.3",
    axes=("init", "depth"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """Load the committed result.

    Returns:
        By initialisation and depth, one number per seed: ``sharpness``; ``first_unstable``, the smallest rate that is
        not stable; ``last_stable``, the largest that is; ``lowest_loss``, the lowest loss after training.
    """
    found = {}
    for key, cell in EXPERIMENT.load("quick").items():
        scans = [LearningRateScan(LEARNING_RATES, tuple(seed > 0)) for seed in cell["stable"]]
        found[key] = {
            "sharpness": cell["sharpness"],
            "first_unstable": np.array([scan.first_unstable for scan in scans]),
            "last_stable": np.array([scan.last_stable for scan in scans]),
            "lowest_loss": np.nanmin(cell["loss"], 1),
        }
    return found


def by_network(init: str, depth: int) -> dict[str, dict[str, np.ndarray]]:
    """Return the numbers of ``load`` by network: that without BN, and the same with BN inserted."""
    key = init, "without normalisation", depth
    plain = initial_sharpness.load()[key] | stable_rates_near_border.load()[key]
    return {"without": plain, "with": load()[init, depth]}


def rows() -> list[dict]:
    """Return table rows, one per depth with He initialisation: medians of the sharpness and the largest stable rate."""
    headers = {"sharpness": "sharpness", "last_stable": "largest stable rate"}
    found = []
    for depth in DEPTHS:
        row: dict = {"layers": str(depth)}
        for (name, header), (kind, values) in itertools.product(headers.items(), by_network("He", depth).items()):
            row[header, kind] = tables.significant(np.median(values[name]))
        found.append(row)
    return found
