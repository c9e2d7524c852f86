"""A fast train step of Batch Normalization for large images on the CPU.

PyTorch's kernel for the statistics of a batch takes most of the time of its batch norm on contiguous images. The sums
about the running mean come from another of its kernels, several times as fast. Where these would lose digits, because a
mean is far from 0, PyTorch's own step is taken.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bnlib.norm.batch_renorm_fast_path import LARGEST_OFFSET, apply, batch_statistics, is_ordinary
from bnlib.norm.buffers import is_eager

LARGE = 2**20
"""From so many values on, the time of a step is that of its passes over the data."""


def has_fast_step(x: Tensor, layer) -> bool:
    """Return whether ``fast_step`` can take the batch ``x`` and is faster than PyTorch's step."""
    mean, variance = layer.running_mean, layer.running_var
    return (
        is_eager(x)  # first: a program that is exported for batches of any size must not depend on their size
        and x.numel() >= LARGE
        and x.dim() > 2
        and x.is_contiguous()
        and layer.track_running_stats
        and mean is not None
        and variance is not None
        and layer.num_batches_tracked is not None
        and layer.momentum is not None
        and layer.eps > 0
        and is_ordinary(x, layer.weight, layer.bias, variance)
        and torch.addcmul(variance, mean, mean, value=-1 / LARGEST_OFFSET**2).amin().item() > -layer.eps
    )


def fast_step(x: Tensor, layer) -> Tensor:
    """Normalise ``x`` with its own statistics, and update the running ones of ``layer``."""
    mean, variance = batch_statistics(x.detach(), layer.running_mean, layer.eps)
    sigma = torch.add(variance, layer.eps).sqrt_()
    count = x.numel() // x.size(1)
    # As PyTorch's kernel does it: a backward pass of an earlier batch, which does not need the running statistics,
    # would otherwise refuse to run because they have changed.
    layer.running_mean.data.lerp_(mean, layer.momentum)
    layer.running_var.data.lerp_(variance * (count / (count - 1)), layer.momentum)
    layer.num_batches_tracked.add_(1)
    return apply(x, layer.weight, layer.bias, mean, variance, sigma, None, None, layer.eps)
