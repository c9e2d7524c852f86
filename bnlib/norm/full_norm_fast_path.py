"""A fast train step of Full Normalization on the CPU, for batches without special cases.

``full_norm_passes`` handles the special cases: a variance near eps, values that are not finite, and a mean that is far
from 0. For such a mean PyTorch's kernels lose digits, because one of them adds up float32 numbers one after another and
the other one computes a small difference of two large products.

For a batch of (64, 512) the kernels take only a third of the time, so every operation on (C,) values and every function
call counts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# If a mean is further from 0 than this many standard deviations, the data must be shifted.
LARGEST_OFFSET = 30.0
# With a smaller weight of the newest batch, float32 could round the updates of the mean to 0.
_LEAST_ALPHA = 1e-4
_backward_kernel = torch.ops.aten.native_batch_norm_backward.default


def fast_step(x: Tensor, weight: Tensor | None, bias: Tensor | None, alpha: float, layer, buffers):
    """Update the estimates in ``buffers`` and return output, mean, gain, scale and correction, or do nothing.

    ``scale`` is None except for an input of shape (N, C). ``correction`` is what the function of that name returns for
    the oracle ``"running"``, else None. The function returns None if the batch needs the general
    implementation. That is decided by the new estimates themselves, in every step, because other code may write to the
    buffers between two steps, and PyTorch does not tell: DistributedDataParallel broadcasts them, for example.
    """
    old_mean, old_var, kind = buffers["running_mean"], buffers["running_var"], x.dtype
    if (
        kind is not old_var.dtype
        or (weight is not None and weight.dtype is not kind)
        or (bias is not None and bias.dtype is not kind)
        or layer.process_group is not None
        or not x.is_cpu
        or x.numel() == 0
        or alpha < _LEAST_ALPHA
    ):
        return None
    mean, variance = torch.batch_norm_update_stats(x, None, None, 0.0)
    difference = mean.sub_(old_mean)
    mean = old_mean.add(difference, alpha=alpha)
    rest = 1 - alpha
    variance = variance.addcmul_(difference, difference, value=rest)
    # The smaller of the two weights must not be computed as a rounded difference from 1.
    torch.lerp(old_var, variance, alpha, out=variance) if alpha < 0.5 else variance.lerp_(old_var, rest)

    low, high = torch.addcmul(variance, mean, mean, value=-1 / LARGEST_OFFSET**2, out=difference).aminmax()
    if not (low.item() > layer.eps and high.item() < math.inf):
        return None
    torch._foreach_copy_((old_mean, old_var), (mean, variance))
    buffers["running_mean_rest"].zero_()
    if x.dim() > 2:
        output, scale = torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, 0.0)[0], None
        gain = variance.rsqrt_()
    else:
        gain = variance.rsqrt_()
        scale = gain if weight is None else gain * weight
        offset = torch.mul(mean, scale).neg_() if bias is None else torch.addcmul(bias, mean, scale, value=-1)
        output = torch.addcmul(offset, x, scale)
    if layer.oracle != "running":
        return output, mean, gain, scale, None
    slope = gain * buffers["running_grad_weight"]
    return output, mean, gain, scale, (slope, torch.addcmul(buffers["running_grad_bias"], slope, mean, value=-1))


def fast_gradients(g: Tensor, x: Tensor, weight: Tensor | None, mean, gain, scale, correction, oracle: str):
    """Return the gradients of input, weight and bias after a fast step, or None if the oracle has no fast version.

    ``correction`` has the two numbers of each channel that ``full_norm_passes.correction`` returns.
    """
    if g.stride() != x.stride():
        g = torch.empty_like(x, dtype=g.dtype).copy_(g)
    if oracle == "batch":
        if weight is not None and weight.dtype is not x.dtype:
            weight = weight.to(x.dtype)
        return _backward_kernel(g, x, weight, None, None, mean, gain, True, 0.0, (True, True, True))
    if oracle != "running" or scale is None:
        return None
    _, grad_weight, grad_bias = _backward_kernel(g, x, None, None, None, mean, gain, True, 0.0, (False, True, True))
    slope, rest = correction
    share = -1 / x.size(0)
    grad_input = torch.addcmul(g, x, slope, value=share).add_(rest, alpha=share).mul_(scale)
    return grad_input, grad_weight, grad_bias
