"""Internal covariate shift by gradients: how far the steps of the earlier layers turn the gradient of a layer.

On digits with a small network, and at paper scale with the VGG network of Santurkar et al. (2018) on CIFAR-10.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from bnlib.experiments.covariate_shift import probed_training
from bnlib.experiments.covariate_shift.probed_training import AXES, INITS, LEARNING_RATES, NORMS, SIZES
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.probes import LayerGradientShift, internal_covariate_shift_of_step

__all__ = ["BATCH_SIZES", "EXPERIMENT", "INITS", "LEARNING_RATES", "NORMS", "SIZES", "load", "lookup", "measure"]

BATCH_SIZES = (4, 16, 64, 256)
STEPS = {"mlp": 50, "vgg": 15_000}
PROBES = 5


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """See ``probed_training.cells``."""
    return probed_training.cells(scale, BATCH_SIZES)


def measure(
    network: str, init: str, norm: str, batch_size: int, lr: float, *, seed: int, device: str
) -> dict[str, Any]:
    """Train with SGD and probe ``PROBES`` steps, spread evenly from the first on.

    Returns:
        of each layer from the second on (of the first there is no shift) ``cosine``, its mean over the probed steps,
        and the medians of ``relative_ics`` and ``step_ratio``; and ``loss``, the mean mini-batch loss of ten parts of
        the run.
    """
    steps, losses, probes = STEPS[network], [], []
    for step, model, optimiser, loss in probed_training.moments(
        network, init, norm, batch_size, lr, steps, seed, device, losses
    ):
        if step % (steps // PROBES) == 0:
            probes.append(internal_covariate_shift_of_step(model, optimiser, loss))
    return summary(probes) | {"loss": torch.stack(losses).view(10, -1).mean(1).tolist()}


def summary(probes: list[list[LayerGradientShift]]) -> dict[str, np.ndarray]:
    """Over the probed steps the mean cosine, and the medians of the ratios, of each layer but the first."""
    values = [[(each.cosine, each.relative_ics, each.step_ratio) for each in shifts[1:]] for shifts in probes]
    cosine, relative, ratio = np.moveaxis(np.array(values), 2, 0)
    return {
        "cosine": cosine.mean(0),
        "relative_ics": np.median(relative, 0),
        "step_ratio": np.median(ratio, 0),
    }


EXPERIMENT = Measurement(
    name="covariate_shift.gradient_shift",
    question="How far do the steps of the earlier layers turn the gradient of a layer, with BN and without?",
    source="Santurkar et al. 2018, section 2.2",
    axes=AXES,
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """The committed result."""
    return EXPERIMENT.load("quick")


def lookup(init: str, batch_size: int, lr: float) -> dict[str, dict[str, np.ndarray]]:
    """The committed numbers of the networks with BN and without at one position of the grid."""
    return {norm: load()["mlp", init, norm, batch_size, lr] for norm in NORMS}
