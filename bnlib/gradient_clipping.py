"""Adaptive gradient clipping (Brock et al., 2021; https://arxiv.org/abs/2102.06171)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from bnlib.arguments import check_kind, check_number, check_usual


def unit_norms(tensor: Tensor) -> Tensor:
    """Return the norm of the weights of each output unit, in a shape that broadcasts against ``tensor``.

    The norms are at least float32, and exact also where the squares of the values are beyond the range of their dtype.
    The first dimension of a weight holds the output units, as in Linear and Conv2d. A vector or a number, such as a
    bias or gamma, counts as one unit.

    Example:
        >>> gradient_clipping.unit_norms(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
        tensor([[5.],
                [2.]])
    """
    check_usual(tensor=tensor)
    values = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    dims, keep = tuple(range(min(1, tensor.dim() - 1), tensor.dim())), tensor.dim() > 1
    if tensor.numel() == 0:
        return torch.linalg.vector_norm(values, dim=dims, keepdim=keep)
    # To multiply by a power of two changes no digits. Ordinary values are multiplied by 1.
    limit, power = (2.0**40, 2.0**100) if values.dtype is torch.float32 else (2.0**400, 2.0**800)
    largest = values.detach().abs().amax(dims, keepdim=keep)
    one = torch.ones_like(largest)
    factor = torch.where(largest > limit, one / power, torch.where(largest < 1 / limit, one * power, one))
    return torch.linalg.vector_norm(values * factor, dim=dims, keepdim=keep) / factor


def clipped(parameter: Tensor, gradient: Tensor, clipping: float = 0.01, eps: float = 1e-3) -> Tensor:
    r"""Shorten the gradient of each unit to at most ``clipping`` times the norm of the unit's weights.

    For a unit with weights w and gradient g, the result is $g\,\min(1, c \max(\|w\|, \epsilon) / \|g\|)$, where c is
    ``clipping``. So a step of gradient descent changes a unit by at most ``lr * clipping`` of its norm. The direction
    of its gradient does not change.

    Arguments:
        parameter: a weight, with the output units in its first dimension, or a vector or number.
        gradient: its gradient, with the same shape.
        clipping: largest ratio of a gradient's norm to a weight's norm, positive.
        eps: weights with a smaller norm are treated as if they had this norm, so that zeros can be trained.

    Returns:
        The shortened gradient, a new tensor.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if ``clipping`` or ``eps`` is not positive, or the shapes differ.

    Source: Brock et al. 2021, equation 3 of section 4.

    Example:
        >>> weight, gradient = torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([[6.0, 8.0], [0.0, 0.1]])
        >>> gradient_clipping.clipped(weight, gradient, clipping=0.2)  # the first unit is clipped to a norm of 1
        tensor([[0.6000, 0.8000],
                [0.0000, 0.1000]])
    """
    check_kind("parameter", parameter, Tensor, "a tensor")
    check_kind("gradient", gradient, Tensor, "a tensor")
    if parameter.shape != gradient.shape:
        raise ValueError(
            f"gradient must have the shape of the parameter, {tuple(parameter.shape)}, got {tuple(gradient.shape)}"
        )
    if gradient.layout is not torch.strided or not gradient.is_floating_point():
        raise TypeError(
            f"gradient must be a dense tensor of floating-point numbers, got {gradient.layout} and {gradient.dtype}; "
            "make embeddings without sparse=True"
        )
    check_number("clipping", clipping, above=0)
    check_number("eps", eps, above=0)
    allowed = clipping * unit_norms(parameter).clamp(min=eps)
    # The smallest positive number keeps a gradient of zero from becoming 0 / 0.
    norms = unit_norms(gradient)
    shortened = gradient * (allowed / norms.clamp(min=torch.finfo(norms.dtype).tiny)).clamp(max=1.0)
    return shortened.to(gradient.dtype)


@torch.no_grad()
def clip_gradients_adaptively_(parameters: Iterable[Tensor], clipping: float = 0.01, eps: float = 1e-3) -> None:
    """Apply ``clipped`` to the ``.grad`` of each parameter, in place; call it between ``backward()`` and ``step()``.

    The paper leaves out the last linear layer, so pass the other parameters only. A stack of models
    (``bnlib.stacked``) has parameters of other shapes and so other units; its gradients would be clipped otherwise than
    those of each model alone.

    Arguments:
        parameters: the parameters; those without a gradient are skipped.
        clipping, eps: see ``clipped``.

    Raises:
        ValueError: if ``clipping`` or ``eps`` is not positive.

    Example:
        >>> layer = nn.Linear(2, 3)
        >>> (1e6 * layer(torch.ones(1, 2)).sum()).backward()
        >>> gradient_clipping.clip_gradients_adaptively_(layer.parameters(), clipping=0.1)
        >>> largest = (layer.weight.grad.norm(dim=1) / layer.weight.norm(dim=1)).max()
        >>> round(largest.item(), 3)
        0.1
    """
    check_number("clipping", clipping, above=0)
    check_number("eps", eps, above=0)
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    check_kind("parameters", parameters, Iterable, "tensors, such as model.parameters()")
    for parameter in parameters:
        check_kind("parameters", parameter, Tensor, "tensors, such as model.parameters()")
        if parameter.grad is not None:
            parameter.grad.copy_(clipped(parameter, parameter.grad, clipping, eps))
