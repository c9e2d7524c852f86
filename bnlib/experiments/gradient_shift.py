"""Internal covariate shift by gradients: how far the steps of the earlier layers turn the gradient of a layer.

On digits with a small network, and at paper scale with the VGG network of Santurkar et al. (2018) on CIFAR-10.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import BatchNorm, datasets, samplers
from bnlib.experiments.experiment import Scale
from bnlib.experiments.measurement import Measurement
from bnlib.models import mlp, vgg
from bnlib.probes import LayerShift, probe_step

NORMS = {"no norm": None, "batch norm": BatchNorm}
INITS = {"torch": None, "He": nn.init.kaiming_normal_}
"""Weights: with torch's own the plain network stays on a plateau in all of the steps, with He's it learns at once."""
SIZES = (64, 100, 100, 100, 10)
BATCH_SIZES = (4, 16, 64, 256)
LEARNING_RATES = (0.03, 0.1, 0.3, 1.0)
SEEDS = {"quick": range(5), "paper": range(3)}
STEPS = {"mlp": 50, "vgg": 15_000}
PROBES = 5


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """All batch sizes and learning rates on digits; the published ones on CIFAR-10."""
    if scale == "paper":
        return {("vgg", "Glorot", norm, 128, 0.1): SEEDS[scale] for norm in NORMS}
    grid = itertools.product(INITS, NORMS, BATCH_SIZES, LEARNING_RATES)
    return {("mlp", *setting): SEEDS[scale] for setting in grid}


def measure(
    network: str, init: str, norm: str, batch_size: int, lr: float, *, seed: int, device: str
) -> dict[str, Any]:
    """Train with SGD and probe ``PROBES`` steps, spread evenly from the first on.

    Returns:
        of each layer from the second on (of the first there is no shift) ``cosine``, its mean over the probed steps,
        and the medians of ``relative_ics`` and ``step_ratio``; and ``loss``, the mean mini-batch loss of ten parts of
        the run.
    """
    if network == "mlp":
        model, data = mlp(SIZES, NORMS[norm], init=INITS[init], seed=seed), datasets.load("digits")
    else:
        model, data = vgg(norm=NORMS[norm], seed=seed), datasets.load("cifar10")
    model, data = model.to(device), data.to(device)
    optimiser, steps = torch.optim.SGD(model.parameters(), lr=lr), STEPS[network]
    indices = itertools.islice(samplers.shuffled(data.train_y.cpu(), batch_size, seed), steps)
    losses, probes = [], []
    for step, index in enumerate(indices):
        x, y = data.train_x[index], data.train_y[index]

        def loss(model: nn.Module, x=x, y=y) -> torch.Tensor:
            return F.cross_entropy(model(x), y)

        if step % (steps // PROBES) == 0:
            probes.append(probe_step(model, optimiser, loss))
        value = loss(model)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        losses.append(value.detach())
    return summary(probes) | {"loss": torch.stack(losses).view(10, -1).mean(1).tolist()}


def summary(probes: list[list[LayerShift]]) -> dict[str, np.ndarray]:
    """Over the probed steps the mean cosine, and the medians of the ratios, of each layer but the first."""
    values = [[(each.cosine, each.relative_ics, each.step_ratio) for each in shifts[1:]] for shifts in probes]
    cosine, relative, ratio = np.moveaxis(np.array(values), 2, 0)
    return {
        "cosine": cosine.mean(0),
        "relative_ics": np.median(relative, 0),
        "step_ratio": np.median(ratio, 0),
    }


EXPERIMENT = Measurement(
    name="gradient_shift",
    question="How far do the steps of the earlier layers turn the gradient of a layer, with BN and without?",
    source="Santurkar et al. 2018, section 2.2",
    axes=("network", "init", "norm", "batch_size", "lr"),
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
