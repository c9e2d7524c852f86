r"""The gradient at each of 100 layers before training, and what theory says of its growth.

With BN the squared gradient grows on its way down by a factor of $\lambda$ a layer. For many samples
$\lambda = E[\varphi'(z)^2] / \mathrm{Var}[\varphi(z)]$ with z standard normal and $\varphi$ the activation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bnlib.experiments.depth.descent import VARIANTS, WIDTH, sentence
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.probes import gradient_norms_by_layer, growth_per_layer

DEPTH = 100
CHARACTERS = (5, 16, 50, 128)
NETWORKS = (
    "batch norm",
    "tanh",
    "linear",
    "residual",
    "layer norm",
    "no norm, He",
    "no norm",
    "beta 3",
    "gamma 0.1",
    "tanh, gamma 0.1",
    "residual, gamma 0.1",
    "eps 0.1",
    "eps 1",
)
WIDE = 256
SEEDS = {"quick": range(3), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """All networks of the stack's width, with alphabets of four sizes; those with BN alone also wider."""
    narrow = itertools.product(NETWORKS, CHARACTERS, (WIDTH,))
    wide = itertools.product(NETWORKS[:3], CHARACTERS, (WIDE,))
    return {cell: SEEDS[scale] for cell in (*narrow, *wide)}


def measure(network: str, characters: int, width: int, *, seed: int, device: str) -> dict[str, Any]:
    """One backward pass with all characters, in float64.

    Returns:
        ``weights``: norms of the gradient at the weights of the hidden layers, the first layer first; ``growth``, its
        factor from a layer to the one below, at the weights and at the outputs of the linear layers, without the ends
        of the stack; ``apart``, one minus the mean cosine between what two characters are when they enter the last
        layer.
    """
    x, y = (each.to(device) for each in sentence(characters=characters))
    sizes = {"in_features": characters, "num_classes": characters}
    model = VARIANTS[network].build(depth=DEPTH, width=width, seed=seed, **sizes).to(device, x.dtype)
    *hidden, _ = gradient_norms_by_layer(model, lambda model: F.cross_entropy(model(x), y))
    with torch.no_grad():
        units = F.normalize(model[:-1](x), dim=1)
    others = ~torch.eye(characters, dtype=torch.bool, device=device)
    weights = [each.gradient_norm.item() for each in hidden]
    outputs = [each.output_gradient_norm.item() for each in hidden]
    return {
        "weights": weights,
        "growth": [growth_per_layer(each[5:-5]) if min(each) > 0 else math.nan for each in (weights, outputs)],
        "apart": (1 - (units @ units.T)[others]).mean().item(),
    }


EXPERIMENT = Measurement(
    name="depth.gradient_growth",
    question="How does the gradient grow or fade on its way down through 100 layers, before training?",
    source="Yang et al. 2019, section 4; Kari, a question on Stack Exchange, March 2018",
    axes=("network", "characters", "width"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """The committed result."""
    return EXPERIMENT.load("quick")


@dataclass(frozen=True)
class View:
    """What the explorer draws: the gradient at the weights, (seeds, layers), and the factor of theory or None."""

    weights: np.ndarray
    theory: float | None


def lookup(network: str, characters: int) -> View:
    """A network of the stack's width and an alphabet."""
    return View(load()[network, characters, WIDTH]["weights"], theory(network, characters))


def theory(network: str, characters: int) -> float | None:
    r"""The factor $\sqrt\lambda$ of a network of many units, from a layer to the one below; None where we have none.

    For tanh that of many samples. Without BN the weights count: the variance of torch's is 1 / (3 fan-in), and half of
    the units pass the gradient on; He's make up for that, and Layer Norm divides by the root of the mean square.
    """
    if network in ("batch norm", "linear"):
        return math.sqrt((relu_growth if network == "batch norm" else linear_growth)(characters))
    return {
        "tanh": math.sqrt(growth(torch.tanh)),
        "no norm": math.sqrt(1 / 6),
        "layer norm": 1.0,
        "no norm, He": 1.0,
    }.get(network)


def relu_growth(samples: int) -> float:
    r"""$\lambda$ of ReLU for a batch of so many samples, in the limit of many units.

    Raises:
        ValueError: fewer than four samples, for which it is infinite.

    Source: Yang et al. 2019 (https://arxiv.org/abs/1902.08129), section 4.
    """
    if samples < 4:
        raise ValueError(f"samples must be at least 4, got {samples}")
    c = -1 / (samples - 1)
    angle = math.pi - math.acos(c)
    overlap = (math.sqrt(1 - c * c) + angle * c) / math.pi
    return ((samples - 1 + angle / math.pi) / (1 - overlap) - 1) / (samples - 3)


def linear_growth(samples: int) -> float:
    r"""$\lambda$ of no activation, in the limit of many units; arguments and errors as ``relu_growth``."""
    if samples < 4:
        raise ValueError(f"samples must be at least 4, got {samples}")
    return (samples - 2) / (samples - 3)


def growth(
    activation: Callable[[torch.Tensor], torch.Tensor] | nn.Module, gamma: float = 1.0, beta: float = 0.0
) -> float:
    r"""$\lambda$ of $\varphi(z)$ = activation($\gamma z + \beta$) for many samples, as at the head of this file.

    By Poincaré's inequality for the normal distribution at least 1, and 1 only where the activation is linear.

    Arguments:
        activation: elementwise.
        gamma, beta: of the BN layer before it.

    Raises:
        ValueError: the activation is constant on all that reaches it.
    """
    z = torch.linspace(-9, 9, 36001, dtype=torch.float64, requires_grad=True)
    values = activation(gamma * z + beta)
    (slope,) = torch.autograd.grad(values.sum(), z)
    weight = torch.exp(-z.detach().square() / 2)
    weight = weight / weight.sum()
    mean = weight @ values.detach()
    variance = weight @ (values.detach() - mean).square()
    if not variance > 0:
        raise ValueError(f"activation must not be constant, got one that is at gamma={gamma}, beta={beta}")
    return (weight @ slope.square() / variance).item()
