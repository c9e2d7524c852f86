"""Try some cures of ``cures`` at other depths and learning rates: do they work with 20, 40 and 100 layers alike?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from bnlib.experiments.depth import descent
from bnlib.experiments.depth.cures import VARIANTS
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement

LAYERS = (20, 40, 100)
COMPARED = (
    "gradient clipping",
    "variance at least 0.1",
    "linear",
    "beta 3",
    "layer norm",
    "residual",
    "pre-activation",
)
"""Variants of ``cures`` and ``descent`` that are trained with fewer layers, too."""
RATES = (1e-4, 0.01, 0.4)
MORE_RATES = dict.fromkeys(("linear", "beta 3", "tanh, gamma 0.1", "layer norm"), (0.001, 0.01))
"""Learning rates of 100 layers that ``descent`` leaves out, for variants whose gradient does not grow."""
SEEDS = {"quick": range(3), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return each variant with fewer layers at each learning rate, and ``MORE_RATES`` with all layers."""
    fewer = [(name, depth, lr) for name in COMPARED for depth in LAYERS[:-1] for lr in RATES]
    more = [(name, LAYERS[-1], lr) for name, rates in MORE_RATES.items() for lr in rates]
    return dict.fromkeys([*fewer, *more], SEEDS[scale])


def measure(variant: str, depth: int, lr: float, *, seed: int, device: str) -> dict[str, Any]:
    """Train a variant as ``descent.measure`` does, and add ``final_loss`` (nats; nan if the run diverged)."""
    found = descent.measure((descent.VARIANTS | VARIANTS)[variant], depth, lr, seed=seed, device=device)
    return found | {"final_loss": found["initial_loss"] + found["loss_changes"].sum()}


EXPERIMENT = Measurement(
    name="depth.cures_by_depth",
    question="Do the cures of 100 layers with BN work at other depths and learning rates?",
    source="Kari, a question on Stack Exchange, March 2018, and its answers",
    axes=("variant", "depth", "lr"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")
