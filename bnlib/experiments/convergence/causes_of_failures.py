r"""Find out why Full Normalization fails at a large rate, where BN does not: change one thing at a time.

The first setting is that of ``objective.lian_figure_2``: a convolutional network with three normalised layers on digits
at rate 0.1 in batches of 64. The second is a fully connected network with three normalised layers at rate 1, small
enough to pass all training images through it before each step. There the estimates of the layers can be replaced by the
exact statistics, by the exact adjoints, or by both. In other arms alpha has another floor, the learning rate rises from
0 to its value or falls back to 0, or there are more steps. ``test_error_exact`` is the error of the same weights with
exact statistics.

What we expected before the runs stands in ``stability_map``: if the first steps do the damage, the arms "both exact at
first", "warm-up" and "four times the steps" have errors like BN's, and those with larger floors do not. The second
setting, the arms "falling rate" and "still at the end" and ``test_error_exact`` were added after a first look at
the errors of the first setting, which showed that this is not so. Then the seeds also went from five to three.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import BatchNorm, FullNorm, datasets
from bnlib.experiments.convergence import lagrangian
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp, small_cnn
from bnlib.samplers import shuffled
from bnlib.schedules import PowerSchedule

LEARNING_RATES = {"convolutional": 0.1, "fully connected": 1.0}
SIZES = (64, 50, 50, 50, 10)
STEPS, FIRST_STEPS = 220, 100
_TINY_WEIGHT = 1e-12


@dataclass(frozen=True)
class Arm:
    """What is changed.

    Attributes:
        norm: ``FullNorm`` or ``BatchNorm``.
        floor: of alpha.
        statistics, adjoints: number of first steps in which they are exact.
        warm_up: number of first steps over which the learning rate rises.
        falls: number of last steps over which the learning rate falls to 0.
        still: number of forward passes in train mode after the last step.
        steps: number of steps.
        batch_size: samples per step.
    """

    norm: type[nn.Module] = FullNorm
    floor: float = 0.03
    statistics: int = 0
    adjoints: int = 0
    warm_up: int = 0
    falls: int = 0
    still: int = 0
    steps: int = STEPS
    batch_size: int = 64


ARMS = {
    "BN": Arm(BatchNorm),
    "FN": Arm(),
    "FN, floor 0.01": Arm(floor=0.01),
    "FN, floor 0.1": Arm(floor=0.1),
    "FN, floor 0.3": Arm(floor=0.3),
    "FN, warm-up": Arm(warm_up=FIRST_STEPS),
    "FN, falling rate": Arm(falls=FIRST_STEPS),
    "FN, still at the end": Arm(still=FIRST_STEPS),
    "FN, four times the steps": Arm(steps=4 * STEPS),
    "BN, batches of 16": Arm(BatchNorm, batch_size=16),
    "FN, batches of 16": Arm(batch_size=16),
    "FN, exact statistics": Arm(statistics=STEPS),
    "FN, exact adjoints": Arm(adjoints=STEPS),
    "FN, both exact": Arm(statistics=STEPS, adjoints=STEPS),
    "FN, both exact at first": Arm(statistics=FIRST_STEPS, adjoints=FIRST_STEPS),
}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return the arms, with three seeds each; exact estimates only in the fully connected network."""
    return {
        (network, arm): range(3)
        for network, (arm, chosen) in itertools.product(LEARNING_RATES, ARMS.items())
        if network == "fully connected" or not (chosen.statistics or chosen.adjoints)
    }


