"""Sums and statistics of each channel that stay exact for many values, on the CPU.

PyTorch's fast kernel for two sums adds up each plane of a contiguous image in float32. Its kernels for vectors and for
channels-last images do the same with all values of a channel. From some ten thousand values on this loses digits. A
part of a plane, or every k-th row, can be seen as a channel of its own; the sums over these are then added up in
float64. It takes no more time, and for images less.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from bnlib.norm.buffers import is_eager

_FEW = 2**10
"""So many values are added up in float32 without a visible loss."""
_MANY = 2**20  # so many values are also divided for the sake of time, if each plane is at least _FEW / 2 long
_MANY_ROWS, _ROWS = 2**13, 2**11
"""More rows than the first number are divided into parts of at most the second."""
_COLUMNS = 2**10  # with more columns, the kernel's own sums would leave the processor's fastest cache
_backward_kernel = torch.ops.aten.native_batch_norm_backward.default


def sums(g: Tensor, x: Tensor, mean: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums over each channel of g * (x - mean) * gain and of g, computed in one pass over the data."""
    if x.numel() == 0:  # the kernel would divide by zero and crash the process
        return torch.zeros_like(mean), torch.zeros_like(mean)
    if is_large(x) and g.stride() == x.stride() and not torch._C._functorch.is_legacy_batchedtensor(g):
        if x.is_contiguous() and x.numel() > len(x) * x.size(1):
            return _sums_of_planes(g, x, mean, gain)
        rows = as_rows(x)
        if rows is not None:
            return _sums_of_rows(as_rows(g), rows, mean, gain)
    return _kernel(g, x, mean, gain)


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the biased variance of each channel of ``x``, which has float32 or float64 values."""
    rows = as_rows(x) if is_large(x) else None
    if rows is None:  # the kernel is exact for the planes of contiguous images
        return torch.batch_norm_update_stats(x, None, None, 0.0)
    weights, means, variances = [], [], []
    for part, times in _parts(rows):
        mean, variance = torch.batch_norm_update_stats(part, None, None, 0.0)
        weights.append(len(part) / len(rows))
        means.append(mean.view(times, -1).double())
        variances.append(variance.view(times, -1))
    if len(weights) == 1:
        spread, mean = torch.var_mean(means[0], 0, correction=0)
        return mean.to(x.dtype), spread.add_(variances[0].mean(0, dtype=torch.float64)).to(x.dtype)
    weights = torch.cat([each.new_full((len(each), 1), share) for share, each in zip(weights, means, strict=True)])
    means, variances = torch.cat(means), torch.cat(variances)
    mean = (weights * means).sum(0)
    variance = (weights * (variances + (means - mean).square())).sum(0)
    return mean.to(x.dtype), variance.to(x.dtype)


def is_large(x: Tensor) -> bool:
    """Return whether float32 may lose digits in sums over a channel of ``x``, outside of ``torch.compile``."""
    return is_eager(x) and x.is_cpu and x.numel() > _FEW * x.size(1)


def as_rows(x: Tensor) -> Tensor | None:
    """View ``x`` as (M, C) if its memory holds many such rows, as for vectors and in channels-last layout."""
    if x.numel() <= _MANY_ROWS * x.size(1):
        return None
    rows = x if x.dim() == 2 else x.movedim(1, -1)
    return rows.view(-1, x.size(1)) if rows.is_contiguous() else None


def _kernel(g: Tensor, x: Tensor, mean: Tensor, gain: Tensor):
    return _backward_kernel(g, x, None, None, None, mean, gain, True, 0.0, (False, True, True))[1:]


def _sums_of_planes(g: Tensor, x: Tensor, mean: Tensor, gain: Tensor):
    size, channels, plane = len(x), x.size(1), math.prod(x.shape[2:])
    if plane <= _FEW and (x.numel() < _MANY or plane < _FEW / 2):
        return _kernel(g, x, mean, gain)
    parts = number_of_parts(plane)
    if extra := -plane % parts:  # a length without a suitable divisor
        g, x = (F.pad(each.view(size, channels, plane), (0, extra)) for each in (g, x))
    # Each part of each sample is a channel, so that the kernel reads the memory in its order: two or three times as
    # fast as from sample to sample.
    g, x = (each.view(1, size * channels * parts, -1) for each in (g, x))
    mean, gain = (each.repeat_interleave(parts).repeat(size) for each in (mean, gain))
    found = _kernel(g, x, mean, gain)
    return [each.view(size, channels, parts).sum((0, 2), dtype=torch.float64).to(each.dtype) for each in found]


def _sums_of_rows(g: Tensor, x: Tensor, mean: Tensor, gain: Tensor):
    found = []
    for (of_g, times), (of_x, _) in zip(_parts(g), _parts(x), strict=True):
        of_part = _kernel(of_g, of_x, mean.repeat(times), gain.repeat(times))
        found.append([each.view(times, -1).sum(0, dtype=torch.float64) for each in of_part])
    first, second = found[0] if len(found) == 1 else (sum(each) for each in zip(*found, strict=True))
    return first.to(mean.dtype), second.to(mean.dtype)


def _parts(rows: Tensor) -> list[tuple[Tensor, int]]:
    """Divide the rows into parts; each part sees ``times`` rows, which follow one another, as a single long one."""
    count, most = len(rows), max(1, _COLUMNS // rows.size(1))
    times = 1
    while times * 2 <= most and times * _ROWS < count:
        times *= 2
    fitting = count // times * times
    long = rows[:fitting].view(fitting // times, -1)
    parts = [(long, times)] if len(long) <= _ROWS else [(part, times) for part in long.split(_ROWS)]
    return parts if fitting == count else [*parts, (rows[fitting:], 1)]


@functools.lru_cache(maxsize=256)
def number_of_parts(plane: int) -> int:
    """Return in how many parts a plane is divided: a divisor if one leaves a few hundred values, else the plane grows.

    Example:
        >>> number_of_parts(32 * 32), number_of_parts(112 * 112), number_of_parts(10007)
        (1, 14, 10)
    """
    least = -(-plane // _FEW)
    return next((parts for parts in range(least, 8 * least) if plane % parts == 0), least)
