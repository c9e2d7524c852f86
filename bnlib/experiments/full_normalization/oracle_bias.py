"""Compute the bias of each oracle's gradient exactly, over all batches of a small data set, drawn with replacement."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.norm import BatchNorm, FullNorm
from bnlib.reference import ORACLES

SAMPLES, WIDTH = 6, 4
SEEDS = {"quick": range(5), "paper": range(50)}
# The estimates are set to their exact values before each batch; a weight of 0 is not allowed.
_TINY_WEIGHT = 1e-12


class GradientError(NamedTuple):
    """Error of a stochastic gradient relative to the gradient of the full objective.

    Attributes:
        bias: norm of (average over all batches minus gradient) over norm of gradient.
        cosine: of the angle between average and gradient.
        noise: root mean square distance of a batch's gradient from the average, over norm of gradient.
    """

    bias: float
    cosine: float
    noise: float


class Problem:
    """Regression on six samples by a network with ``depth`` normalised layers, in float64.

    The gradient in question is that of the first layer's weights, below all normalisation.
    """

    def __init__(self, depth: int, seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.x = torch.randn(SAMPLES, 3, dtype=torch.float64)
            self.y = torch.randn(SAMPLES, 2, dtype=torch.float64)
            widths = [3, *[WIDTH] * depth]
            self.linears = [nn.Linear(a, b, dtype=torch.float64) for a, b in itertools.pairwise(widths)]
            self.head = nn.Linear(WIDTH, 2, dtype=torch.float64)

    def network(self, norm) -> nn.Sequential:
        """Build the network with ``norm(WIDTH, dtype=...)`` after each linear layer; the weights are shared."""
        hidden = [(linear, norm(WIDTH, dtype=torch.float64), nn.Tanh()) for linear in self.linears]
        return nn.Sequential(*itertools.chain(*hidden), self.head)

    def objective(self, weight: Tensor | None = None) -> Tensor:
        """Return objective (5) of the paper, with all samples as one batch and without any layer of bnlib."""
        z = self.x
        for index, linear in enumerate(self.linears):
            z = nn.functional.linear(z, weight if weight is not None and index == 0 else linear.weight, linear.bias)
            z = torch.tanh((z - z.mean(0)) / z.var(0, unbiased=False).sqrt())
        return (self.head(z) - self.y).square().mean()

    def gradient(self) -> Tensor:
        """Return the gradient of the objective, flat."""
        weight = self.linears[0].weight
        return torch.autograd.grad(self.objective(weight), weight)[0].flatten()

    def batch_gradients(self, network: nn.Sequential, batch_size: int) -> Tensor:
        """Return the gradients of all ``SAMPLES**batch_size`` batches, each from the same running estimates."""
        state = {name: value.clone() for name, value in network.state_dict().items()}
        rows = []
        for index in itertools.product(range(SAMPLES), repeat=batch_size):
            network.load_state_dict(state)
            loss = (network(self.x[list(index)]) - self.y[list(index)]).square().mean()
            rows.append(torch.autograd.grad(loss, self.linears[0].weight)[0].flatten())
        network.load_state_dict(state)
        return torch.stack(rows)


def exact_estimates(problem: Problem, oracle: str, batch_size: int) -> nn.Sequential:
    """Build a network whose running estimates are exact: statistics of all data, mean gradients over all batches."""
    network = problem.network(lambda *args, **options: FullNorm(*args, oracle=oracle, **options))
    layers = [layer for layer in network if isinstance(layer, FullNorm)]
    for layer in layers:
        layer.alpha = 1.0
    network(problem.x)
    if oracle == "running":
        # The gradients at a layer depend on the estimates above it: the last layer is right after one round.
        for _ in layers:
            _average_gradients(problem, network, layers, batch_size)
    for layer in layers:
        layer.alpha, layer.eps = _TINY_WEIGHT, 1e-300
    return network


def _average_gradients(problem: Problem, network: nn.Sequential, layers: list[FullNorm], batch_size: int) -> None:
    for layer in layers:
        layer.alpha = _TINY_WEIGHT
    sums = [torch.zeros(2, WIDTH, dtype=torch.float64) for _ in layers]
    affine = [parameter for layer in layers for parameter in (layer.weight, layer.bias)]
    batches = list(itertools.product(range(SAMPLES), repeat=batch_size))
    for index in batches:
        loss = (network(problem.x[list(index)]) - problem.y[list(index)]).square().mean()
        for position, grad in enumerate(torch.autograd.grad(loss, affine)):
            sums[position // 2][position % 2] += grad / len(batches)
    for layer, (of_weight, of_bias) in zip(layers, sums, strict=True):
        layer.running_grad_weight.copy_(of_weight)
        layer.running_grad_bias.copy_(of_bias)


def gradient_error(problem: Problem, oracle: str, batch_size: int) -> GradientError:
    """Return the error of an oracle of ``FullNorm`` given exact estimates, or of ``"batch norm"``."""
    network = problem.network(BatchNorm) if oracle == "batch norm" else exact_estimates(problem, oracle, batch_size)
    gradients, truth = problem.batch_gradients(network, batch_size), problem.gradient()
    average = gradients.mean(0)
    return GradientError(
        bias=((average - truth).norm() / truth.norm()).item(),
        cosine=torch.cosine_similarity(average, truth, dim=0).item() if average.norm() > 0 else math.nan,
        noise=((gradients - average).square().sum(1).mean().sqrt() / truth.norm()).item(),
    )


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return all oracles and BN with one and two normalised layers; each seed is a different problem."""
    grid = itertools.product((1, 2), (*ORACLES, "batch norm"), (1, 2, 3))
    return {cell: SEEDS[scale] for cell in grid if cell[1:] != ("leave_one_out", 1)}


def measure(depth: int, oracle: str, batch_size: int, *, seed: int, device) -> dict[str, float]:
    """Return ``gradient_error`` of one problem on the CPU, rounded to nine digits so that rounding errors are 0."""
    found = gradient_error(Problem(depth, seed), oracle, batch_size)
    return {name: round(value, 9) for name, value in found._asdict().items()}


EXPERIMENT = Measurement(
    name="full_normalization.oracle_bias",
    question="How far from the gradient of the full objective is the gradient of each oracle on average, exactly?",
    source="Lian and Liu 2019, Remark 1",
    axes=("depth", "oracle", "batch_size"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")
