"""Find the largest learning rate at which full-batch gradient descent is stable, by bisection."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import BatchNorm, datasets, tables
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp
from bnlib.probes import largest_stable_learning_rate, sharpness

NORMS = {"without normalisation": None, "batch norm": BatchNorm}
INITS = {"PyTorch default": None, "He": nn.init.kaiming_normal_}
DEPTHS = (2, 4, 8)
SEEDS = {"quick": range(5), "paper": range(20)}
SAMPLES, STEPS, RATIO = 512, 30, 1.15


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return initialisation, norm and number of hidden layers in all combinations."""
    return {setting: SEEDS[scale] for setting in itertools.product(INITS, NORMS, DEPTHS)}


def measure(init: str, norm: str, depth: int, *, seed: int, device: str) -> dict[str, Any]:
    """Measure sharpness and largest stable learning rate on ``SAMPLES`` digits.

    A learning rate is stable if none of ``STEPS`` steps leads to a loss above the initial one.

    Returns:
        ``rate``: the largest learning rate found stable, within a factor ``RATIO`` of one that is not; ``loss``: the
        loss after ``STEPS`` steps at this rate, in nats; ``sharpness``: the largest eigenvalue of the Hessian before
        training.
    """
    data = datasets.load("digits").to(device)
    x, y = data.train_x[:SAMPLES], data.train_y[:SAMPLES]

    def build() -> nn.Module:
        return mlp((64, *[100] * depth, 10), NORMS[norm], init=INITS[init], seed=seed).to(device)

    def loss(model: nn.Module) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    final_losses: dict[float, float] = {}

    def stable(lr: float) -> bool:
        model = build()
        optimiser, first = torch.optim.SGD(model.parameters(), lr=lr), math.inf
        for _ in range(STEPS + 1):
            value = loss(model)
            first = min(first, math.inf if first < math.inf else value.item())
            if not value.item() <= first:
                return False
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
        final_losses[lr] = value.item()
        return True

    found = largest_stable_learning_rate(stable, 1e-3, 1e3, RATIO)
    top = sharpness(build(), loss, tolerance=1e-2)
    return {"rate": found.low, "loss": final_losses[found.low], "sharpness": top.value.item()}


EXPERIMENT = Measurement(
    name="smoothness.stable_learning_rates",
    question="How large can the learning rate be before the loss of gradient descent exceeds its initial value?",
    source="chapter 3",
    axes=("init", "norm", "depth"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result: numbers of shape (seeds,) for each setting."""
    return EXPERIMENT.load("quick")


def rate_ratio(init: str, depth: int) -> float:
    """Return the median largest stable learning rate with BN divided by that without BN."""
    plain, bn = (np.median(load()[init, norm, depth]["rate"]) for norm in NORMS)
    return float(bn / plain)


def rate_and_loss_rows() -> list[dict]:
    """Return table rows, one per initialisation and depth: largest stable learning rate and loss after training at it.

    Each cell has one number per seed; the ratio is that of the medians.
    """
    rows = []
    for init, depth in itertools.product(INITS, DEPTHS):
        seeds = {norm: load()[init, norm, depth] for norm in NORMS}
        rates = {("largest stable learning rate", norm): row["rate"] for norm, row in seeds.items()}
        losses = {(f"loss after {STEPS} steps (nats)", norm): row["loss"] for norm, row in seeds.items()}
        ratio = {("largest stable learning rate", "ratio"): tables.significant(rate_ratio(init, depth))}
        rows.append({"initialisation": f"{init}, {depth} hidden layers"} | rates | ratio | losses)
    return rows


def sharpness_rows() -> list[dict]:
    """Return table rows, one per initialisation and depth: medians of sharpness and largest stable rate."""
    columns = {
        "sharpness before training": lambda row: row["sharpness"],
        "2 / sharpness": lambda row: 2 / row["sharpness"],
        "largest stable learning rate": lambda row: row["rate"],
    }
    return [
        {"initialisation": f"{init}, {depth} hidden layers"}
        | {
            (header, norm): float(np.median(column(load()[init, norm, depth])))
            for header, column in columns.items()
            for norm in NORMS
        }
        for init, depth in itertools.product(INITS, DEPTHS)
    ]
