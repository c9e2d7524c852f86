"""Residual networks without normalisation of activations (Brock et al., 2021; https://arxiv.org/abs/2102.06171)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bnlib.models.building import check_counts, seeded
from bnlib.norm.weight_standardisation import weight_standardise

RELU_GAIN = math.sqrt(2 / (1 - 1 / math.pi))
"""Factor by which the output of ReLU has variance 1 if its input is standard normal."""


def normaliser_free_stack(
    depth: int = 32,
    width: int = 64,
    *,
    in_features: int = 64,
    num_classes: int = 10,
    alpha: float = 0.2,
    seed: int = 0,
) -> nn.Sequential:
    r"""Build a fully connected residual network that needs no normalisation layer.

    Block i computes $x + \alpha\,f(x/\beta_i)$. The branch f is a scaled ReLU followed by a linear layer with scaled
    weight standardisation, and it keeps the variance of its input at the start. $\beta_i=\sqrt{1+(i-1)\alpha^2}$ is the
    standard deviation that x then has, so f gets inputs of variance 1. Each sample passes through the network by
    itself.

    Arguments:
        depth: number of hidden layers: a linear layer, and ``depth - 1`` residual blocks.
        width: width of each hidden layer.
        in_features: number of values per sample, which should have mean 0 and variance 1.
        num_classes: number of outputs.
        alpha: the factor of the branches, 0.2 in the paper.
        seed: seed of the initialisation; the global generator does not change.

    Shape:
        Input (N, \*) with ``in_features`` values per sample; output (N, ``num_classes``).

    Raises:
        ValueError: if a count is below 1.

    Source: Brock et al. 2021, section 2, with linear layers in place of convolutions and without the gains.

    Example:
        >>> model = models.normaliser_free_stack(5)
        >>> sum(isinstance(layer, models.ScaledSkipConnection) for layer in model)
        4
        >>> any(isinstance(layer, bnlib.BatchNorm) for layer in model.modules())
        False
    """
    check_counts(depth=depth, width=width, in_features=in_features, num_classes=num_classes)
    with seeded(seed):
        layers: list[nn.Module] = [nn.Flatten(), _standardised(in_features, width)]
        for number in range(depth - 1):
            branch = nn.Sequential(ScaledReLU(), _standardised(width, width))
            layers.append(ScaledSkipConnection(branch, alpha, math.sqrt(1 + number * alpha**2)))
        layers += [ScaledReLU(), nn.Linear(width, num_classes)]
    return nn.Sequential(*layers)


def _standardised(fan_in: int, fan_out: int) -> nn.Linear:
    """Return a linear layer whose standardised weights are divided by the root of the fan-in."""
    layer = weight_standardise(nn.Linear(fan_in, fan_out))
    nn.init.zeros_(layer.bias)
    return parametrize.register_parametrization(layer, "weight", _Scale(1 / math.sqrt(fan_in)))


class _Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, weight: Tensor) -> Tensor:
        return self.factor * weight

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight / self.factor


class ScaledReLU(nn.Module):
    """ReLU times 1.71, so that standard normal inputs give outputs of variance 1.

    Shape:
        Any; the output has the same shape.

    Example:
        >>> round(models.ScaledReLU()(torch.randn(100000)).var().item(), 1)
        1.0
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the scaled ReLU of ``input``."""
        return RELU_GAIN * torch.relu(input)


class ScaledSkipConnection(nn.Module):
    """A module with a skip connection around it, which returns ``input + alpha * branch(input / beta)``.

    Arguments:
        branch: a module whose output has the shape of its input.
        alpha: factor of the branch.
        beta: the input of the branch is divided by it.

    Shape:
        Any shape that ``branch`` accepts; the output has the same shape.

    Example:
        >>> models.ScaledSkipConnection(nn.ReLU(), alpha=0.2, beta=2.0)(torch.tensor([-1.0, 10.0]))
        tensor([-1., 11.])
    """

    def __init__(self, branch: nn.Module, alpha: float, beta: float) -> None:
        super().__init__()
        self.branch, self.alpha, self.beta = branch, alpha, beta

    def forward(self, input: Tensor) -> Tensor:
        """Return input + alpha * branch(input / beta)."""
        return input + self.alpha * self.branch(input / self.beta)

    def extra_repr(self) -> str:
        """Return the arguments as text for the repr of a model."""
        return f"alpha={self.alpha}, beta={self.beta:.3g}"
