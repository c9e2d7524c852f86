r"""Find out why Full Normalization fails at rate 0.1 in batches of 64, where BN does not: change one thing at a time.

The setting is that of ``objective.lian_figure_2``, a convolutional network with three normalised layers on digits. In
some arms the estimates of the layers are replaced before each step: by the exact statistics of all training images, by
the exact adjoints, or by both. In others alpha has a larger floor, the learning rate rises from 0 to its value, or
training takes as many steps as with batches of 16.

What we expected before the runs stands in ``stability_map``: if the first steps do the damage, the arms "both exact for
100 steps", "warm-up" and "four times the steps" have errors like BN's, and those with larger floors do not.
"""

from __future__ import annotations

import itertools
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
from bnlib.models import small_cnn
from bnlib.samplers import shuffled
from bnlib.schedules import PowerSchedule

LEARNING_RATE, STEPS, FIRST_STEPS = 0.1, 220, 100
_TINY_WEIGHT = 1e-12


@dataclass(frozen=True)
class Arm:
    """What is changed.

    Attributes:
        norm: ``FullNorm`` or ``BatchNorm``.
        floor: of alpha.
        statistics, adjoints: number of first steps in which they are exact.
        warm_up: number of first steps over which the learning rate rises.
        steps: number of steps.
        batch_size: samples per step.
    """

    norm: type[nn.Module] = FullNorm
    floor: float = 0.03
    statistics: int = 0
    adjoints: int = 0
    warm_up: int = 0
    steps: int = STEPS
    batch_size: int = 64


ARMS = {
    "BN": Arm(BatchNorm),
    "FN": Arm(),
    "FN, exact statistics": Arm(statistics=STEPS),
    "FN, exact adjoints": Arm(adjoints=STEPS),
    "FN, both exact": Arm(statistics=STEPS, adjoints=STEPS),
    "FN, both exact for 100 steps": Arm(statistics=FIRST_STEPS, adjoints=FIRST_STEPS),
    "FN, floor 0.1": Arm(floor=0.1),
    "FN, floor 0.3": Arm(floor=0.3),
    "FN, warm-up": Arm(warm_up=FIRST_STEPS),
    "FN, four times the steps": Arm(steps=4 * STEPS),
    "BN, batches of 16": Arm(BatchNorm, batch_size=16),
    "FN, batches of 16": Arm(batch_size=16),
}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return the arms, with five seeds each."""
    return {(arm,): range(5) for arm in ARMS}


def measure(arm: str, *, seed: int, device: str) -> dict[str, Any]:
    """Train a network and return, in eval mode at the end, ``test_error``, ``train_error`` and ``train_loss``."""
    chosen, data = ARMS[arm], datasets.load("digits").to(device)
    alpha = PowerSchedule(scale=1, power=1, floor=chosen.floor, start=1)
    norm = partial(FullNorm, alpha=alpha) if chosen.norm is FullNorm else chosen.norm
    network = small_cnn(norm=norm, seed=seed).to(device)
    optimiser = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    batches = itertools.islice(shuffled(data.train_y.cpu(), chosen.batch_size, seed), chosen.steps)
    for step, index in enumerate(batches):
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / (chosen.warm_up + 1))
        replaced = replace_estimates(network, (data.train_x, data.train_y), chosen, step, alpha)
        optimiser.zero_grad()
        F.cross_entropy(network(data.train_x[index]), data.train_y[index]).backward()
        if replaced:
            follow_adjoints(network, alpha(step))
        optimiser.step()
    return _summary(network.eval(), data)


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


@torch.no_grad()
def _summary(network: nn.Module, data: datasets.Dataset) -> dict[str, float]:
    output, of_test = network(data.train_x), network(data.test_x)
    return {
        "test_error": (of_test.argmax(1) != data.test_y).double().mean().item(),
        "train_error": (output.argmax(1) != data.train_y).double().mean().item(),
        "train_loss": F.cross_entropy(output, data.train_y).item(),
    }


EXPERIMENT = Measurement(
    name="convergence.causes_of_failures",
    question="Why does Full Normalization fail at a rate at which BN trains: statistics, adjoints, alpha or steps?",
    source="chapter 5, test errors by batch size at rate 0.1",
    axes=("arm",),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[str, dict[str, np.ndarray]]:
    """Load the committed result by arm."""
    return {arm: values for (arm,), values in EXPERIMENT.load("quick").items()}


def error_rows() -> list[dict]:
    """Return the test errors (%) at the end, a row per arm."""
    return [
        {"arm": arm, "steps": ARMS[arm].steps, "batch size": ARMS[arm].batch_size, "test error (%)": 100 * each["test_error"]}
        for arm, each in load().items()
    ]
