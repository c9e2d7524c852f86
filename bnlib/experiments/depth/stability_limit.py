"""Find the largest learning rate at which every step lowers the loss of a deep stack, and the initial sharpness."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from torch.nn import functional as F

from bnlib.experiments.depth.descent import DEPTHS, VARIANTS, WIDTH, descend, sentence
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.probes import largest_stable_learning_rate, sharpness

NETWORKS = ("batch norm", "tanh", "linear")
STEPS, RATIO = 10, 2.0
SEEDS = {"quick": range(3), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return stacks with BN and three activations at each depth."""
    return {cell: SEEDS[scale] for cell in itertools.product(NETWORKS, DEPTHS)}


def measure(network: str, depth: int, *, seed: int, device: str) -> dict[str, Any]:
    """Measure sharpness and the largest stable learning rate in float64.

    Returns:
        ``sharpness``: largest eigenvalue of the Hessian before training; ``largest_stable_rate``: the largest found
        at which each of ``STEPS`` steps lowers the loss, within a factor ``RATIO`` of one at which some step does not.
    """
    x, y = (each.to(device) for each in sentence())
    model = VARIANTS[network].build(depth=depth, width=WIDTH, seed=seed).to(device, x.dtype)
    top = sharpness(model, lambda model: F.cross_entropy(model(x), y), tolerance=1e-2).value.item()

    def falls(lr: float) -> bool:
        losses = itertools.islice(descend(network, depth, lr, seed, device), STEPS + 1)
        return all(after < before for before, after in itertools.pairwise(losses))

    found = largest_stable_learning_rate(falls, 1e-5 / top, 1e4 / top, RATIO)
    return {"sharpness": top, "largest_stable_rate": found.low}


EXPERIMENT = Measurement(
    name="depth.stability_limit",
    question="Below which learning rate does every step lower the loss of a deep stack?",
    source="Kari, a question on Stack Exchange, March 2018",
    axes=("network", "depth"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")
