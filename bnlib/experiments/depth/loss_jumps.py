"""Measure how much the loss jumps per step at any learning rate, if only the weights before BN layers are trained."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import tables
from bnlib.experiments.depth.descent import VARIANTS, WIDTH, sentence
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement

STACKS = {"batch norm": (10, 40, 100), "tanh": (100,)}
LOG10_LEARNING_RATES = tuple(range(-22, 9, 2))
LEARNING_RATES = tuple(10.0**exponent for exponent in LOG10_LEARNING_RATES)
STEPS = 20
WEIGHT_NORMS = ("free", "fixed")
SEEDS = {"quick": range(3), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return each stack at learning rates from 1e-22 to 1e8, and a control with fixed weight norms."""
    stacks = [(name, depth) for name, depths in STACKS.items() for depth in depths]
    grid = [(*stack, "free", log10_lr) for stack in stacks for log10_lr in LOG10_LEARNING_RATES]
    fixed = [("batch norm", 100, "fixed", log10_lr) for log10_lr in LOG10_LEARNING_RATES if log10_lr >= -6]
    return {cell: SEEDS[scale] for cell in (*grid, *fixed)}


def measure(network: str, depth: int, weight_norms: str, log10_lr: int, *, seed: int, device: str) -> dict[str, Any]:
    """Run gradient descent in float64 on the hidden weights only; the last layer, gamma and beta are not trained.

    Returns:
        ``jitter`` and ``mean_change``: mean of |change of the loss| and of the change itself per step, over the last
        half of the steps; ``first_change``: |change| in the first step; all in nats.
    """
    x, y = (each.to(device) for each in sentence())
    model = VARIANTS[network].build(depth=depth, width=WIDTH, seed=seed).to(device, x.dtype)
    hidden = [each.weight for each in model.modules() if isinstance(each, nn.Linear)][:-1]
    initial = [weight.detach().norm(dim=1, keepdim=True) for weight in hidden]
    losses = []
    for _ in range(STEPS + 1):
        loss = F.cross_entropy(model(x), y)
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, hidden)
        with torch.no_grad():
            torch._foreach_add_(hidden, gradients, alpha=-(10.0**log10_lr))
            if weight_norms == "fixed":
                for weight, length in zip(hidden, initial, strict=True):
                    weight.mul_(length / weight.norm(dim=1, keepdim=True))
    change = np.diff(losses)
    late = change[STEPS // 2 :]
    return {"jitter": np.abs(late).mean(), "mean_change": late.mean(), "first_change": abs(change[0])}


EXPERIMENT = Measurement(
    name="depth.loss_jumps",
    question="How much does the loss of a deep stack jump per step, over 30 orders of magnitude of the learning rate?",
    source="Kari, a question on Stack Exchange, March 2018",
    axes=("network", "depth", "weight_norms", "log10_lr"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def over_learning_rates(network: str, depth: int, weight_norms: str = "free", name: str = "jitter") -> np.ndarray:
    """Return one of the numbers, shape (seeds, learning rates); fixed weight norms have the largest rates only."""
    found = [row[name] for key, row in load().items() if key[:3] == (network, depth, weight_norms)]
    return np.stack(found, 1)


def loss_difference_of_unrelated_networks(
    network: str = "batch norm", depth: int = 100, draws: int = 8, seed: int = 0
) -> float:
    """Return the mean |difference of losses| of networks that share only the last layer, in nats.

    This is how large the jumps would be if each step drew new hidden weights.
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


def share_of_descent(depth: int, lowest: int, highest: int) -> float:
    """Return the smallest ratio of the mean decrease of the loss to the jitter, over seeds and learning rates.

    It is 1 if every step lowers the loss, and negative if the loss rises.

    Arguments:
        depth: layers of the stack with BN and ReLU.
        lowest, highest: powers of ten that limit the learning rates.
    """
    at = _between(lowest, highest)
    change, jitter = (over_learning_rates("batch norm", depth, name=name)[:, at] for name in ("mean_change", "jitter"))
    return float((-change / jitter).min())


def median_jitter(depth: int, lowest: int, highest: int) -> np.ndarray:
    """Return the median over seeds of the jitter at each learning rate; arguments as ``share_of_descent``."""
    return np.median(over_learning_rates("batch norm", depth)[:, _between(lowest, highest)], 0)


def _between(lowest: int, highest: int) -> list[int]:
    return [place for place, power in enumerate(LOG10_LEARNING_RATES) if lowest <= power <= highest]


def weight_norm_rows() -> list[dict]:
    """Return table rows: median jitter of 100 layers at large learning rates, with free and fixed weight norms."""
    return [
        {"norms of the weight rows": weight_norms}
        | {
            f"learning rate {tables.significant(lr, 1)}": tables.significant(value, 1)
            for lr, value in zip(
                LEARNING_RATES[-3:],
                np.median(over_learning_rates("batch norm", 100, weight_norms)[:, -3:], 0),
                strict=True,
            )
        }
        for weight_norms in WEIGHT_NORMS
    ]


@cache
def changes_of_steps(lr: float, seed: int, steps: int = STEPS, depth: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Train all parameters of the stack with BN; measure how much each step changes weights and features.

    Returns:
        The angle in degrees by which a step turns the weights of each hidden layer, shape (steps, layers), and the
        correlation of the features (inputs of the last layer) before and after the step, shape (steps,).
    """
    x, y = sentence()
    model = VARIANTS["batch norm"].build(depth=depth, width=WIDTH, seed=seed).to(x.dtype)
    hidden = [each.weight for each in model.modules() if isinstance(each, nn.Linear)][:-1]
    parameters, turns, features = list(model.parameters()), [], [_features(model, x)]
    for _ in range(steps):
        gradients = torch.autograd.grad(F.cross_entropy(model(x), y), parameters)
        with torch.no_grad():
            old = [weight.clone() for weight in hidden]
            torch._foreach_add_(parameters, gradients, alpha=-lr)
            turns.append([_angle(*pair) for pair in zip(old, hidden, strict=True)])
        features.append(_features(model, x))
    return np.array(turns), np.array([correlation(*pair) for pair in itertools.pairwise(features)])


def correlation_of_unrelated_networks(seed: int, depth: int = 100) -> float:
    """Return the correlation of the features of two networks whose hidden weights are drawn independently."""
    x, _ = sentence()
    build = VARIANTS["batch norm"].build
    pair = (build(depth=depth, width=WIDTH, seed=each).to(x.dtype) for each in (seed, 1000 + seed))
    return correlation(*(_features(model, x) for model in pair))


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the correlation of two sets of features, shape (samples, units), each unit less its mean."""
    a, b = a - a.mean(0), b - b.mean(0)
    return ((a * b).sum() / (a.norm() * b.norm())).item()


def change_rows(learning_rates: Sequence[float], seeds: Sequence[int]) -> list[dict]:
    """Return table rows: what a step changes at each learning rate, and the correlation of unrelated networks."""
    rows = []
    for lr in learning_rates:
        turns, correlations = zip(*(changes_of_steps(lr, seed) for seed in seeds), strict=True)
        rows += [
            {
                "learning rate": f"{lr:g}",
                "step": name,
                _TURN: [turn.max(1)[steps].mean() for turn in turns],
                _CORRELATION: _spread([each[steps].mean() for each in correlations]),
            }
            for name, steps in (("1", slice(1)), (f"{STEPS // 2 + 1} to {STEPS}, mean", slice(STEPS // 2, STEPS)))
        ]
    unrelated = _spread([correlation_of_unrelated_networks(seed) for seed in seeds])
    return [*rows, {"learning rate": "two unrelated networks", "step": "", _TURN: "", _CORRELATION: unrelated}]


_TURN = "largest turn of a layer (degrees)"
_CORRELATION = "correlation of the features"


def _spread(correlations: Sequence[float]) -> str:
    return tables.spread(np.round(correlations, 2) + 0.0, 2)  # 0.0 turns -0.0 into 0.0


def _features(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model[:-1](x)


def _angle(old: torch.Tensor, new: torch.Tensor) -> float:
    along = (old * new).sum() / old.norm()
    across = (new - along * old / old.norm()).norm()
    return torch.rad2deg(torch.atan2(across, along)).item()
