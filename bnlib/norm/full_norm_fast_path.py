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
_FLOATS = (torch.float32, torch.float64)
_backward_kernel = torch.ops.aten.native_batch_norm_backward.default


class CheckedEstimates:
    """Bounds on the estimates of a layer after a fast step; they hold as long as no other code writes to the buffers.

    Attributes:
        mean, var: the buffers ``running_mean`` and ``running_var``; ``running_mean_rest`` is 0.
        mean_version, var_version: PyTorch's version counters of the two buffers, which count the writes to them.
        ratio: an upper bound of mean**2 / variance over all channels.
        least: a lower bound of the variance over all channels.
    """

    __slots__ = ("least", "mean", "mean_version", "ratio", "var", "var_version")


def fast_step(x: Tensor, weight: Tensor | None, bias: Tensor | None, alpha: float, layer):
    r"""Update the buffers and return output, mean, gain and scale, or change nothing and return None.

    ``scale`` is None except for an input of shape (N, C). The function returns None if the batch needs the general
    implementation.

    Mean and variance are not checked in every step. A batch changes the variance to
    $v' = (1-\alpha)(v + \alpha d^2) + \alpha v_B$, where d is the distance of its mean from the estimate. By Cauchy's
    inequality, no batch can make $v'$ smaller than $(1-\alpha) v$ or $(\mu + \alpha d)^2 / v'$ larger than
    $(\mu^2/v + \alpha) / (1-\alpha)$. So after one check the bounds stay valid for many steps.
    """
    buffers, recent, kind = layer._buffers, layer._checked_estimates, x.dtype
    old_mean, old_var = buffers["running_mean"], buffers["running_var"]
    if (
        kind is not old_var.dtype
        or (weight is not None and weight.dtype is not kind)
        or (bias is not None and bias.dtype is not kind)
        or layer.process_group is not None
        or not x.is_cpu
        or kind not in _FLOATS
        or x.numel() == 0
        or alpha < _LEAST_ALPHA
        or old_mean.is_inference()
    ):
        return None
    mean, variance = torch.batch_norm_update_stats(x, None, None, 0.0)
    difference = mean.sub_(old_mean)
    mean = old_mean.add(difference, alpha=alpha)
    rest = 1 - alpha
    variance = variance.addcmul_(difference, difference, value=rest)
    # The smaller of the two weights must not be computed as a rounded difference from 1.
    variance = old_var.lerp(variance, alpha) if alpha < 0.5 else variance.lerp(old_var, rest)

    if (
        recent is not None
        and recent.mean is old_mean
        and recent.var is old_var
        and recent.mean_version == old_mean._version
        and recent.var_version == old_var._version
        and recent.ratio + alpha < LARGEST_OFFSET**2 / 2 * rest  # half of the limit, as a margin for rounding
        and recent.least * rest > 2 * layer.eps
        and math.isfinite(torch.dot(mean, variance).item())  # then each of their values is finite
    ):
        recent.ratio, recent.least = (recent.ratio + alpha) / rest, recent.least * rest
    else:
        layer._checked_estimates = recent = _check(mean, variance, layer)
        if recent is None:
            return None
    old_mean.copy_(mean)
    old_var.copy_(variance)
    recent.mean_version, recent.var_version = old_mean._version, old_var._version
    if x.dim() > 2:
        output = torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, 0.0)[0]
        return output, mean, variance.rsqrt_(), None
    gain = variance.rsqrt_()
    scale = gain if weight is None else gain * weight
    offset = torch.mul(mean, scale).neg_() if bias is None else torch.addcmul(bias, mean, scale, value=-1)
    return torch.addcmul(offset, x, scale), mean, gain, scale


def _check(mean: Tensor, variance: Tensor, layer) -> CheckedEstimates | None:
    """Check the new estimates of all channels; return None if they need the general implementation."""
    low, high = torch.addcmul(variance, mean, mean, value=-1 / LARGEST_OFFSET**2).aminmax()
    if not (low.item() > layer.eps and high.item() < math.inf):
        return None
    layer.running_mean_rest.zero_()
    recent = CheckedEstimates()
    recent.mean, recent.var = layer.running_mean, layer.running_var
    recent.ratio, recent.least = (mean.square() / variance).max().item(), variance.min().item()
    return recent


def fast_gradients(g: Tensor, x: Tensor, weight: Tensor | None, mean, gain, scale, layer, alpha: float):
    """Return the gradients of input, weight and bias after a fast step, or None if the oracle has no fast version.

    The fourth result is False if the oracle is ``"running"`` and the gradients of weight and bias are not finite; the
    running gradients are then not updated.
    """
    oracle = layer.oracle
    if g.stride() != x.stride():
        g = torch.empty_like(x, dtype=g.dtype).copy_(g)
    if oracle == "batch":
        return *_backward_kernel(g, x, weight, None, None, mean, gain, True, 0.0, (True, True, True)), True
    if oracle != "running" or scale is None:
        return None
    _, grad_weight, grad_bias = _backward_kernel(g, x, None, None, None, mean, gain, True, 0.0, (False, True, True))
    of_weight, of_bias = layer._buffers["running_grad_weight"], layer._buffers["running_grad_bias"]
    share, slope = -1 / x.size(0), gain * of_weight
    rest = torch.addcmul(of_bias, slope, mean, value=-1)
    grad_input = torch.addcmul(g, x, slope, value=share).add_(rest, alpha=share).mul_(scale)
    finite = math.isfinite(torch.dot(grad_weight, grad_bias).item())
    if finite:
        of_weight.lerp_(grad_weight, alpha)
        of_bias.lerp_(grad_bias, alpha)
    return grad_input, grad_weight, grad_bias, finite
