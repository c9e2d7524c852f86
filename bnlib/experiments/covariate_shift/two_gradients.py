"""A layer with two weights, and the gradient at them before and after the step of the layer below.

The network is so small that its second layer has two weights, so the loss over these weights and the two gradients of
definition (2.3) can be drawn in a plane.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from bnlib import datasets, probes

LEARNING_RATE, STEPS_BEFORE, SEED = 2.0, 2, 1
REACH, POINTS = 2.0, 41
"""The loss is computed on a grid of POINTS by POINTS, up to REACH from the weights in both directions."""


@dataclass(frozen=True)
class TwoGradients:
    """The loss over the two weights of the second layer, before and after the step of the first layer.

    Attributes:
        weights: the two weights of the second layer, shape (2,).
        grid: the values that each of the two weights takes, shape (2, POINTS).
        losses: the loss before and after the step of the first layer, shape (2, POINTS, POINTS); the first weight
            varies along the last dimension.
        gradients: G and G' of equation (2.3), shape (2, 2).
        shift: what the probe measures for the second layer.
    """

    weights: np.ndarray
    grid: np.ndarray
    losses: np.ndarray
    gradients: np.ndarray
    shift: probes.LayerGradientShift


def measure() -> TwoGradients:
    """Train the network 64-2-1 for ``STEPS_BEFORE`` steps on 64 images of the digits 0 and 1, then measure the next."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.Tanh(), nn.Linear(2, 1, bias=False)).double()
    data = datasets.load("digits")
    chosen = (data.train_y < 2).nonzero()[:64, 0]
    x, y = data.train_x[chosen].double(), data.train_y[chosen].double()

    def loss(model: nn.Module) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(x)[:, 0], y)

    optimiser = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    for _ in range(STEPS_BEFORE):
        optimiser.zero_grad()
        loss(model).backward()
        optimiser.step()
    before = {name: value.detach() for name, value in model.named_parameters()}
    after = probes.parameters_after_step(model, optimiser, loss) | {"3.weight": before["3.weight"]}

    def loss_at(weights: Tensor, others: dict[str, Tensor]) -> Tensor:
        return loss(lambda x: functional_call(model, others | {"3.weight": weights}, (x,)))

    weights = before["3.weight"]
    gradients = [torch.func.grad(loss_at)(weights, others)[0].numpy() for others in (before, after)]
    grid = weights[0].numpy()[:, None] + np.linspace(-REACH, REACH, POINTS)
    places = torch.tensor(np.stack(np.meshgrid(*grid), -1).reshape(-1, 1, 2))
    losses = [
        torch.stack([loss_at(each, others) for each in places]).view(POINTS, POINTS) for others in (before, after)
    ]
    return TwoGradients(
        weights[0].numpy(),
        grid,
        torch.stack(losses).detach().numpy(),
        np.array(gradients),
        probes.internal_covariate_shift_of_step(model, optimiser, loss)[1],
    )
