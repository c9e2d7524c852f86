r"""The Lagrangian of a network with Full Normalization, whose derivatives are all that the oracle "running" tracks.

Let each normalised layer i use free numbers $u_i$ in place of its averages $E\,e_i$, with $e=(x,x^2)$ per channel. With
one multiplier $\psi_i$ for each average,

$$\mathcal L(w,u,\psi) = E\Big[l + \sum_i \langle\psi_i, e_i - u_i\rangle\Big] .$$

$\partial_\psi\mathcal L=0$ says that $u_i$ is the average, and $\partial_u\mathcal L=0$ that $\psi_i$ is the
*adjoint*, the derivative of the objective J with respect to $u_i$. At this point $\partial_w\mathcal L=\nabla J$. For
other numbers $\hat u,\hat\psi$, $\partial_w\mathcal L(w,\hat u,\hat\psi)$ is the mean of the oracle's gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from bnlib import FullNorm

Params = Mapping[str, Tensor]
Tracked = Sequence[Tensor]
"""For each normalised layer, two rows of C numbers: $(\\mu,\\nu)$ or their adjoints."""


class Exact(NamedTuple):
    """What the full data say about a network.

    Attributes:
        gradient: of the objective, by the name of the parameter.
        statistics, adjoints: for each layer, in float64, (2, C).
    """

    gradient: dict[str, Tensor]
    statistics: list[Tensor]
    adjoints: list[Tensor]


def layers_of(network: nn.Sequential) -> list[FullNorm]:
    """Return the layers that normalise."""
    return [layer for layer in network if isinstance(layer, FullNorm)]


def _moments(x: Tensor) -> Tensor:
    """Return the mean and the mean square of each channel, (2, C)."""
    over = [0, *range(2, x.dim())]
    return torch.stack((x.mean(over), x.square().mean(over)))


def _normalise(layer: FullNorm, params: Params, prefix: str, x: Tensor, u: Tensor) -> Tensor:
    shape = (1, -1, *[1] * (x.dim() - 2))
    mean, square = (row.view(shape) for row in u)
    hat = (x - mean) * (square - mean.square()).clamp(min=layer.eps).rsqrt()
    return hat * params[f"{prefix}.weight"].view(shape) + params[f"{prefix}.bias"].view(shape)


def _through(network: nn.Sequential, params: Params, x: Tensor, numbers):
    """Return the output, and for each normalised layer the moments of its input; ``numbers(i, moments)`` is its u."""
    found: list[Tensor] = []
    for name, layer in network.named_children():
        if isinstance(layer, FullNorm):
            moments = _moments(x)
            x = _normalise(layer, params, name, x, numbers(len(found), moments))
            found.append(moments)
        else:
            own = {key.partition(".")[2]: value for key, value in params.items() if key.startswith(f"{name}.")}
            x = functional_call(layer, own, (x,))
    return x, found


def lagrangian(network: nn.Sequential, params: Params, data: tuple, estimates: Tracked, adjoints: Tracked) -> Tensor:
    """Return the Lagrangian of the cross-entropy over all ``data``, a pair of samples and labels; differentiable."""
    output, moments = _through(network, params, data[0], lambda number, _: estimates[number])
    constraints = zip(adjoints, moments, estimates, strict=True)
    return F.cross_entropy(output, data[1]) + sum((each * (e - u)).sum() for each, e, u in constraints)


def objective(network: nn.Sequential, params: Params, data: tuple) -> Tensor:
    """Return the cross-entropy over all ``data``, normalised with the statistics of all data; differentiable."""
    return F.cross_entropy(_through(network, params, data[0], lambda _, moments: moments)[0], data[1])


def parameters(network: nn.Module) -> dict[str, Tensor]:
    """Return copies of the parameters by name, as leaves that need a gradient."""
    return {name: value.detach().clone().requires_grad_() for name, value in network.named_parameters()}


def exact(network: nn.Sequential, data: tuple) -> Exact:
    """Return the gradient of the objective over all ``data``, the statistics, and their adjoints."""
    params = parameters(network)
    shifts: list[Tensor] = []

    def shifted(number: int, moments: Tensor) -> Tensor:
        shifts.append(torch.zeros_like(moments).requires_grad_())
        return moments + shifts[-1]

    output, moments = _through(network, params, data[0], shifted)
    found = torch.autograd.grad(F.cross_entropy(output, data[1]), [*params.values(), *shifts])
    gradient = dict(zip(params, found, strict=False))
    statistics = [each.detach() + shift.detach() for each, shift in zip(moments, shifts, strict=True)]
    return Exact(gradient, statistics, list(found[len(params) :]))


def mean_gradient(network: nn.Sequential, data: tuple, estimates: Tracked, adjoints: Tracked) -> dict[str, Tensor]:
    """Return the derivative of the Lagrangian with respect to the parameters: the mean of the oracle's gradient."""
    params = parameters(network)
    value = lagrangian(network, params, data, estimates, adjoints)
    return dict(zip(params, torch.autograd.grad(value, list(params.values())), strict=True))


def tracked_by(network: nn.Sequential) -> tuple[list[Tensor], list[Tensor]]:
    r"""Return the statistics and the adjoints that the layers of a network track, as (2, C) each.

    A layer tracks the mean, the variance, and the means of g and $g\hat x$. With these,
    $\psi_\nu=-\frac\gamma{2v}E[g\hat x]$ and $\psi_\mu=-\frac\gamma\sigma E[g]-2\mu\psi_\nu$.
    """
    statistics, adjoints = [], []
    for layer in layers_of(network):
        mean, variance, gamma = layer.running_mean, layer.running_var, layer.weight.detach()
        of_square = -gamma * layer.running_grad_weight / (2 * variance)
        of_mean = -gamma * layer.running_grad_bias / variance.sqrt() - 2 * mean * of_square
        statistics.append(torch.stack((mean, variance + mean.square())))
        adjoints.append(torch.stack((of_mean, of_square)))
    return statistics, adjoints


def set_tracked(network: nn.Sequential, statistics: Tracked | None, adjoints: Tracked | None) -> None:
    """Set what the layers track; the inverse of ``tracked_by``. None leaves the values as they are."""
    for number, layer in enumerate(layers_of(network)):
        if statistics is not None:
            mean, square = statistics[number]
            layer.running_mean.copy_(mean)
            layer.running_mean_rest.zero_()
            layer.running_var.copy_(square - mean.square())
        if adjoints is not None:
            of_mean, of_square = adjoints[number]
            mean, variance, gamma = layer.running_mean, layer.running_var, layer.weight.detach()
            layer.running_grad_weight.copy_(-2 * variance * of_square / gamma)
            layer.running_grad_bias.copy_(-variance.sqrt() * (of_mean + 2 * mean * of_square) / gamma)


def flat(values: Mapping[str, Tensor] | Tracked) -> Tensor:
    """Return all numbers as one vector."""
    return torch.cat([each.flatten() for each in (values.values() if isinstance(values, Mapping) else values)])
