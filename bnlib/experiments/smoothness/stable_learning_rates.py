"""Scan learning rates for those at which full-batch gradient descent is stable."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import BatchNorm, datasets
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp

NORMS = {"without normalisation": None, "batch norm": BatchNorm}
INITS = {"He": nn.init.kaiming_normal_, "PyTorch default": None}
DEPTHS = (2, 4, 8)
LEARNING_RATES = tuple(float(f"{rate:.3g}") for rate in 10 ** (np.arange(29) / 8 - 2))
"""Eight rates per decade, from 0.01 to 31.6: neighbours differ by a factor of 1.33. Some are scanned more finely, see
``stable_rates_near_border``."""
SEEDS = {"quick": range(5), "paper": range(20)}
SAMPLES, STEPS = 512, 30
LEARNED = 1.0
"""A loss (nats) that a network which has begun to learn is below; random guesses have ln 10 = 2.3."""


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return initialisation, norm, number of hidden layers and learning rate in all combinations."""
    return {setting: SEEDS[scale] for setting in itertools.product(INITS, NORMS, DEPTHS, LEARNING_RATES)}


def network(init: str, norm: str, depth: int, seed: int) -> nn.Sequential:
    """Build a network with ``depth`` hidden layers of 100 units."""
    return mlp((64, *[100] * depth, 10), NORMS[norm], init=INITS[init], seed=seed)


def samples(device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Return the digits of the full batch and their labels."""
    data = datasets.load("digits").to(device)
    return data.train_x[:SAMPLES], data.train_y[:SAMPLES]


def descend(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], lr: float) -> dict[str, float]:
    """Run ``STEPS`` steps of full-batch gradient descent; change the model and return what ``measure`` returns."""
    (x, y), first = batch, math.inf
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)
    for step in range(STEPS + 1):
        value = F.cross_entropy(model(x), y)
        first = value.item() if step == 0 else first
        if not value.item() <= first:
            return {"stable": 0, "loss": math.nan}
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    return {"stable": 1, "loss": value.item()}


def measure(init: str, norm: str, depth: int, lr: float, *, seed: int, device: str) -> dict[str, Any]:
    """Run ``STEPS`` steps of full-batch gradient descent.

    Returns:
        ``stable``: 1 if no step leads to a loss above the initial one, else 0; ``loss``: the last loss in nats, nan
        where training was not stable.
    """
    return descend(network(init, norm, depth, seed).to(device), samples(device), lr)


EXPERIMENT = Measurement(
    name="smoothness.stable_learning_rates",
    question="At which learning rates does the loss of gradient descent stay below its initial value?",
    source="chapter 3",
    axes=("init", "norm", "depth", "lr"),
    cells=cells,
    measure=measure,
)
