r"""Measure the gradient at each of 100 layers before training, and compare its growth with theory.

With BN the squared gradient norm grows by a factor $\lambda$ per layer of backpropagation. For many samples
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

from bnlib import tables
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
    "without normalisation, He init",
    "without normalisation",
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
    """Return all networks at the stack's width and four alphabet sizes, and the first three also at 256 units."""
    narrow = itertools.product(NETWORKS, CHARACTERS, (WIDTH,))
    wide = itertools.product(NETWORKS[:3], CHARACTERS, (WIDE,))
    return {cell: SEEDS[scale] for cell in (*narrow, *wide)}


def measure(network: str, characters: int, width: int, *, seed: int, device: str) -> dict[str, Any]:
    """Run one backward pass with all characters, in float64.

    Returns:
        ``gradient_norms``: at the weights of each hidden layer, first layer first; ``growth``: factor from a layer to
        the one below, at the weights and at the outputs of the linear layers, without five layers at each end;
        ``cosine_distance``: one minus the mean cosine similarity of two characters' inputs to the last layer.
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
        "gradient_norms": weights,
        "growth": [growth_per_layer(each[5:-5]) if min(each) > 0 else math.nan for each in (weights, outputs)],
        "cosine_distance": (1 - (units @ units.T)[others]).mean().item(),
    }


EXPERIMENT = Measurement(
    name="depth.gradient_growth",
    question="How does the gradient norm grow or shrink through 100 layers, before training?",
    source="Yang et al. 2019, section 4; Kari, a question on Stack Exchange, March 2018",
    axes=("network", "characters", "width"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


@dataclass(frozen=True)
class GradientsByLayer:
    """Measured gradient norms at the weights, shape (seeds, layers), and the growth per layer in theory, or None."""

    gradient_norms: np.ndarray
    theory: float | None


def lookup(network: str, characters: int) -> GradientsByLayer:
    """Return the gradients of a network at the stack's width, for an alphabet size."""
    return GradientsByLayer(load()[network, characters, WIDTH]["gradient_norms"], theory(network, characters))


def theory(network: str, characters: int) -> float | None:
    r"""Return the growth $\sqrt\lambda$ per layer in the limit of many units; None where no theory is known.

    For tanh it is the limit of many samples. Without BN the initialisation decides: PyTorch's default weights have the
    variance 1 / (3 fan-in), and half of the units pass the gradient on; He initialisation makes up for both.
    """
    if network in ("batch norm", "linear"):
        return math.sqrt((relu_growth if network == "batch norm" else linear_growth)(characters))
    return {
        "tanh": math.sqrt(growth(torch.tanh)),
        "without normalisation": math.sqrt(1 / 6),
        "layer norm": 1.0,
        "without normalisation, He init": 1.0,
    }.get(network)


def relu_growth(samples: int) -> float:
    r"""Return $\lambda$ of ReLU for a batch of ``samples``, in the limit of many units.

    Raises:
        ValueError: fewer than four samples, where $\lambda$ is infinite.

    Source: Yang et al. 2019 (https://arxiv.org/abs/1902.08129), section 4.
    """
    if samples < 4:
        raise ValueError(f"samples must be at least 4, got {samples}")
    correlation = -1 / (samples - 1)
    angle = math.pi - math.acos(correlation)
    overlap = (math.sqrt(1 - correlation**2) + angle * correlation) / math.pi
    return ((samples - 1 + angle / math.pi) / (1 - overlap) - 1) / (samples - 3)


def linear_growth(samples: int) -> float:
    r"""Return $\lambda$ without an activation, in the limit of many units; arguments and errors as ``relu_growth``."""
    if samples < 4:
        raise ValueError(f"samples must be at least 4, got {samples}")
    return (samples - 2) / (samples - 3)


def growth(
    activation: Callable[[torch.Tensor], torch.Tensor] | nn.Module, gamma: float = 1.0, beta: float = 0.0
) -> float:
    r"""Return $\lambda$ of $\varphi(z)$ = activation($\gamma z + \beta$) in the limit of many samples.

    It is at least 1 by the Gaussian Poincaré inequality, and equals 1 only if the activation is linear.

    Arguments:
        activation: elementwise function.
        gamma, beta: parameters of the BN layer before it.

    Raises:
        ValueError: the activation is constant on its inputs.
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


def growth_rows() -> list[dict]:
    """Return table rows, one per network, alphabet size and width: measured growth per layer of each seed, and theory.

    The theory for tanh is the limit of many samples.
    """
    settings = [
        ("batch norm", 5, WIDTH),
        ("batch norm", 50, WIDTH),
        ("batch norm", 50, WIDE),
        ("tanh", 50, WIDE),
        ("linear", 5, WIDTH),
        ("linear", 5, WIDE),
        ("linear", 50, WIDE),
    ]
    activations = {"batch norm": "ReLU", "tanh": "tanh", "linear": "none"}
    return [
        {
            "activation": activations[network],
            "characters": characters,
            "units": width,
            "growth per layer, measured": load()[network, characters, width]["growth"][:, 0],
            "growth per layer, theory": theory(network, characters),
        }
        for network, characters, width in settings
    ]


def cosine_distance_rows() -> list[dict]:
    """Return table rows, one per network: distance of two characters after 100 layers, growth of the gradient."""
    labels = {
        "batch norm": "batch norm",
        "residual": "batch norm, skip connections",
        "without normalisation, He init": "without normalisation, He init",
        "layer norm": "layer norm",
        "without normalisation": "without normalisation",
    }
    rows = []
    for network, label in labels.items():
        row = load()[network, 50, WIDTH]
        distances = np.maximum(row["cosine_distance"], 0)
        low, middle, high = (
            tables.significant(value) for value in (distances.min(), np.median(distances), distances.max())
        )
        rows.append(
            {
                "network": label,
                "cosine distance of two characters": f"{middle} ({low}–{high})",
                "growth of the gradient norm per layer": row["growth"][:, 0],
            }
        )
    return rows