def measure(network: str, arm: str, *, seed: int, device: str) -> dict[str, Any]:
    """Train a network and return its errors and losses at the end, in eval mode: ``_summary``."""
    chosen, data = ARMS[arm], datasets.load("digits").to(device)
    alpha = PowerSchedule(scale=1, power=1, floor=chosen.floor, start=1)
    norm = partial(FullNorm, alpha=alpha) if chosen.norm is FullNorm else chosen.norm
    lr = LEARNING_RATES[network]
    model = small_cnn(norm=norm, seed=seed) if network == "convolutional" else mlp(SIZES, norm, seed=seed)
    optimiser, samples = torch.optim.SGD(model.to(device).parameters(), lr=lr), (data.train_x, data.train_y)
    count = chosen.steps + chosen.still
    for step, index in enumerate(itertools.islice(shuffled(data.train_y.cpu(), chosen.batch_size, seed), count)):
        if step >= chosen.steps:
            with torch.no_grad():
                model(data.train_x[index])
            continue
        rising, falling = (step + 1) / (chosen.warm_up + 1), (chosen.steps - step) / (chosen.falls + 1)
        optimiser.param_groups[0]["lr"] = lr * min(1, rising, falling)
        replaced = replace_estimates(model, samples, chosen, step, alpha)
        optimiser.zero_grad()
        F.cross_entropy(model(data.train_x[index]), data.train_y[index]).backward()
        if replaced:
            follow_adjoints(model, alpha(step))
        optimiser.step()
    return _summary(model.eval(), data)


def replace_estimates(network: nn.Sequential, data: tuple, arm: Arm, step: int, alpha: PowerSchedule) -> bool:
    """Set the estimates of the layers to exact values, and return whether their statistics are exact now.

    Layers with exact statistics get a weight alpha that keeps them; ``follow_adjoints`` then does what it would have
    done to the running gradients.
    """
    of_statistics, of_adjoints = step < arm.statistics, step < arm.adjoints
    if of_statistics or of_adjoints:
        found = lagrangian.exact(network, data)
        lagrangian.set_tracked(
            network, found.statistics if of_statistics else None, found.adjoints if of_adjoints else None
        )
    for layer in lagrangian.layers_of(network):
        layer.alpha = _TINY_WEIGHT if of_statistics else alpha
    return of_statistics


def follow_adjoints(network: nn.Sequential, alpha: float) -> None:
    """Move the running gradients of the layers towards those of the last batch with the weight ``alpha``."""
    for layer in lagrangian.layers_of(network):
        layer.running_grad_weight.lerp_(layer.weight.grad, alpha)
        layer.running_grad_bias.lerp_(layer.bias.grad, alpha)


def _summary(network: nn.Sequential, data: datasets.Dataset) -> dict[str, float]:
    """Return ``test_error``, ``train_loss`` and ``test_error_exact``, with the exact statistics of all training data.

    And ``mean_lag``, the root mean square error of the running means in standard deviations, over all layers and
    channels; with BN the last two are nan.
    """
    found = {"test_error": _error(network, data), "test_error_exact": math.nan, "mean_lag": math.nan}
    with torch.no_grad():
        found["train_loss"] = F.cross_entropy(network(data.train_x), data.train_y).item()
    if lagrangian.layers_of(network):
        exact, (tracked, _) = lagrangian.exact(network, (data.train_x, data.train_y)), lagrangian.tracked_by(network)
        errors = [
            (u[0] - true[0]).square() / (true[1] - true[0].square())
            for u, true in zip(tracked, exact.statistics, strict=True)
        ]
        found["mean_lag"] = torch.cat(errors).detach().mean().sqrt().item()
        lagrangian.set_tracked(network, exact.statistics, None)
        found["test_error_exact"] = _error(network, data)
    return found


@torch.no_grad()
def _error(network: nn.Module, data: datasets.Dataset) -> float:
    return (network(data.test_x).argmax(1) != data.test_y).double().mean().item()


EXPERIMENT = Measurement(
    name="convergence.causes_of_failures",
    question="Why does Full Normalization fail at a rate at which BN trains: statistics, adjoints, alpha or steps?",
    source="chapter 5, test errors by batch size at rate 0.1",
    axes=("network", "arm"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result by network and arm."""
    return EXPERIMENT.load("quick")
