"""Compare the sharpness before training with the learning rates at which training is stable."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from torch.nn import functional as F

from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.smoothness import stable_rates_near_border
from bnlib.experiments.smoothness.stable_learning_rates import DEPTHS, INITS, NORMS, SEEDS, network, samples
from bnlib.probes import sharpness


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return initialisation, norm and number of hidden layers in all combinations."""
    return {setting: SEEDS[scale] for setting in itertools.product(INITS, NORMS, DEPTHS)}


def measure(init: str, norm: str, depth: int, *, seed: int, device: str) -> dict[str, Any]:
    """Return ``sharpness``, the largest eigenvalue of the Hessian of the full-batch loss before training."""
    x, y = samples(device)
    model = network(init, norm, depth, seed).to(device)
    return {"sharpness": sharpness(model, lambda model: F.cross_entropy(model(x), y), tolerance=1e-2).value.item()}


EXPERIMENT = Measurement(
    name="smoothness.initial_sharpness",
    question="How sharp is the loss before training?",
    source="chapter 3",
    axes=("init", "norm", "depth"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result: numbers of shape (seeds,) for each network."""
    return EXPERIMENT.load("quick")


def ratio_to_quadratic(init: str, norm: str, depth: int) -> np.ndarray:
    """Return the smallest unstable rate divided by 2 / sharpness, its value for a quadratic; shape (seeds,)."""
    key = init, norm, depth
    return stable_rates_near_border.load()[key]["first_unstable"] * load()[key]["sharpness"] / 2


def expected_and_measured() -> dict[tuple[str, str, int], tuple[np.ndarray, np.ndarray]]:
    """Return 2 / sharpness and the smallest unstable rate, shape (seeds,) each, by initialisation, norm and depth."""
    rates = stable_rates_near_border.load()
    return {key: (2 / found["sharpness"], rates[key]["first_unstable"]) for key, found in load().items()}
