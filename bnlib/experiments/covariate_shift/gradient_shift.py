"""Measure internal covariate shift by gradients: how far the steps of the earlier layers turn a layer's gradient.

At quick scale with a small network on digits, at paper scale with the VGG network of Santurkar et al. (2018) on
CIFAR-10.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from bnlib.experiments.covariate_shift import probed_training
from bnlib.experiments.covariate_shift.probed_training import AXES, INITS, LEARNING_RATES, NORMS, SIZES
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.probes import LayerGradientShift, internal_covariate_shift_of_step

__all__ = [
    "BATCH_SIZES",
    "EXPERIMENT",
    "INITS",
    "LEARNING_RATES",
    "NORMS",
    "SIZES",
    "by_norm",
    "equal_step_rows",
    "load",
    "measure",
    "median_over_layers",
    "rank_correlation",
    "rank_correlation_rows",
    "relative_shift_rows",
    "summarise",
]

BATCH_SIZES = (4, 16, 64, 256)
STEPS = {"mlp": 50, "vgg": 15_000}
PROBES = 5


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return the cells of ``probed_training.cells`` for ``BATCH_SIZES``."""
    return probed_training.cells(scale, BATCH_SIZES)


def measure(
    network: str, init: str, norm: str, batch_size: int, lr: float, *, seed: int, device: str
) -> dict[str, Any]:
    """Train with SGD and probe ``PROBES`` steps at equal intervals, the first one included.

    Returns:
        for each layer from the second on (the first has no earlier layer): ``cosine``, the mean over the probed steps,
        ``relative_ics`` and ``step_ratio``, the medians over the probed steps; and ``loss``, the mean mini-batch loss
        in nats of each tenth of the run.
    """
    steps, losses, probes = STEPS[network], [], []
    for step, model, optimiser, loss in probed_training.training_steps(
        network, init, norm, batch_size, lr, steps, seed, device, losses
    ):
        if step % (steps // PROBES) == 0:
            probes.append(internal_covariate_shift_of_step(model, optimiser, loss))
    return summarise(probes) | {"loss": torch.stack(losses).view(10, -1).mean(1).tolist()}


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


def by_norm(init: str, batch_size: int, lr: float) -> dict[str, dict[str, np.ndarray]]:
    """Return the committed measurements of one setting, by norm."""
    return {norm: load()["mlp", init, norm, batch_size, lr] for norm in NORMS}


def median_over_layers(
    norm: str, init: str, batch_size: int, lr: float, measurement: str = "relative_ics"
) -> np.ndarray:
    """Return the median over layers of a committed measurement, one value per seed."""
    return np.median(load()["mlp", init, norm, batch_size, lr][measurement], axis=1)


def relative_shift_rows() -> list[dict]:
    """Return the relative shift with BN and without in four settings, a row per setting."""
    settings = [("PyTorch default", 64, 0.1), ("He", 64, 0.1), ("He", 256, 0.3), ("He", 4, 0.1)]
    return [
        {"initialisation": init, "batch size": batch_size, "learning rate": f"{lr:g}"}
        | {norm: median_over_layers(norm, init, batch_size, lr) for norm in NORMS}
        for init, batch_size, lr in settings
    ]


def equal_step_rows() -> list[dict]:
    """Return relative steps and shifts of two pairs of settings, chosen so that BN takes no longer steps."""
    pairs = [(256, "without normalisation", 0.1), (256, "batch norm", 1.0)]
    pairs += [(4, "without normalisation", 0.1), (4, "batch norm", 0.03)]
    return [
        {
            "batch size": str(batch_size),
            "network": norm,
            "learning rate": f"{lr:g}",
            "relative step": float(np.median(median_over_layers(norm, "He", batch_size, lr, "step_ratio"))),
            "relative shift": float(np.median(median_over_layers(norm, "He", batch_size, lr))),
        }
        for batch_size, norm, lr in pairs
    ]


def rank_correlation(norms: Collection[str] = tuple(NORMS), rates: Collection[float] = LEARNING_RATES) -> float:
    """Return the rank correlation of relative shift and final loss over the settings that did not diverge.

    One point per initialisation, norm, batch size and learning rate; medians over layers and seeds.
    """
    rows = [row for (_, _, norm, _, lr), row in load().items() if norm in norms and lr in rates]
    shift = np.array([np.median(np.median(row["relative_ics"], 1)) for row in rows])
    loss = np.array([np.median(row["loss"][:, -1]) for row in rows])
    converged = np.isfinite(shift) & np.isfinite(loss)
    ranks = [np.argsort(np.argsort(values[converged])) for values in (shift, loss)]
    return float(np.corrcoef(*ranks)[0, 1])


def rank_correlation_rows() -> list[dict]:
    """Return the rank correlations, a row for each norm and a column for each learning rate below 1."""
    return [
        {"network": norm} | {f"learning rate {lr:g}": rank_correlation([norm], [lr]) for lr in LEARNING_RATES if lr < 1}
        for norm in NORMS
    ]
