"""Absorb the statistics of BN into the weights: a small network with BN, and the plain network with the same outputs.

The network has one input, so that its outputs can be drawn. The statistics are those of all data or of another batch.
"""

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
"""Batches by name, as indices into ``DATA``."""
INPUTS = torch.linspace(-3, 4, 57, dtype=torch.float64)[:, None]
"""Inputs at which both networks are evaluated, shape (57, 1)."""


@dataclass(frozen=True)
class AbsorbedNetwork:
    """Outputs and parameters of a network with BN, and of the plain network that absorbed the statistics of a batch.

    Attributes:
        inputs: the inputs at which both networks were evaluated, (n,).
        data: the inputs from which the statistics come, (8,).
        bn_outputs: outputs of the network with BN with the statistics of each of ``BATCHES``, by name, each (n,).
        plain_outputs: outputs of the plain network, (n,).
        bn_parameters, plain_parameters: weights and biases of each network, layer by layer, (7,).
    """

    inputs: np.ndarray
    data: np.ndarray
    bn_outputs: dict[str, np.ndarray]
    plain_outputs: np.ndarray
    bn_parameters: np.ndarray
    plain_parameters: np.ndarray

    def largest_difference(self, statistics: str) -> float:
        """Return the largest difference between the plain outputs and those of BN with the statistics of a batch."""
        return float(np.abs(self.bn_outputs[statistics] - self.plain_outputs).max())


def make_network(weight: float) -> nn.Sequential:
    """Build a network of BN, linear, tanh, BN, linear; ``weight`` is the first weight of the first linear layer."""
    generator = torch.Generator().manual_seed(1)
    layers = nn.Sequential(
        BatchNorm(1, EPS, affine=False), nn.Linear(1, 2), nn.Tanh(), BatchNorm(2, EPS, affine=False), nn.Linear(2, 1)
    ).double()
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        layers[1].weight[0] = weight
    return layers


def _flat_parameters(layers: nn.Module) -> np.ndarray:
    return torch.cat([parameter.detach().flatten() for parameter in layers.parameters()]).numpy()


def lookup(weight: float, statistics: str) -> AbsorbedNetwork:
    """Return the network with BN, and the plain one that absorbed the statistics of the batch named ``statistics``."""
    network = make_network(weight)
    plain_network = absorb_batch_norm(network, DATA[list(BATCHES[statistics])])

    def matrix(linear: nn.Linear) -> Tensor:
        return torch.cat((linear.weight, linear.bias[:, None]), 1)

    layers = [Layer(matrix(network[1]), torch.tanh), Layer(matrix(network[4]), nn.Identity())]
    with torch.no_grad():
        bn_outputs = {
            name: bn_network(layers, INPUTS, DATA[list(index)], EPS)[:, 0].numpy() for name, index in BATCHES.items()
        }
        plain_outputs = plain_network(INPUTS)[:, 0].numpy()
    return AbsorbedNetwork(
        INPUTS[:, 0].numpy(),
        DATA[:, 0].numpy(),
        bn_outputs,
        plain_outputs,
        _flat_parameters(network),
        _flat_parameters(plain_network),
    )
