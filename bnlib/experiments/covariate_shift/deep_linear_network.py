"""Internal covariate shift by gradients in the deep linear network of Santurkar et al. (2018)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from bnlib import BatchNorm
from bnlib.experiments.covariate_shift.gradient_shift import summary
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import deep_stack
from bnlib.probes import internal_covariate_shift_of_step

NORMS = {"without normalisation": None, "batch norm": BatchNorm}
DEPTH, WIDTH, SAMPLES = 25, 10, 1000
LEARNING_RATES = (1e-5, 1e-4, 1e-3)
"""Of the mean loss. The source has a learning rate of 1e-6, of what seems to be the sum over the 1000 samples."""
SEEDS = {"quick": range(5), "paper": range(5)}
STEPS, PROBED = {"quick": 300, "paper": 10_000}, (0, 100, 200)


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Networks with BN and without at each learning rate; the number of steps tells the scales apart."""
    return {
        (norm, lr, STEPS[scale]): SEEDS[scale]
        for norm, lr in itertools.product(NORMS, LEARNING_RATES if scale == "quick" else LEARNING_RATES[-1:])
    }


def measure(norm: str, lr: float, steps: int, *, seed: int, device: str) -> dict[str, Any]:
    r"""Descend on $\frac1n\sum_i\|W_{25}\cdots W_1x_i-Ax_i\|^2$ with all samples in each batch.

    Returns:
        as ``gradient_shift.measure``; ``loss`` at 11 steps, from the first to the last, nan once it was not finite.
    """
    model, x, target = problem(NORMS[norm], seed)
    model, x, target = model.to(device), x.to(device), target.to(device)
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)

    def loss(model: nn.Module) -> torch.Tensor:
        return (model(x) - target).square().sum(1).mean()

    losses, probes = [math.nan] * 11, []
    for step in range(steps + 1):
        if step in PROBED:
            probes.append(internal_covariate_shift_of_step(model, optimiser, loss))
        value = loss(model)
        if not value.isfinite():
            break
        if step % (steps // 10) == 0:
            losses[step // (steps // 10)] = value.item()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    return summary(probes) | {"loss": losses}


def problem(norm, seed: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """The network, with Glorot's weights and ``norm`` behind each layer but the last, the samples and their targets."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        x, matrix = torch.randn(SAMPLES, WIDTH), torch.randn(WIDTH, WIDTH)
    model = deep_stack(
        DEPTH - 1,
        WIDTH,
        norm,
        activation=nn.Identity,
        in_features=WIDTH,
        num_classes=WIDTH,
        init=nn.init.xavier_normal_,
        seed=seed,
    )
    return model, x, x @ matrix.T


EXPERIMENT = Measurement(
    name="covariate_shift.deep_linear_network",
    question="How far do the steps of the earlier layers turn the gradient of a layer in a deep linear network?",
    source="Santurkar et al. 2018, section 2.2 and appendix",
    axes=("norm", "lr", "steps"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """The committed result."""
    return EXPERIMENT.load("quick")
