"""Train the two weights of one unit before BN by gradient descent, to see in the plane how they grow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from bnlib import BatchNorm

SAMPLES, STEPS, LEARNING_RATE = 200, 5, 1.0
START = (0.6, -0.8)
"""The weights at the start, of length 1."""


@dataclass(frozen=True)
class GrowingWeights:
    r"""Steps of gradient descent on weights before BN.

    Attributes:
        weights: the weights before each step and after the last, shape (steps + 1, 2).
        gradients: the gradient of each step, shape (steps, 2).
        lr: the learning rate $\eta$.
    """

    weights: np.ndarray
    gradients: np.ndarray
    lr: float

    @property
    def lengths(self) -> np.ndarray:
        """The lengths of the weights, shape (steps + 1,)."""
        return np.linalg.norm(self.weights, axis=1)

    @property
    def effective_lr(self) -> np.ndarray:
        r"""The effective learning rates $\eta/\|w\|^2$, shape (steps + 1,)."""
        return self.lr / self.lengths**2

    @property
    def angles(self) -> np.ndarray:
        """The angle in degrees by which each step turns the weights, shape (steps,)."""
        unit = self.weights / self.lengths[:, None]
        return np.degrees(np.arccos((unit[1:] * unit[:-1]).sum(1)))


def descend(lr: float = LEARNING_RATE, steps: int = STEPS) -> GrowingWeights:
    """Run gradient descent on the squared error of BN(w · x) for random samples of two classes, -1 and 1."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, 2, generator=generator, dtype=torch.float64)
    target = torch.where(x[:, 1] > 0.2 * x[:, 0], 1.0, -1.0).double()[:, None]
    norm = BatchNorm(1, eps=1e-12, affine=False).double()
    weights, gradients = [torch.tensor(START, dtype=torch.float64)], []
    for _ in range(steps):
        weight = weights[-1].clone().requires_grad_()
        loss = F.mse_loss(norm(x @ weight[:, None]), target)
        gradients.append(torch.autograd.grad(loss, weight)[0])
        weights.append(weights[-1] - lr * gradients[-1])
    return GrowingWeights(torch.stack(weights).numpy(), torch.stack(gradients).numpy(), lr)
