"""A fast train step of Batch Renormalization on the CPU, for ordinary batches.

The two corrections are constants in the backward pass, so that pass is the one of batch norm with the weight
``gamma * rho``. For images, the forward pass needs only the two moments of the batch, which one of PyTorch's kernels
computes fast, and one multiplication and addition per value. A batch of (64, 512) takes so little time that every
operation on (C,) values counts; while there are no corrections, PyTorch's own batch norm does most of them in one call.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from bnlib.norm.scheduled import D_MAX, R_MAX, at_step
from bnlib.norm.sums import statistics, sums

# Sums of squares lose digits if a mean is further than so many standard deviations from 0 or from the running mean.
LARGEST_OFFSET = 3.0
_backward_pass = torch._C._current_graph_task_id  # PyTorch has no public function for it
_EXACT = (torch.float32, torch.float64)
_backward_kernel = torch.ops.aten.native_batch_norm_backward.default


def is_ordinary(x: Tensor, weight: Tensor | None, bias: Tensor | None, running_var: Tensor) -> bool:
    """Return whether ``fast_step`` can take ``x``, a batch for which ``buffers.is_eager`` holds."""
    kind = x.dtype
    return (
        kind in _EXACT
        and kind is running_var.dtype
        and (weight is None or weight.dtype is kind)
        and (bias is None or bias.dtype is kind)
        and x.is_cpu
        and running_var.is_cpu
        and x.numel() > x.size(1)
        and forward_ad._current_level < 0  # the Function has no forward-mode derivative
    )


def fast_step(x: Tensor, weight: Tensor | None, bias: Tensor | None, layer, buffers) -> Tensor:
    """Normalise ``x`` with the settings of ``layer``, and update ``buffers``."""
    running_mean, running_var, steps = buffers["running_mean"], buffers["running_var"], buffers["num_batches_tracked"]
    r_max, d_max, count = layer.r_max, layer.d_max, None
    if callable(r_max) or callable(d_max):
        count = steps.item()
        r_max, d_max = at_step("r_max", r_max, count, R_MAX), at_step("d_max", d_max, count, D_MAX)
    eps = torch.full_like(running_mean, layer.eps)  # to add a number takes three times as long for few channels
    running_sigma = torch.add(running_var, eps).sqrt_()
    # Without limits above 1 and 0 the corrections are 1 and 0, unless statistics are not finite.
    finite = math.isfinite(torch.dot(running_mean, running_sigma).item())
    corrected, image, output = r_max != 1 or d_max != 0 or not finite, x.dim() > 2, None
    # A second pass in torch.utils.checkpoint ends as soon as the last tensor is saved; it must have moved the buffers.
    if image or corrected or _backward_pass() != -1:
        mean, variance = batch_statistics(x.detach(), running_mean, layer.eps)
        sigma = torch.add(variance, eps).sqrt_()
    else:
        output, mean, gain = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, layer.eps)
        sigma = torch.reciprocal(gain)
    rho = delta = None
    if corrected:
        rho = torch.div(sigma, running_sigma).clamp_(1 / r_max, r_max)
        delta = torch.sub(mean, running_mean).div_(running_sigma).clamp_(-d_max, d_max)
    running_mean.lerp_(mean, layer.momentum)
    torch.square(running_sigma.lerp_(sigma, layer.momentum), out=running_var).sub_(eps).clamp_(0)
    steps.add_(1) if count is None else steps.fill_(count + 1)
    if output is not None:
        return output
    if image or corrected:
        return apply(x, weight, bias, mean, variance, sigma, rho, delta, layer.eps)
    return torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, layer.eps)[0]


def corrected_affine(weight: Tensor | None, bias: Tensor | None, rho: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and offset, with which the corrected output is ``normalised * scale + offset``."""
    if weight is None:
        return rho, delta if bias is None else delta + bias
    return weight * rho, weight * delta if bias is None else torch.addcmul(bias, weight, delta)


def batch_statistics(x: Tensor, running_mean: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the mean and the biased variance of each channel, shape (C,) each.

    For images the kernel of the backward pass gives the two sums about the running mean several times faster than the
    kernel for the statistics. Where it would lose digits, the latter is used: the result must not depend on the running
    mean.
    """
    if x.dim() > 2 and x.is_contiguous():
        ones, count = torch.ones_like(running_mean), x.numel() // x.size(1)
        squares, total = sums(x, x, running_mean, ones)
        mean = total.div_(count)
        difference = mean - running_mean
        variance = squares.div_(count).addcmul_(mean, difference, value=-1)
        offset = torch.maximum(mean.square(), difference.square_())
        room = torch.sub(variance, offset, alpha=1 / LARGEST_OFFSET**2)
        if room.min().item() > -eps:  # False for NaN
            return mean, variance.clamp_(min=0)
    return statistics(x)


class CorrectedBatchNorm(Function):
    """Batch norm with known statistics and with the corrections rho and delta; for images also without them (None)."""

    @staticmethod
    def forward(ctx, x, weight, bias, mean, variance, sigma, rho, delta, eps):
        """Return the output."""
        gain = sigma.reciprocal_()
        ctx.save_for_backward(x, weight)
        ctx.constants = mean, gain, rho, delta, eps
        scale, offset = (weight, bias) if rho is None else corrected_affine(weight, bias, rho, delta)
        if x.dim() == 2:  # faster than the kernel; there are always corrections
            slope = scale * gain
            return torch.addcmul(torch.addcmul(offset, mean, slope, value=-1), x, slope)
        return torch.native_batch_norm(x, scale, offset, mean, variance, False, 0.0, eps)[0]

    @staticmethod
    def backward(ctx, g):
        """Return the gradients, which can be differentiated again."""
        x, weight = ctx.saved_tensors
        mean, gain, rho, delta, eps = ctx.constants
        for_x, for_weight, for_bias = ctx.needs_input_grad[:3]
        if weight is not None and weight.dtype is not x.dtype:  # layer.double() after the forward pass
            weight = weight.to(x.dtype)
        scale = weight if rho is None else rho if weight is None else weight * rho
        wanted = for_x, for_weight, for_weight or for_bias
        grad_x, grad_weight, grad_bias = _backward_kernel(g, x, scale, None, None, mean, gain, True, eps, wanted)
        if for_weight and rho is not None:
            grad_weight = torch.addcmul(grad_weight * rho, delta, grad_bias)
        return grad_x, grad_weight if for_weight else None, grad_bias if for_bias else None, *[None] * 6


# Without Function.apply's questions about torch.func, which is_eager has answered.
apply = super(Function, CorrectedBatchNorm).apply
