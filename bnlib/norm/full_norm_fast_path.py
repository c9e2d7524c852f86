"""A fast train step of Full Normalization on the CPU, for batches without special cases.

``full_norm_passes`` handles the special cases: a variance near eps, values that are not finite, half precision, several
processes. Here, a step goes one of three ways:

- *Summed.* For large images whose means are near 0. PyTorch's kernel for two sums over the data, taken about the
  running mean, is five times as fast as the one for the statistics of a batch.
- *Direct.* PyTorch's kernel for the statistics of a batch is exact. The output is computed as ``x * scale + offset``,
  which loses digits if a mean is far from 0, so this way is only for means that are near it.
- *Centred.* The running mean is subtracted from the data first, in the memory of the output, and what is left has a
  mean near 0. This way is for every other mean. For large images, it also takes two sums.

For a batch of (64, 512) the kernels take only a third of the time, so every operation on (C,) values and every function
call counts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bnlib.norm.full_norm_passes import LARGE, per_channel, weighted
from bnlib.norm.sums import statistics, sums

# If a mean is further from 0 than this many standard deviations, the data must be centred.
LARGEST_OFFSET = 30.0
# Sums about the running mean lose more digits.
_LARGEST_OFFSET_OF_SUMS = 3.0
# With a smaller weight of the newest batch, float32 could round the updates of the mean to 0.
_LEAST_ALPHA = 1e-4
# Two sums over centred data give a new variance that is exact to ten roundings: it contains alpha (1 - alpha) times the
# square of the batch's distance from the running mean. With a larger weight it need not.
_LARGEST_ALPHA = 0.9
# Products of the gains of such channels are not yet rounded to 0 in float32.
_LARGEST_VARIANCE = 1e24
_backward_kernel = torch.ops.aten.native_batch_norm_backward.default
_ONLY_SUMS = (False, True, True)
_FEW_VECTORS = 2**10  # their sums need no care, and a call less counts


def is_near(x: Tensor, mean: Tensor, variance: Tensor, eps: float, offset: float = LARGEST_OFFSET) -> bool:
    """Return whether ``x`` is on the CPU, the means are near 0 and the variances larger than ``eps``.

    Then the kernel for batch norm in eval mode is exact enough as it is. Near means: by at most ``offset`` standard
    deviations.
    """
    return x.is_cpu and torch.addcmul(variance, mean, mean, value=-1 / offset**2).amin().item() > eps


def fast_step(x: Tensor, weight: Tensor | None, bias: Tensor | None, alpha: float, layer, buffers):
    """Update the estimates in ``buffers`` and return output, mean, gain, scale and correction, or do nothing.

    ``correction`` is what the function of that name returns for the oracle ``"running"``, else None. The function
    returns None if the batch needs the general implementation. That is decided by the new estimates themselves, in
    every step, because other code may write to the buffers between two steps, and PyTorch does not tell:
    DistributedDataParallel broadcasts them, for example.
    """
    kind = x.dtype
    has_fast_step = (
        kind is buffers["running_var"].dtype
        and (weight is None or weight.dtype is kind)
        and (bias is None or bias.dtype is kind)
        and layer.process_group is None
        and x.is_cpu
        and x.numel() > 0
        and alpha >= _LEAST_ALPHA
    )
    if not has_fast_step:
        return None
    done = None
    if x.dim() == 2 and alpha < 0.5:
        done = _direct_vectors(x, weight, bias, alpha, layer.eps, buffers)
    elif x.dim() == 2 or x.numel() < LARGE or not x.is_contiguous():
        done = _direct(x, weight, bias, alpha, layer.eps, buffers)
    elif alpha <= _LARGEST_ALPHA:
        done = _summed(x, weight, bias, alpha, layer.eps, buffers)
    if done is None and alpha <= _LARGEST_ALPHA:
        done = _centred(x, weight, bias, alpha, layer.eps, buffers)
    if done is None or layer.oracle != "running":
        return done and (*done, None)
    output, mean, gain, scale = done
    slope = gain * buffers["running_grad_weight"]
    rest = torch.addcmul(buffers["running_grad_bias"], slope, mean, value=-1)
    return output, mean, gain, scale, (slope, rest)


def _summed(x: Tensor, weight, bias, alpha: float, eps: float, buffers):
    old_mean, old_var = buffers["running_mean"], buffers["running_var"]
    if not is_near(x, old_mean, old_var, eps, _LARGEST_OFFSET_OF_SUMS):
        return None
    count = x.numel() // x.size(1)
    products, total = sums(x, x, old_mean, torch.ones_like(old_mean))
    mean = total.div_(count)
    difference = mean - old_mean
    variance = products.div_(count).addcmul_(mean, difference, value=-1)
    stored = _store_if_near(mean, difference, variance, alpha, eps, _LARGEST_OFFSET_OF_SUMS, buffers)
    return stored and _normalised(x, weight, bias, *stored)


def _direct(x: Tensor, weight, bias, alpha: float, eps: float, buffers):
    mean, variance = statistics(x)
    difference = mean - buffers["running_mean"]
    stored = _store_if_near(mean, difference, variance, alpha, eps, LARGEST_OFFSET, buffers)
    return stored and _normalised(x, weight, bias, *stored)


def _direct_vectors(x: Tensor, weight, bias, alpha: float, eps: float, buffers):
    """Do the same for vectors if alpha is below 0.5, with the operations of the other functions in one."""
    old_mean, old_var = buffers["running_mean"], buffers["running_var"]
    mean, variance = statistics(x) if x.size(0) > _FEW_VECTORS else torch.batch_norm_update_stats(x, None, None, 0.0)
    difference = mean.sub_(old_mean)
    variance.addcmul_(difference, difference, value=1 - alpha)
    variance = torch.lerp(old_var, variance, alpha, out=variance)
    mean = old_mean.add(difference, alpha=alpha)
    low, high = torch.addcmul(variance, mean, mean, value=-1 / LARGEST_OFFSET**2, out=difference).aminmax()
    if not (low.item() > eps and high.item() < _LARGEST_VARIANCE):
        return None
    old_mean.copy_(mean)
    old_var.copy_(variance)
    buffers["running_mean_rest"].zero_()
    gain = variance.rsqrt_()
    scale = gain if weight is None else gain * weight
    offset = torch.mul(mean, scale).neg_() if bias is None else torch.addcmul(bias, mean, scale, value=-1)
    return torch.addcmul(offset, x, scale), mean, gain, scale


def _store_if_near(
    mean: Tensor, difference: Tensor, variance: Tensor, alpha: float, eps: float, offset: float, buffers
):
    """Move the estimates and return copies of mean and variance; return None if these are special.

    ``mean`` and ``variance`` are those of the batch, and ``difference`` is its mean minus the running mean. The memory
    of the three is used again.
    """
    old_mean, old_var = buffers["running_mean"], buffers["running_var"]
    variance = _moved_variance(old_var, variance, difference, alpha)
    # If the two means are far apart, the smaller of the two weights must be the exact one.
    mean = old_mean.add(difference, alpha=alpha) if alpha < 0.5 else mean.sub_(difference, alpha=1 - alpha)
    low, high = torch.addcmul(variance, mean, mean, value=-1 / offset**2, out=difference).aminmax()
    if not (low.item() > eps and high.item() < _LARGEST_VARIANCE):
        return None
    old_mean.copy_(mean)
    old_var.copy_(variance)
    buffers["running_mean_rest"].zero_()
    return mean, variance


def _normalised(x: Tensor, weight, bias, mean: Tensor, variance: Tensor):
    """Return output, mean, gain and scale; the gain is in the memory of ``variance``."""
    if x.dim() > 2 and x.stride(1) != 1:
        output = torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, 0.0)[0]
        gain = variance.rsqrt_()
        return output, mean, gain, gain if weight is None else gain * weight
    gain = variance.rsqrt_()
    scale = gain if weight is None else gain * weight
    offset = torch.mul(mean, scale).neg_() if bias is None else torch.addcmul(bias, mean, scale, value=-1)
    return torch.addcmul(per_channel(offset, x), x, per_channel(scale, x)), mean, gain, scale


def _centred(x: Tensor, weight, bias, alpha: float, eps: float, buffers):
    old_mean, old_rest, old_var = (buffers[name] for name in ("running_mean", "running_mean_rest", "running_var"))
    centred = x - per_channel(old_mean, x)
    image = x.dim() > 2 and x.is_contiguous()
    if image:
        zero = torch.zeros_like(old_mean)
        squares, total = sums(centred, centred, zero, zero + 1)
        count = x.numel() // x.size(1)
        mean = total.div_(count)
        variance = squares.div_(count).addcmul_(mean, mean, value=-1)
    else:
        mean, variance = statistics(centred)
    difference = mean.sub_(old_rest)
    variance = _moved_variance(old_var, variance, difference, alpha)
    low, high = variance.aminmax()
    if not (low.item() > eps and high.item() < _LARGEST_VARIANCE):
        return None
    moved = old_rest.add(difference, alpha=alpha)
    mean = old_mean + moved
    torch.sub(moved, mean - old_mean, out=old_rest)
    old_mean.copy_(mean)
    old_var.copy_(variance)
    gain = variance.rsqrt_()
    scale = gain if weight is None else gain * weight
    offset = moved.mul_(scale).neg_() if bias is None else torch.addcmul(bias, moved, scale, value=-1)
    scale_of_values, offset_of_values = per_channel(scale, x), per_channel(offset, x)
    if image:
        return centred.mul_(scale_of_values).add_(offset_of_values), mean, gain, scale
    return torch.addcmul(offset_of_values, centred, scale_of_values, out=centred), mean, gain, scale


def _moved_variance(old: Tensor, variance: Tensor, difference: Tensor, alpha: float) -> Tensor:
    """Return the new variance, in the memory of ``variance``, which is that of the batch."""
    rest = 1 - alpha
    variance.addcmul_(difference, difference, value=rest)
    # The smaller of the two weights must not be computed as a rounded difference from 1.
    return torch.lerp(old, variance, alpha, out=variance) if alpha < 0.5 else variance.lerp_(old, rest)


def fast_gradients(g: Tensor, x: Tensor, weight: Tensor | None, mean, gain, scale, correction, oracle: str, of_input):
    """Return the gradients of input, weight and bias after a fast step, or None if the oracle has no fast version.

    ``correction`` has the two numbers of each channel that ``full_norm_passes.correction`` returns. ``of_input`` says
    whether the gradient of the input is needed; else the first result is None.
    """
    if g.stride() != x.stride():
        g = torch.empty_like(x, dtype=g.dtype).copy_(g)
    if oracle != "running" and weight is not None and weight.dtype is not x.dtype:  # layer.double() after the step
        weight = weight.to(x.dtype)
    if oracle == "batch":
        return _backward_kernel(g, x, weight, None, None, mean, gain, True, 0.0, (of_input, True, True))
    if oracle == "leave_one_out" and of_input and x.dim() == 2 and x.numel() < LARGE:
        return _without_own_value(g, x, weight, mean, gain, scale)
    if oracle != "running":
        return None
    if x.size(0) > _FEW_VECTORS or x.dim() > 2:
        grad_weight, grad_bias = sums(g, x, mean, gain)
    else:
        _, grad_weight, grad_bias = _backward_kernel(g, x, None, None, None, mean, gain, True, 0.0, _ONLY_SUMS)
    if not of_input:
        return None, grad_weight, grad_bias
    slope, rest = correction
    share = -x.size(1) / x.numel()
    if x.dim() == 2 and x.numel() < LARGE:
        grad_input = torch.addcmul(g, x, slope, value=share).add_(rest, alpha=share).mul_(scale)
    else:
        grad_input = weighted(g, x, slope, rest, scale, share)
    return grad_input, grad_weight, grad_bias


def _without_own_value(g: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, gain: Tensor, scale: Tensor):
    r"""Return the gradients with the oracle ``"leave_one_out"`` for few vectors, for which few operations count most.

    With N samples the gradient of the input is that of batch norm times N / (N - 1), plus the part of the sample
    itself, $\frac{\gamma}{\sigma}\,g\hat x^2/(N - 1)$.
    """
    others = x.size(0) - 1
    weight = torch.full_like(gain, 1 + 1 / others) if weight is None else weight * (1 + 1 / others)
    grad_input, *sums = _backward_kernel(g, x, weight, None, None, mean, gain, True, 0.0, (True, True, True))
    own = torch.sub(x, mean).mul_(gain).square_().mul_(g)
    return grad_input.addcmul_(own, scale, value=1 / others), *sums
