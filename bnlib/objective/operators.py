r"""The operators with and without BN, equations (1) and (2), and the networks that they compose.

A network is a sequence of layers ``(weight, activation)``. The weight has shape (out, in + 1), and its last column is
the bias. As in the paper, a layer first normalises its inputs, then multiplies them by the weight, then applies the
activation. The paper has no eps, so the default of ``eps`` is 0. There is no gamma and no beta, because the weight can
represent them.

Source: Lian and Liu 2019 (https://proceedings.mlr.press/v89/lian19a.html), section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bnlib.arguments import check_number, check_usual, shown

Activation = Callable[[Tensor], Tensor]
"""An elementwise function."""

Layers = Sequence[tuple[Tensor, Activation]]
"""A network as its layers, from the input on. A layer is its weight, of shape (out, in + 1), and its activation."""


class Layer(NamedTuple):
    """One layer, which computes ``activation(weight @ [values, 1])``.

    Attributes:
        weight: shape (out, in + 1), with the bias as its last column.
        activation: an elementwise function.
    """

    weight: Tensor
    activation: Activation


def check_layers(layers: Layers) -> None:
    """Raise a TypeError if ``layers`` is not a sequence of pairs of a weight and an activation."""
    pairs = list(layers) if hasattr(layers, "__iter__") else [layers]
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], Tensor) and callable(pair[1])):
            raise TypeError(f"layers must be pairs of a weight and an activation, got {shown(pair)}")


def plain_operator(weight: Tensor, activation: Activation, values: Tensor) -> Tensor:
    r"""Apply a layer without BN: $\sigma(W\,[g, 1])$.

    Arguments:
        weight: shape (out, in + 1).
        activation: the function $\sigma$.
        values: g, shape (..., b, in).

    Returns:
        Shape (..., b, out).

    Source: Lian and Liu 2019, equation (2).

    Example:
        >>> objective.plain_operator(torch.tensor([[2.0, 1.0]]), torch.relu, torch.tensor([[3.0], [-3.0]]))
        tensor([[7.],
                [0.]])
    """
    check_usual(weight=weight, activation=activation, values=values)
    ones = torch.ones_like(values[..., :1])
    return activation(torch.cat((values, ones), -1) @ weight.mT)


def bn_operator(
    weight: Tensor, activation: Activation, values: Tensor, batch_values: Tensor, eps: float = 0.0
) -> Tensor:
    r"""Apply a layer with BN: $\sigma(W\,[(g - \mathrm{mean}(g, B)) / \sqrt{\mathrm{var}(g, B)}, 1])$.

    Arguments:
        weight: shape (out, in + 1).
        activation: the function $\sigma$.
        values: g for any samples, shape (..., n, in).
        batch_values: g for the samples of the batch B, shape (..., b, in).
        eps: added to the variance; the paper has no eps.

    Returns:
        Shape (..., n, out).

    Source: Lian and Liu 2019, equation (1).

    Example:
        >>> weight, values = torch.tensor([[2.0, 1.0]]), torch.tensor([[3.0]])
        >>> objective.bn_operator(weight, torch.relu, values, batch_values=torch.tensor([[1.0], [5.0]]))
        tensor([[1.]])
    """
    check_usual(weight=weight, activation=activation, values=values, batch_values=batch_values)
    check_number("eps", eps, at_least=0)
    mean, variance = batch_values.mean(-2, keepdim=True), batch_values.var(-2, correction=0, keepdim=True)
    return plain_operator(weight, activation, (values - mean) / (variance + eps).sqrt())


def plain_network(layers: Layers, x: Tensor) -> Tensor:
    """Apply a network without BN, a composition of ``plain_operator``.

    Arguments:
        layers: the network.
        x: samples, shape (..., n, in).

    Returns:
        Shape (..., n, out).

    Example:
        >>> layers = [(torch.tensor([[2.0, 1.0]]), torch.relu), (torch.tensor([[1.0, -1.0]]), nn.Identity())]
        >>> objective.plain_network(layers, torch.tensor([[3.0]]))
        tensor([[6.]])
    """
    check_layers(layers)
    check_usual(x=x)
    for weight, activation in layers:
        x = plain_operator(weight, activation, x)
    return x


def bn_network(layers: Layers, x: Tensor, batch: Tensor, eps: float = 0.0) -> Tensor:
    r"""Apply a network with BN, $F^B_W(x)$, a composition of ``bn_operator``.

    The statistics of each layer are those of its inputs for the samples of the batch B.

    Arguments:
        layers: the network.
        x: any samples, shape (..., n, in).
        batch: the samples of B, shape (..., b, in).
        eps: see ``bn_operator``.

    Returns:
        Shape (..., n, out). With eps = 0, a unit that is constant on B gives nan, because the formula divides by 0.

    Source: Lian and Liu 2019, section 4.

    Example:
        >>> layers, x = [(torch.tensor([[1.0, 0.0]]), nn.Identity())], torch.tensor([[1.0]])
        >>> for batch in ([[0.0], [2.0]], [[1.0], [3.0]]):  # the same x in two batches
        ...     print(objective.bn_network(layers, x, torch.tensor(batch)).item())
        0.0
        -1.0
    """
    check_layers(layers)
    check_usual(x=x, batch=batch)
    check_number("eps", eps, at_least=0)
    for weight, activation in layers:
        x, batch = (bn_operator(weight, activation, values, batch, eps) for values in (x, batch))
    return x
