"""The objectives of networks with BN: the operators and objectives of Lian and Liu (2019), equations (1) to (5).

All functions that take a network as a sequence of layers accept leading dimensions: the samples of many batches have
the shape (..., b, d), and the weights have the same leading dimensions or none. All functions are differentiable.

``model_objective`` computes the objective for any ``nn.Module``. ``absorb_batch_norm`` shows why the objectives (5) and
(3) have the same optimal value.

Source: Lian and Liu 2019 (https://proceedings.mlr.press/v89/lian19a.html), section 4.
"""

from bnlib.objective.absorption import absorb_batch_norm
from bnlib.objective.batches import all_batches, worker_batches
from bnlib.objective.objectives import (
    Estimate,
    bn_objective,
    estimated_objective,
    full_objective,
    model_objective,
    plain_objective,
)
from bnlib.objective.operators import Layer, bn_network, bn_operator, plain_network, plain_operator

__all__ = [
    "Estimate",
    "Layer",
    "absorb_batch_norm",
    "all_batches",
    "bn_network",
    "bn_objective",
    "bn_operator",
    "estimated_objective",
    "full_objective",
    "model_objective",
    "plain_network",
    "plain_objective",
    "plain_operator",
    "worker_batches",
]
