"""Send a gradient back through BN for three samples, small enough to compute it by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bnlib import BatchNorm

GRADIENT = (1.0, 2.0, 6.0)
"""The gradient of the loss with respect to the three outputs of BN."""


@dataclass(frozen=True)
class ThreeSamples:
    """A gradient on its way back through BN.

    Attributes:
        x: the inputs of BN, one per sample.
        normalised: the outputs of BN.
        gradient: the gradient with respect to the outputs.
        back: the gradient with respect to the inputs.
    """

    x: np.ndarray
    normalised: np.ndarray
    gradient: np.ndarray
    back: np.ndarray

    @property
    def line(self) -> np.ndarray:
        """The best straight line through the gradients against the normalised inputs, at the three samples."""
        slope, offset = np.polyfit(self.normalised, self.gradient, 1)
        return offset + slope * self.normalised


def send_back(spread: float) -> ThreeSamples:
    """Differentiate through BN at the inputs -spread, 0 and spread."""
    x = spread * torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    x.requires_grad_()
    gradient = torch.tensor(GRADIENT, dtype=torch.float64)
    y = BatchNorm(1, eps=1e-12, affine=False).double()(x[:, None])[:, 0]
    (back,) = torch.autograd.grad(y, x, gradient)
    return ThreeSamples(*(each.detach().numpy() for each in (x, y, gradient, back)))
