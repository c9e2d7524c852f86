"""Measure internal covariate shift by gradients in the deep linear network of Santurkar et al. (2018)."""

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
from bnlib.experiments.covariate_shift.gradient_shift import summarise
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import deep_stack
from bnlib.probes import internal_covariate_shift_of_step

NORMS = {"without normalisation": None, "batch norm": BatchNorm}
DEPTH, WIDTH, SAMPLES = 25, 10, 1000
LEARNING_RATES = (1e-5, 1e-4, 1e-3)
"""For the mean of the loss. The source has 1e-6, apparently for the sum over the 1000 samples, which is 1e-3 here."""
SEEDS = {"quick": range(5), "paper": range(5)}
STEPS, PROBED = {"quick": 300, "paper": 10_000}, (0, 100, 200)


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return one cell per norm and learning rate; the number of steps is that of the scale."""
    return {
        (norm, lr, STEPS[scale]): SEEDS[scale]
        for norm, lr in itertools.product(NORMS, LEARNING_RATES if scale == "quick" else LEARNING_RATES[-1:])
    }


def measure(norm: str, lr: float, steps: int, *, seed: int, device: str) -> dict[str, Any]:
    r"""Minimise $\frac1n\sum_i\|W_{25}\cdots W_1x_i-Ax_i\|^2$ by SGD with all samples in each batch.

    Returns:
        as ``gradient_shift.measure``, but ``loss`` at 11 steps, from the first to the last; NaN after it diverged.
    """
    model, x, target = network_and_data(NORMS[norm], seed)
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
    return summarise(probes) | {"loss": losses}


def network_and_data(norm, seed: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Build the network, with Glorot's initialisation and ``norm`` after each layer but the last; draw the data.

    Returns:
        the network, the samples (1000, 10) and their targets (1000, 10).
    """
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
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def shift_and_loss_rows(learning_rates: Sequence[float]) -> list[dict]:
    """Return the relative step, the cosine and the final loss, a row per learning rate and norm."""
    rows = {(lr, norm): load()[norm, lr, STEPS["quick"]] for lr, norm in itertools.product(learning_rates, NORMS)}
    return [
        {
            "learning rate": f"{lr:g}",
            "network": norm,
            "relative step (‰)": 1000 * np.median(row["step_ratio"], 1),
            "cosine of G and G′": np.median(row["cosine"], 1),
            "loss after 300 steps": row["loss"][:, -1],
        }
        for (lr, norm), row in rows.items()
    ]
