"""How much the loss jumps in a step of any size, when only the weights in front of the BN layers move."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bnlib.experiments.depth.descent import VARIANTS, WIDTH, sentence
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement

STACKS = {"batch norm": (10, 40, 100), "tanh": (100,)}
POWERS = tuple(range(-22, 9, 2))
LEARNING_RATES = tuple(10.0**power for power in POWERS)
STEPS = 20
LENGTHS = ("free", "kept")
SEEDS = {"quick": range(3), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Each stack at learning rates from 1e-22 to 1e8, and the control that keeps the lengths of the weights."""
    grid = [(name, depth, "free", power) for name, depths in STACKS.items() for depth in depths for power in POWERS]
    kept = [("batch norm", 100, "kept", power) for power in POWERS if power >= -6]
    return {cell: SEEDS[scale] for cell in (*grid, *kept)}


def measure(network: str, depth: int, lengths: str, power: int, *, seed: int, device: str) -> dict[str, Any]:
    """Gradient descent in float64 on the weights of the hidden layers alone; the last layer, gamma and beta stay.

    Returns:
        ``jitter``, the mean of |change of the loss| in a step of the last half; ``net``, the mean change; ``first``,
        |change| in the first step.
    """
    x, y = (each.to(device) for each in sentence())
    model = VARIANTS[network].build(depth=depth, width=WIDTH, seed=seed).to(device, x.dtype)
    hidden = [each.weight for each in model.modules() if isinstance(each, nn.Linear)][:-1]
    first = [weight.detach().norm(dim=1, keepdim=True) for weight in hidden]
    losses = []
    for _ in range(STEPS + 1):
        loss = F.cross_entropy(model(x), y)
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, hidden)
        with torch.no_grad():
            torch._foreach_add_(hidden, gradients, alpha=-(10.0**power))
            if lengths == "kept":
                for weight, length in zip(hidden, first, strict=True):
                    weight.mul_(length / weight.norm(dim=1, keepdim=True))
    change = np.diff(losses)
    late = change[STEPS // 2 :]
    return {"jitter": np.abs(late).mean(), "net": late.mean(), "first": abs(change[0])}


EXPERIMENT = Measurement(
    name="depth.loss_jumps",
    question="How much does the loss of a deep stack jump in a step, from far too small to far too large ones?",
    source="Kari, a question on Stack Exchange, March 2018",
    axes=("network", "depth", "lengths", "power"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """The committed result."""
    return EXPERIMENT.load("quick")


def line(network: str, depth: int, lengths: str = "free", name: str = "jitter") -> np.ndarray:
    """One of the numbers over learning rates, shape (seeds, rates); for "kept" the last rates only."""
    found = [row[name] for key, row in load().items() if key[:3] == (network, depth, lengths)]
    return np.stack(found, 1)


def strangers(network: str = "batch norm", depth: int = 100, draws: int = 8, seed: int = 0) -> float:
    """Mean difference of the losses of two networks whose last layer is the same and whose hidden weights are not.

    The level of the jumps if each step made a new network of the hidden layers.
    """
    x, y = sentence()
    with torch.no_grad():
        last = VARIANTS[network].build(depth=depth, width=WIDTH, seed=seed)[-1]
        losses = []
        for number in range(draws):
            model = VARIANTS[network].build(depth=depth, width=WIDTH, seed=1000 + draws * seed + number)
            model[-1] = last
            losses.append(F.cross_entropy(model.to(x.dtype)(x), y).item())
    return float(np.mean([abs(a - b) for a, b in itertools.combinations(losses, 2)]))
