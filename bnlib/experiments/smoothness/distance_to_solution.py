"""Measure how far weights move from their initial values until the loss is low, with BN and without."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bnlib import tables
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.smoothness.stable_learning_rates import INITS, NORMS, network, samples
from bnlib.experiments.smoothness.weight_gradients import hidden_weights

HIDDEN = 3
LEARNING_RATES = (0.1, 0.3, 1.0)
TARGET, MOST_STEPS = 0.1, 300
SEEDS = {"quick": range(3), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return initialisation, norm and learning rate in all combinations."""
    return {setting: SEEDS[scale] for setting in itertools.product(INITS, NORMS, LEARNING_RATES)}


def distances(initial: Tensor, trained: Tensor) -> dict[str, float]:
    """Measure distances from a weight matrix to another, in units of the norm of the first.

    A scale-invariant layer computes the same if each row of its weights is multiplied by a positive number. So with a
    row its whole ray is a solution.

    Returns:
        ``moved``: the distance; ``to_rays``: the distance to the nearest points of the rays of the rows;
        ``at_equal_norm``: the distance to the points of the rays where each row has its initial norm.
    """
    inner, norms, initial_norms = (initial * trained).sum(1), trained.norm(dim=1), initial.norm(dim=1)
    along = (inner / norms).clamp(min=0)
    nearest, equal = ((length / norms)[:, None] * trained for length in (along, initial_norms))
    found = {"moved": trained, "to_rays": nearest, "at_equal_norm": equal}
    return {name: ((each - initial).norm() / initial.norm()).item() for name, each in found.items()}


def measure(init: str, norm: str, lr: float, *, seed: int, device: str) -> dict[str, Any]:
    """Run full-batch gradient descent until the loss is below ``TARGET``.

    Returns:
        ``steps``: the number of steps; and the ``distances``, one number per hidden layer. All are nan if the loss is
        not below ``TARGET`` after ``MOST_STEPS`` steps.
    """
    x, y = samples(device)
    model = network(init, norm, HIDDEN, seed).to(device)
    initial = [weight.detach().clone() for weight in hidden_weights(model).values()]
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)
    for step in range(MOST_STEPS + 1):
        loss = F.cross_entropy(model(x), y)
        if loss < TARGET:
            trained = [weight.detach() for weight in hidden_weights(model).values()]
            found = [distances(*pair) for pair in zip(initial, trained, strict=True)]
            return {"steps": step} | {name: [each[name] for each in found] for name in found[0]}
        if not loss.isfinite():
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {"steps": math.nan} | {name: [math.nan] * HIDDEN for name in ("moved", "to_rays", "at_equal_norm")}


EXPERIMENT = Measurement(
    name="smoothness.distance_to_solution",
    question="How far do the weights move until the loss is low?",
    source="Santurkar et al. 2018, Lemma 4.5",
    axes=("init", "norm", "lr"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result: numbers of shape (seeds,) or (seeds, hidden layers)."""
    return EXPERIMENT.load("quick")


def best_rate(steps: dict[float, np.ndarray]) -> float:
    """Return the learning rate with the fewest steps in the median, of those at which every seed reaches the target.

    Arguments:
        steps: numbers of steps of each seed, by learning rate.

    Raises:
        ValueError: at every learning rate some seed does not reach the target.
    """
    medians = {lr: np.median(each) for lr, each in steps.items() if np.isfinite(each).all()}
    if not medians:
        raise ValueError(f"some learning rate must let every seed reach the target, got {list(steps)}")
    return min(medians, key=lambda lr: medians[lr])


def at_best_rate(init: str, norm: str) -> tuple[float, dict[str, np.ndarray]]:
    """Return the best learning rate of a network and its numbers; distances are averaged over the hidden layers."""
    lr = best_rate({lr: load()[init, norm, lr]["steps"] for lr in LEARNING_RATES})
    row = load()[init, norm, lr]
    return lr, {name: values if values.ndim == 1 else values.mean(1) for name, values in row.items()}


def rows() -> list[dict]:
    """Return table rows, one per initialisation and norm, at its best learning rate."""
    headers = {
        "moved": "distance moved",
        "to_rays": "to the nearest point of the rays",
    }
    found = []
    for init, norm in itertools.product(INITS, NORMS):
        lr, row = at_best_rate(init, norm)
        found.append(
            {"network": f"{init}, {norm}", "learning rate": f"{lr:g}", "steps": tables.spread(row["steps"], 0)}
            | {headers[name]: row[name] for name in headers}
        )
    return found
