"""Measure how the weights of the first layer grow in training with Full Normalization, by oracle."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from bnlib import FullNorm, datasets
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.full_normalization.oracles_on_digits import SIZES
from bnlib.models import mlp
from bnlib.samplers import shuffled
from bnlib.schedules import lian_figure_4_alpha

ORACLES = ("constant", "running")
STEPS = 2200
"""100 epochs of batches of 64."""


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return the oracles, with three seeds each."""
    return {(oracle,): range(3) for oracle in ORACLES}


def measure(oracle: str, *, seed: int, device: str) -> dict[str, Any]:
    """Train on shuffled batches of 64 digits, with the learning rate, momentum and alpha of the paper's figure 7.

    Returns:
        ``weight`` and ``bias``: the norm of the first layer's weights and of its bias, end over start.
    """
    data = datasets.load("digits").to(device)
    model = mlp(SIZES, partial(FullNorm, oracle=oracle, alpha=lian_figure_4_alpha), seed=seed).to(device)
    first = model[1]
    start = first.weight.norm().item(), first.bias.norm().item()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.5)
    for index in itertools.islice(shuffled(data.train_y, 64, seed), STEPS):
        optimiser.zero_grad()
        F.cross_entropy(model(data.train_x[index]), data.train_y[index]).backward()
        optimiser.step()
    return {"weight": first.weight.norm().item() / start[0], "bias": first.bias.norm().item() / start[1]}


EXPERIMENT = Measurement(
    name="full_normalization.weight_growth",
    question="Does Full Normalization with a constant oracle let the weights grow?",
    source="chapter 5, figure 7 of Lian and Liu 2019",
    axes=("oracle",),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result: ratios of shape (seeds,) for each oracle."""
    return EXPERIMENT.load("quick")


def rows() -> list[dict]:
    """Return table rows, one per oracle."""
    return [
        {
            "oracle": oracle,
            "weights, end / start": load()[oracle,]["weight"],
            "bias, end / start": load()[oracle,]["bias"],
        }
        for oracle in ORACLES
    ]
