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
LARGEST, COUNT = 0.8, 80
"""The largest step size, and the number of step sizes."""


@dataclass(frozen=True)
class LossAlongGradient:
    r"""The loss $L(w-\eta g)$ with $g=\nabla L(w)$, and what is known of it at w.

    Attributes:
        step_sizes: $\eta$, from 0 on, shape (``COUNT`` + 1,).
        loss: $L(w-\eta g)$ in nats, at each step size.
        linear: the prediction of the gradient, $L(w)-\eta\|g\|^2$.
        bound: the bound of the descent lemma, $L(w)-\eta(1-M\eta/2)\|g\|^2$.
        smoothness: M, the largest $\|g-\nabla L(w-\eta g)\|/(\eta\|g\|)$ at these step sizes.
    """

    step_sizes: np.ndarray
    loss: np.ndarray
    linear: np.ndarray
    bound: np.ndarray
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
    step_sizes = torch.linspace(0, LARGEST, COUNT + 1)
    found = landscape_along_gradient(model, lambda model: F.cross_entropy(model(x), y), step_sizes[1:])
    start, square, smoothness = found.loss.item(), found.gradient_norm.item() ** 2, found.smoothness.item()
    sizes = step_sizes.double().numpy()
    return LossAlongGradient(
        step_sizes=sizes,
        loss=np.array([start, *found.losses.tolist()]),
        linear=start - sizes * square,
        bound=start - sizes * (1 - smoothness * sizes / 2) * square,
        smoothness=smoothness,
    )
