"""A network of one input with BN and the plain network that computes the same, for statistics of any batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bnlib.norm import BatchNorm
from bnlib.objective import Layer, absorb_batch_norm, bn_network

EPS = 1e-5
WEIGHTS = (-3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0)
DATA = torch.tensor([[-2.0], [-1.6], [-1.1], [-0.3], [0.4], [0.9], [2.2], [3.1]], dtype=torch.float64)
BATCHES = {"all data": tuple(range(8)), "the left half": (0, 1, 2, 3), "the right half": (4, 5, 6, 7), "a pair": (2, 6)}
INPUTS = torch.linspace(-3, 4, 57, dtype=torch.float64)[:, None]


@dataclass(frozen=True)
class Pair:
    """A network with BN and its plain twin.

    Attributes:
        inputs: at which both were evaluated, (n,); and ``data``, which made the statistics of "all data".
        with_bn: outputs with the statistics of each of ``BATCHES``, by name.
        plain: outputs of the plain network.
        before, after: weights and biases of both, flat, the two layers after another.
    """

    inputs: np.ndarray
    data: np.ndarray
    with_bn: dict[str, np.ndarray]
    plain: np.ndarray
    before: np.ndarray
    after: np.ndarray

    def apart(self, statistics: str) -> float:
        """The largest distance between the plain network and the one with BN with the statistics of a batch."""
        return float(np.abs(self.with_bn[statistics] - self.plain).max())


def network(weight: float) -> nn.Sequential:
    """BN, linear, tanh, BN, linear; ``weight`` is the first of the first layer."""
    generator = torch.Generator().manual_seed(1)
    layers = nn.Sequential(
        BatchNorm(1, EPS, affine=False), nn.Linear(1, 2), nn.Tanh(), BatchNorm(2, EPS, affine=False), nn.Linear(2, 1)
    ).double()
    with torch.no_grad():
        for each in layers.parameters():
            each.copy_(torch.randn(each.shape, generator=generator, dtype=torch.float64))
        layers[1].weight[0] = weight
    return layers


def _flat(layers: nn.Module) -> np.ndarray:
    return torch.cat([each.detach().flatten() for each in layers.parameters()]).numpy()


def lookup(weight: float, statistics: str) -> Pair:
    """The network with BN, and the plain one that absorbs the statistics of the batch called ``statistics``."""
    made = network(weight)
    twin = absorb_batch_norm(made, DATA[list(BATCHES[statistics])])

    def matrix(linear: nn.Linear) -> Tensor:
        return torch.cat((linear.weight, linear.bias[:, None]), 1)

    layers = [Layer(matrix(made[1]), torch.tanh), Layer(matrix(made[4]), lambda values: values)]
    with torch.no_grad():
        with_bn = {
            name: bn_network(layers, INPUTS, DATA[list(index)], EPS)[:, 0].numpy() for name, index in BATCHES.items()
        }
        plain = twin(INPUTS)[:, 0].numpy()
    return Pair(INPUTS[:, 0].numpy(), DATA[:, 0].numpy(), with_bn, plain, _flat(made), _flat(twin))
