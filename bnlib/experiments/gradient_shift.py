"""Internal covariate shift by gradients: how far the steps of the earlier layers turn the gradient of a layer.

On digits with a small network, and at paper scale with the VGG network of Santurkar et al. (2018) on CIFAR-10.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import BatchNorm, NoisyBatchNorm, datasets, samplers
from bnlib.experiments.experiment import Scale
from bnlib.experiments.measurement import Measurement
from bnlib.models import mlp, vgg
from bnlib.probes import LayerShift, probe_step

NORMS = {"no norm": None, "batch norm": BatchNorm, "noisy batch norm": NoisyBatchNorm}
NETWORKS = {"mlp": partial(mlp, (64, 100, 100, 100, 10), init=nn.init.kaiming_normal_), "vgg": vgg}
"""With He's weights, so that both networks learn from the first step: on a plateau no gradient turns."""
BATCH_SIZES = (4, 16, 64, 256)
LEARNING_RATES = (0.03, 0.1, 0.3, 1.0)
SEEDS = {"quick": range(5), "paper": range(3)}
STEPS = {"mlp": 50, "vgg": 15_000}
PROBES = 5


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """All batch sizes and learning rates on digits; the published ones on CIFAR-10."""
    grid = itertools.product(BATCH_SIZES, LEARNING_RATES) if scale == "quick" else [(128, 0.1)]
    network = "mlp" if scale == "quick" else "vgg"
    return {(network, norm, *setting): SEEDS[scale] for setting in grid for norm in NORMS}


def measure(network: str, norm: str, batch_size: int, lr: float, *, seed: int, device: str) -> dict[str, Any]:
    """Train with SGD and probe ``PROBES`` steps, spread evenly from the first on.

    Returns:
        of each layer from the second on (of the first there is no shift) ``cosine``, its mean over the probed steps,
        and the medians of ``relative_ics`` and ``step_ratio``; and ``loss``, the mean mini-batch loss of ten parts of
        the run.
    """
    model = NETWORKS[network](norm=NORMS[norm], seed=seed).to(device)
    data = datasets.load("digits" if network == "mlp" else "cifar10").to(device)
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
    axes=("network", "norm", "batch_size", "lr"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """The committed result."""
    return EXPERIMENT.load("quick")


def lookup(batch_size: int, lr: float) -> dict[str, dict[str, np.ndarray]]:
    """The committed numbers of the networks with BN and without at one position of the grid."""
    return {norm: load()["mlp", norm, batch_size, lr] for norm in ("no norm", "batch norm")}
