"""Follow the function that a network with BN computes from layer to layer, for two batches that share a sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bnlib.objective import Layer, bn_operator

LAYERS = [
    Layer(torch.tensor([[1.0, 0.4]], dtype=torch.float64), torch.tanh),
    Layer(torch.tensor([[-1.2, 0.3]], dtype=torch.float64), torch.tanh),
]
"""Two layers of one unit each, so that each layer's output is a function that can be drawn."""
BATCHES = {"batch A": (-2.0, -1.0, 0.0, 1.0), "batch B": (1.0, 2.5, 3.0, 4.0)}
SHARED = 1.0
"""The sample in both batches."""
INPUTS = torch.linspace(-3, 5, 81, dtype=torch.float64)[:, None]


@dataclass(frozen=True)
class LayerOutput:
    """What a layer outputs for one batch, as a function of the network's input.

    Attributes:
        inputs, values: points, and the function there, shape (81,).
        batch, on_batch: samples of the batch, and the function there, shape (4,).
        shared, on_shared: the sample in both batches, and the function there.
    """

    inputs: np.ndarray
    values: np.ndarray
    batch: np.ndarray
    on_batch: np.ndarray
    shared: float
    on_shared: float

    @property
    def mean(self) -> float:
        """Mean over the batch, which the next layer subtracts."""
        return float(self.on_batch.mean())


def lookup() -> dict[str, list[LayerOutput]]:
    """Return for each batch the network's input and the output of each layer."""
    return {name: layer_outputs(batch) for name, batch in BATCHES.items()}


def layer_outputs(batch: tuple[float, ...]) -> list[LayerOutput]:
    """Return the network's input and the output of each layer, for the statistics of ``batch``."""
    on_batch, shared = (torch.tensor(each, dtype=torch.float64)[:, None] for each in (batch, (SHARED,)))
    found = [_output(batch, INPUTS, on_batch, shared)]
    values = INPUTS
    for weight, activation in LAYERS:
        values, shared, on_batch = (
            bn_operator(weight, activation, each, on_batch) for each in (values, shared, on_batch)
        )
        found.append(_output(batch, values, on_batch, shared))
    return found


def _output(batch: tuple[float, ...], values: Tensor, on_batch: Tensor, shared: Tensor) -> LayerOutput:
    return LayerOutput(
        inputs=INPUTS[:, 0].numpy(),
        values=values[:, 0].numpy(),
        batch=np.array(batch),
        on_batch=on_batch[:, 0].numpy(),
        shared=SHARED,
        on_shared=shared.item(),
    )
