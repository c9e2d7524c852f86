"""Compare the objective over batches with that over all data, for four samples and one weight.

Equation numbers are those of Lian and Liu (2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bnlib.objective import Layer, all_batches, bn_network, bn_objective, full_objective

X = torch.tensor([[0.0], [1.0], [3.0], [7.0]], dtype=torch.float64)
Y = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
WEIGHT, BIAS, BATCH_SIZE = 0.5, 1.5, 2
INPUTS = torch.linspace(-1, 8, 10, dtype=torch.float64)[:, None]
WEIGHTS = torch.linspace(-0.5, 2.5, 61, dtype=torch.float64)


@dataclass(frozen=True)
class Averages:
    """The functions and the losses of all batches of two samples, and those with the statistics of all data.

    Attributes:
        samples: inputs and targets, shape (2, 4).
        inputs, functions: points, shape (10,), and the outputs there with the statistics of each batch, shape (6, 10).
        function_of_all: the same with the statistics of all data, shape (10,).
        weights, losses: weights, shape (61,), and the mean squared error on each batch there, shape (6, 61).
        objective: equation (4), the mean of ``losses`` over the batches, shape (61,).
        objective_of_all: equation (5), shape (61,).
    """

    samples: np.ndarray
    inputs: np.ndarray
    functions: np.ndarray
    function_of_all: np.ndarray
    weights: np.ndarray
    losses: np.ndarray
    objective: np.ndarray
    objective_of_all: np.ndarray


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the squared error of each sample."""
    return (outputs[..., 0] - targets).square()


def layer(weight: Tensor) -> list[Layer]:
    """Return the network, one layer with ``weight``, shape (...), and ``BIAS``."""
    row = torch.stack((weight, torch.full_like(weight, BIAS)), -1)
    return [Layer(row.unsqueeze(-2), nn.Identity())]


def averages() -> Averages:
    """Return functions and losses of every batch of ``BATCH_SIZE`` samples."""
    batches = all_batches(len(X), BATCH_SIZE)
    network, networks = layer(torch.tensor(WEIGHT, dtype=torch.float64)), layer(WEIGHTS)
    functions = [bn_network(network, INPUTS, X[index])[:, 0] for index in batches]
    losses = [bn_objective(networks, squared_error, X, Y, index[None]) for index in batches]
    return Averages(
        samples=torch.stack((X[:, 0], Y)).numpy(),
        inputs=INPUTS[:, 0].numpy(),
        functions=torch.stack(functions).numpy(),
        function_of_all=bn_network(network, INPUTS, X)[:, 0].numpy(),
        weights=WEIGHTS.numpy(),
        losses=torch.stack(losses).numpy(),
        objective=bn_objective(networks, squared_error, X, Y, batches).numpy(),
        objective_of_all=full_objective(networks, squared_error, X, Y).numpy(),
    )
