"""Follow the loss of two networks along the gradient, and compare it with what the descent lemma allows.

The activation is tanh, because the gradient of a ReLU network jumps, so no number bounds its change per distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import models
from bnlib.experiments.smoothness.stable_learning_rates import NORMS, samples
from bnlib.probes import landscape_along_gradient

SIZES = (64, 100, 100, 100, 100, 10)
LARGEST, COUNT = 2.2, 80
"""The largest distance, and the number of distances."""


@dataclass(frozen=True)
class LossAlongGradient:
    r"""The loss at $w-d\,g/\|g\|$ with $g=\nabla L(w)$, and what is known of it at w.

    A step of size $\eta$ moves the weights by the distance $d=\eta\|g\|$.

    Attributes:
        distances: d, from 0 on, shape (``COUNT`` + 1,).
        loss: the loss in nats, at each distance.
        linear: the prediction of the gradient, $L(w)-d\,\|g\|$.
        bound: the bound of the descent lemma, $L(w)-d\,\|g\|+Md^2/2$.
        gradient_norm: $\|g\|$, the slope at the start.
        smoothness: M, the largest change of the gradient at these distances, per distance.
    """

    distances: np.ndarray
    loss: np.ndarray
    linear: np.ndarray
    bound: np.ndarray
    gradient_norm: float
    smoothness: float

    @property
    def safe(self) -> float:
        """The step size 2 / M, below which every step lowers the loss."""
        return 2 / self.smoothness


def loss_along_gradient(norm: str, seed: int) -> LossAlongGradient:
    """Measure the full-batch loss along the gradient at the start of a network with He initialisation.

    Arguments:
        norm: a key of ``stable_learning_rates.NORMS``.
        seed: of the initial weights.
    """
    x, y = samples()
    model = models.mlp(SIZES, NORMS[norm], activation=nn.Tanh, init=nn.init.kaiming_normal_, seed=seed)

    def loss(model: nn.Module) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    slope = landscape_along_gradient(model, loss, [LARGEST]).gradient_norm.item()
    distances = torch.linspace(0, LARGEST, COUNT + 1)
    found = landscape_along_gradient(model, loss, distances[1:] / slope)
    start, smoothness, places = found.loss.item(), found.smoothness.item(), distances.double().numpy()
    return LossAlongGradient(
        distances=places,
        loss=np.array([start, *found.losses.tolist()]),
        linear=start - places * slope,
        bound=start - places * slope + smoothness / 2 * places**2,
        gradient_norm=slope,
        smoothness=smoothness,
    )
