"""The short way of Full Normalization: a train step on the CPU that is as fast as its operations are few.

It is for batches in which nothing is out of the ordinary; what it leaves to the long way of ``full_norm_passes`` is a
variance near eps, a value that is not finite, and a mean that is far from 0, where torch's kernels lose digits: the one
for the mean adds up float32 numbers one after another, and the one that normalises takes the difference of two large
products.

On a batch of (64, 512) the kernels take a third of the time: each operation on (C,) values counts, and each call.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# A mean further from 0 than this many standard deviations calls for shifted data.
LARGEST_OFFSET = 30.0
# With a smaller weight of the newest batch, rounding to float32 could eat the steps of the mean.
_LEAST_ALPHA = 1e-4
_FLOATS = (torch.float32, torch.float64)
_backward_kernel = torch.ops.aten.native_batch_norm_backward.default


class CheckedEstimates:
    """What a layer knows of its estimates after a short step, for as long as nobody else writes to them.

    Attributes:
        mean, var: the buffers it speaks of, whose ``running_mean_rest`` is 0.
        mean_version, var_version: of these, as torch counts the writes to them.
        ratio: at least the largest mean**2 / variance of all channels.
        least: at most the least variance of all channels.
    """

    __slots__ = ("least", "mean", "mean_version", "ratio", "var", "var_version")


def fast_step(x: Tensor, weight: Tensor | None, bias: Tensor | None, alpha: float, layer):
    r"""Update the buffers and return output, mean, gain and scale (for (N, C) only); or None, and leave all as it is.

    Whether mean and variance allow for it is looked up only now and then. A batch moves the variance to
    $v' = (1-\alpha)(v + \alpha d^2) + \alpha v_B$, d being the distance of its mean from the estimate, so that with
    Cauchy's inequality no batch, whatever it holds, can make $v'$ less than $(1-\alpha) v$ or
    $(\mu + \alpha d)^2 / v'$ more than $(\mu^2/v + \alpha) / (1-\alpha)$.
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
    # The smaller of the weights is the one that must not come from a rounded difference with 1.
    variance = old_var.lerp(variance, alpha) if alpha < 0.5 else variance.lerp(old_var, rest)

    if (
        recent is not None
        and recent.mean is old_mean
        and recent.var is old_var
        and recent.mean_version == old_mean._version
        and recent.var_version == old_var._version
        and recent.ratio + alpha < LARGEST_OFFSET**2 / 2 * rest  # half of what is allowed leaves room for rounding
        and recent.least * rest > 2 * layer.eps
        and math.isfinite(torch.dot(mean, variance).item())  # then so is each of them
    ):
        recent.ratio, recent.least = (recent.ratio + alpha) / rest, recent.least * rest
    else:
        layer._checked_estimates = recent = _look(mean, variance, layer)
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


def _look(mean: Tensor, variance: Tensor, layer) -> CheckedEstimates | None:
    """Look at the new estimates of all channels; None if they call for the long way."""
    low, high = torch.addcmul(variance, mean, mean, value=-1 / LARGEST_OFFSET**2).aminmax()
    if not (low.item() > layer.eps and high.item() < math.inf):
        return None
    layer.running_mean_rest.zero_()
    recent = CheckedEstimates()
    recent.mean, recent.var = layer.running_mean, layer.running_var
    recent.ratio, recent.least = (mean.square() / variance).max().item(), variance.min().item()
    return recent


def fast_gradients(g: Tensor, x: Tensor, weight: Tensor | None, mean, gain, scale, layer, alpha: float):
    """Gradients of input, weight and bias after a short step, or None if there is no short way for this oracle.

    The oracle ``"running"`` moves its estimates by the two last, if they are finite; whether it did is the fourth.
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
