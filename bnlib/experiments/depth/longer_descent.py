"""Continue full-batch descent on 100 layers with BN to 300 steps: do they learn, only slowly?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from bnlib.experiments.depth import descent
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement

STEPS, EVERY = 300, 20
LEARNING_RATES = (0.4, 10.0)
SEEDS = {"quick": range(3), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return one cell per learning rate."""
    return {(lr,): SEEDS[scale] for lr in LEARNING_RATES}


def measure(lr: float, *, seed: int, device) -> dict[str, list[float] | float]:
    """Return ``loss`` at every 20th step and ``lowest_loss`` over all steps, in nats."""
    losses = list(itertools.islice(descent.descend("batch norm", 100, lr, seed, device), STEPS + 1))
    return {"loss": losses[::EVERY], "lowest_loss": min(losses)}


EXPERIMENT = Measurement(
    name="depth.longer_descent",
    question="Does a stack of 100 layers with BN learn in the end?",
    source="Yang et al. 2019, section on trainable depth; Stack Exchange 2018, the rate of 10",
    axes=("lr",),
    cells=cells,
    measure=measure,
)
