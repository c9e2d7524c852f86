"""Train with SGD and stop before each step for a measurement: a small network on digits, or VGG on CIFAR-10."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import BatchNorm, datasets, samplers
from bnlib.experiments.framework.experiment import Scale
from bnlib.models import mlp, vgg
from bnlib.probes.stateless import Loss

NORMS = {"without normalisation": None, "batch norm": BatchNorm}
INITS = {"PyTorch default": None, "He": nn.init.kaiming_normal_}
"""From PyTorch's default the network without BN starts on a plateau; from He initialisation it learns at once."""
SIZES = (64, 100, 100, 100, 10)
LEARNING_RATES = (0.03, 0.1, 0.3, 1.0)
SEEDS = {"quick": range(5), "paper": range(3)}
AXES = ("network", "init", "norm", "batch_size", "lr")


class TrainingStep(NamedTuple):
    """What is known just before a training step: its number from 0, model, optimiser, and loss on its mini-batch."""

    step: int
    model: nn.Module
    optimiser: torch.optim.Optimizer
    loss: Loss


def cells(scale: Scale, batch_sizes: Sequence[int]) -> dict[tuple, Sequence[int]]:
    """Return all settings on digits, or at paper scale that of Santurkar et al. (2018) on CIFAR-10."""
    if scale == "paper":
        return {("vgg", "Glorot", norm, 128, 0.1): SEEDS[scale] for norm in NORMS}
    return {("mlp", *each): SEEDS[scale] for each in itertools.product(INITS, NORMS, batch_sizes, LEARNING_RATES)}


def training_steps(
    network: str, init: str, norm: str, batch_size: int, lr: float, steps: int, seed: int, device, losses: list[Tensor]
) -> Iterator[TrainingStep]:
    """Train, and yield before each step; the step is made and its loss appended to ``losses`` after the yield."""
    if network == "mlp":
        model, data = mlp(SIZES, NORMS[norm], init=INITS[init], seed=seed), datasets.load("digits")
    else:
        model, data = vgg(norm=NORMS[norm], seed=seed), datasets.load("cifar10")
    model, data = model.to(device), data.to(device)
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)
    indices = itertools.islice(samplers.shuffled(data.train_y.cpu(), batch_size, seed), steps)
    for step, index in enumerate(indices):
        x, y = data.train_x[index], data.train_y[index]

        def loss(model: nn.Module, x=x, y=y) -> Tensor:
            return F.cross_entropy(model(x), y)

        yield TrainingStep(step, model, optimiser, loss)
        value = loss(model)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        losses.append(value.detach())
