"""Avoid the layouts for which PyTorch's gradient of batch norm is wrong on the CPU.

A dimension of size 1 can have any stride. Then a tensor can lie in memory as a channels-last image although its strides
say that it is contiguous: ``sequences.transpose(1, 2).unsqueeze(-1)``, or the gradient behind
``y.squeeze(-1).transpose(1, 2)``. If only one of the input and the gradient at the output is such a tensor, PyTorch's
kernel of the backward pass reads the other one in the wrong order: torch 2.13.0 returns wrong gradients without an
error (``findings/batch_norm_gradient_is_wrong_for_some_strides.sh``).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def readable(x: Tensor) -> Tensor:
    """View ``x`` so that the gradient of PyTorch's batch norm is right for any gradient at the output.

    Returns:
        ``x`` itself, unless a dimension of size 1 leaves its layout open. A channels-last tensor then has the strides
        that PyTorch gives such a tensor, and a contiguous one the shape (N, C, positions), which has one layout only.
    """
    # A program that is made of the layer keeps the shapes; torch.compile has a gradient of its own.
    if x.dim() < 4 or torch.compiler.is_compiling() or 1 not in x.shape:
        return x
    if not (x.is_cpu and x.layout is torch.strided and torch.is_grad_enabled()) or torch._C._is_tracing():
        return x
    if x.is_contiguous():
        return x.flatten(2)
    last = x.movedim(1, -1)
    if last.stride() == _strides(last.shape) or not last.is_contiguous():
        return x
    return last.view(last.shape).movedim(-1, 1)


def in_readable_layout(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return ``function(x)``, computed on a ``readable`` view of ``x``, in the shape of ``x``."""
    view = readable(x)
    output = function(view)
    return output if view.dim() == x.dim() else output.view(x.shape)


def _strides(shape: torch.Size) -> tuple[int, ...]:
    """Return the strides that PyTorch gives a new contiguous tensor."""
    return tuple(math.prod(max(size, 1) for size in shape[dim + 1 :]) for dim in range(len(shape)))
