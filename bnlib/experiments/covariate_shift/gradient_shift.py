"""Measure internal covariate shift by gradients: how far the steps of the earlier layers turn a layer's gradient.

At quick scale with a small network on digits, at paper scale with the VGG network of Santurkar et al. (2018) on
CIFAR-10.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from bnlib import datasets
from bnlib.experiments.covariate_shift import probed_training
from bnlib.experiments.covariate_shift.probed_training import AXES, INITS, LEARNING_RATES, NORMS, SIZES
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.probes import LayerGradientShift, internal_covariate_shift_of_step, with_recomputed_statistics

__all__ = [
    "BATCH_SIZES",
    "EXPERIMENT",
    "INITS",
    "LEARNING_RATES",
    "NORMS",
    "SIZES",
    "final_losses",
    "load",
    "measure",
    "median_over_layers",
    "rank_correlation_rows",
    "rank_correlations",
    "step_shift_and_loss_rows",
    "summarise",
]

BATCH_SIZES = (4, 16, 64, 256)
STEPS = {"mlp": 50, "vgg": 15_000}
PROBES, SAMPLES = 5, 2000
"""Probed steps, and training samples on which the final loss is measured (all digits)."""


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return the cells of ``probed_training.cells`` for ``BATCH_SIZES``."""
    return probed_training.cells(scale, BATCH_SIZES)


def measure(
    network: str, init: str, norm: str, batch_size: int, lr: float, *, seed: int, device: str
) -> dict[str, Any]:
    """Train with SGD and probe ``PROBES`` steps at equal intervals, the first one included.

    Returns:
        for each layer from the second on (the first has no earlier layer): ``cosine``, the mean over the probed steps,
        ``relative_ics`` and ``step_ratio``, the medians over the probed steps; ``loss``, the mean mini-batch loss in
        nats of each tenth of the run, in train mode; and ``final_loss``, the loss after the last step, in eval mode
        with the statistics of the whole training set, on which it is measured too (a sample of it at paper scale).
    """
    steps, losses, probes = STEPS[network], [], []
    for step, model, optimiser, loss in probed_training.training_steps(
        network, init, norm, batch_size, lr, steps, seed, device, losses
    ):
        if step % (steps // PROBES) == 0:
            probes.append(internal_covariate_shift_of_step(model, optimiser, loss))
    data = datasets.load("digits" if network == "mlp" else "cifar10").to(device)
    x, y = data.train_x[:SAMPLES], data.train_y[:SAMPLES]
    with torch.no_grad():
        final = F.cross_entropy(with_recomputed_statistics(model, [x])(x), y).item()
    return summarise(probes) | {"loss": torch.stack(losses).view(10, -1).mean(1).tolist(), "final_loss": final}


def summarise(probes: list[list[LayerGradientShift]]) -> dict[str, np.ndarray]:
    """Return the mean cosine and the median ratios over the probed steps, for each layer but the first."""
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
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def median_over_layers(
    norm: str, init: str, batch_size: int, lr: float, measurement: str = "relative_ics"
) -> np.ndarray:
    """Return the median over layers of a committed measurement, one value per seed."""
    return np.median(load()["mlp", init, norm, batch_size, lr][measurement], axis=1)


def final_losses(norm: str, init: str, batch_size: int, lr: float) -> np.ndarray:
    """Return the committed loss after the last step, in eval mode on the training set, one value per seed."""
    return load()["mlp", init, norm, batch_size, lr]["final_loss"]


def rank_correlations(norm: str, init: str, lr: float) -> np.ndarray:
    """Return the rank correlation of relative shift and final loss over ``BATCH_SIZES``, one value per seed.

    Initialisation, norm and learning rate are the same for all points. With four points the correlation is one of 11
    values between -1 and 1. It is NaN for a seed of which a run diverged.
    """
    shifts, losses = (
        np.array([values(norm, init, size, lr) for size in BATCH_SIZES]).T
        for values in (median_over_layers, final_losses)
    )
    ranks = [np.argsort(np.argsort(each, axis=1), axis=1) for each in (shifts, losses)]
    found = np.array([np.corrcoef(*pair)[0, 1] for pair in zip(*ranks, strict=True)])
    return np.where(np.isfinite(shifts + losses).all(1), found, np.nan)


def rank_correlation_rows() -> list[dict]:
    """Return the rank correlations, a row for each norm and initialisation, a column for each learning rate below 1."""
    return [
        {"network": norm, "initialisation": init}
        | {("learning rate", f"{lr:g}"): rank_correlations(norm, init, lr) for lr in LEARNING_RATES if lr < 1}
        for norm, init in itertools.product(NORMS, INITS)
    ]


def step_shift_and_loss_rows(batch_size: int, lr: float) -> list[dict]:
    """Return relative step, relative shift and final loss, a row for each initialisation and norm.

    Step and shift are medians over the layers. Each cell has one value per seed.
    """
    return [
        {
            "initialisation": init,
            "network": norm,
            "relative step (‰)": 1000 * median_over_layers(norm, init, batch_size, lr, "step_ratio"),
            "relative shift": median_over_layers(norm, init, batch_size, lr),
            "loss after 50 steps (nats)": final_losses(norm, init, batch_size, lr),
        }
        for init, norm in itertools.product(INITS, NORMS)
    ]
