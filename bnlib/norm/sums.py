"""Sums and statistics of each channel that stay exact for many values, on the CPU.

PyTorch's fast kernel for two sums adds up each plane of a contiguous image in float32. Its kernels for vectors and for
channels-last images do the same with all values of a channel. From some ten thousand values on this loses digits. A
part of a plane, or every k-th row, can be seen as a channel of its own; the sums over these are then added up in
float64. It takes no more time.
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
_LARGE_ROWS = 2**12
_BLOCK = 2**11
_COLUMNS = 2**9  # with more columns, the kernel's own sums would leave the processor's fastest cache
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
    found = []
    for part, times in _parts(rows):
        mean, variance = torch.batch_norm_update_stats(part, None, None, 0.0)
        found.append((len(part), mean.double().view(times, -1), variance.double().view(times, -1)))
    weights = torch.cat([mean.new_full((len(mean), 1), size / len(rows)) for size, mean, _ in found])
    means, variances = (torch.cat([each[k] for each in found]) for k in (1, 2))
    mean = (weights * means).sum(0)
    variance = (weights * (variances + (means - mean).square())).sum(0)
    return mean.to(x.dtype), variance.to(x.dtype)


def is_large(x: Tensor) -> bool:
    """Return whether float32 may lose digits in sums over a channel of ``x``, outside of ``torch.compile``."""
    return is_eager(x) and x.is_cpu and x.numel() > _FEW * x.size(1)


def as_rows(x: Tensor) -> Tensor | None:
    """View ``x`` as (M, C) if its memory holds many such rows, as for vectors and in channels-last layout."""
    if x.numel() <= _LARGE_ROWS * x.size(1):
        return None
    rows = x if x.dim() == 2 else x.movedim(1, -1)
    return rows.view(-1, x.size(1)) if rows.is_contiguous() else None


def _kernel(g: Tensor, x: Tensor, mean: Tensor, gain: Tensor):
    return _backward_kernel(g, x, None, None, None, mean, gain, True, 0.0, (False, True, True))[1:]


def _sums_of_planes(g: Tensor, x: Tensor, mean: Tensor, gain: Tensor):
    size, channels, plane = len(x), x.size(1), math.prod(x.shape[2:])
    parts = number_of_parts(plane)
    if parts == 1:
        return _kernel(g, x, mean, gain)
    g, x = g.view(size, channels, plane), x.view(size, channels, plane)
    if extra := -plane % parts:  # a length without a suitable divisor
        g, x = F.pad(g, (0, extra)), F.pad(x, (0, extra))
    g, x = (each.view(size, channels * parts, -1) for each in (g, x))
    found = _kernel(g, x, mean.repeat_interleave(parts), gain.repeat_interleave(parts))
    return [each.view(channels, parts).sum(1, dtype=torch.float64).to(each.dtype) for each in found]


def _sums_of_rows(g: Tensor, x: Tensor, mean: Tensor, gain: Tensor):
    total = 0
    for (of_g, times), (of_x, _) in zip(_parts(g), _parts(x), strict=True):
        found = torch.stack(_kernel(of_g, of_x, mean.repeat(times), gain.repeat(times)))
        total = total + found.view(2, times, -1).sum(1, dtype=torch.float64)
    return tuple(total.to(found.dtype).unbind())


def _parts(rows: Tensor) -> list[tuple[Tensor, int]]:
    """Divide the rows into parts; each part sees ``times`` rows, which follow one another, as a single long one."""
    times = max(1, min(len(rows) // _FEW, _COLUMNS // rows.size(1)))
    fitting = len(rows) // times * times
    parts = [(part, times) for part in rows[:fitting].view(fitting // times, -1).split(_BLOCK)]
    return parts + [(rows[fitting:], 1)] * (fitting < len(rows))


@functools.lru_cache(maxsize=256)
def number_of_parts(plane: int) -> int:
    """Return in how many parts a plane is divided: a divisor if one leaves a few hundred values, else the plane grows.

    Example:
        >>> number_of_parts(32 * 32), number_of_parts(112 * 112), number_of_parts(10007)
        (1, 14, 10)
    """
    least = -(-plane // _FEW)
    return next((parts for parts in range(least, 8 * least) if plane % parts == 0), least)
