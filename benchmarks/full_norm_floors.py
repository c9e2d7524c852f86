"""The floors that ``full_norm`` prints: what no version of FullNorm in Python can leave out.

A floor is a ``torch.autograd.Function`` that calls the kernels that pass over the data and nothing else: no operation
on numbers of each channel, no check, no update of a buffer. Its numbers are wrong. The floor of the compiled layer is a
compiled function with the same inputs, outputs and updates of buffers, in float32 and without a module around it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd import Function

from bnlib.norm.full_norm_passes import LARGE, per_channel
from bnlib.norm.sums import sums

_backward_kernel = torch.ops.aten.native_batch_norm_backward.default


def line(x: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    """Return one product and one sum per value, by the faster kernel for the layout of ``x``."""
    if x.dim() == 2 or not x.is_contiguous():
        return torch.addcmul(per_channel(offset, x), x, per_channel(slope, x))
    return torch.native_batch_norm(x, slope, offset, offset, slope, False, 0.0, 0.0)[0]


class Running(Function):
    """The running oracle: PyTorch has no kernel for its gradient, which takes two passes where batch norm's takes one.

    Without a gradient of the input, these two passes are left out.
    """

    @staticmethod
    def forward(ctx, x, weight, bias):
        """Compute the statistics, and one product and sum per value."""
        if x.dim() == 2 or not x.is_contiguous():
            torch.batch_norm_update_stats(x, None, None, 0.0)
        else:
            sums(x, x, bias, weight)
        ctx.save_for_backward(x, weight, bias)
        return line(x, weight, bias)

    @staticmethod
    def backward(ctx, g):
        """Compute the two sums, and two products and sums per value."""
        x, weight, bias = ctx.saved_tensors
        found = sums(g, x, bias, weight)
        if not ctx.needs_input_grad[0]:
            return None, *found
        return line(x, weight, bias).addcmul_(g, per_channel(weight, x)), *found


class Offset(Running):
    """The running oracle for data that must be centred first."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        """Subtract the running mean, compute the statistics, and one product and sum per value in the same memory."""
        slope, offset = per_channel(weight, x), per_channel(bias, x)
        centred = x - offset
        ctx.save_for_backward(x, weight, bias)
        if x.dim() == 2 or not x.is_contiguous():
            torch.batch_norm_update_stats(centred, None, None, 0.0)
            return torch.addcmul(offset, centred, slope, out=centred)
        sums(centred, centred, bias, weight)
        return centred.mul_(slope).add_(offset)


class LeaveOneOut(Running):
    """The oracle that leaves out the sample itself, which needs the two sums of each sample."""

    @staticmethod
    def backward(ctx, g):
        """Compute the sums of each sample, and what they add to the gradient of the input."""
        x, weight, bias = ctx.saved_tensors
        if x.dim() == 2 and x.numel() < LARGE:
            grad_input, *found = _backward_kernel(g, x, weight, None, None, bias, weight, True, 0.0, (True, True, True))
            return grad_input.addcmul_(g, line(x, weight, bias).square_()), *found
        if x.dim() == 2:
            found, factor = sums(g, x, bias, weight), line(x, weight, bias)
            torch.addcmul(weight, factor, factor, out=factor)
            return line(x, weight, bias).addcmul_(g, factor), *found
        of_weight, of_bias = sums_of_samples(g, x, bias, weight)
        slope, rest = (each.view(*each.shape, *[1] * (x.dim() - 2)) for each in (of_weight, of_bias))
        grad_input = torch.addcmul(rest, x, slope).addcmul_(g, per_channel(weight, x))
        return grad_input, of_weight.sum(0), of_bias.sum(0)


def sums_of_samples(g: Tensor, x: Tensor, mean: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two sums of each sample, shape (N, C)."""
    if x.is_contiguous():
        size, rows = x.size(0), (1, -1, *x.shape[2:])
        own = sums(g.view(rows), x.view(rows), mean.repeat(size), gain.repeat(size))
        return tuple(each.unflatten(-1, (size, -1)) for each in own)
    own = [sums(*sample, mean, gain) for sample in zip(g.split(1), x.split(1), strict=True)]
    return tuple(torch.stack(each) for each in zip(*own, strict=True))


class Floor(nn.Module):
    """A layer that computes one of the functions; or in eval mode batch norm with constants, without any check."""

    def __init__(self, channels: int, function: type[Function]) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Call the function."""
        if self.training:
            return self.function.apply(x, self.weight, self.bias)
        mean, variance = self.bias.detach(), self.weight.detach()
        return torch.batch_norm(x, self.weight, self.bias, mean, variance, False, 0.0, 0.0, False)


class Graph(Function):
    """A step of the running oracle with all updates of buffers, exact in ordinary batches only, to be compiled."""

    @staticmethod
    def forward(ctx, x, weight, bias, mean, variance, of_weight, of_bias, steps):
        """Move the statistics and normalise."""
        variance_of_batch, mean_of_batch = torch.var_mean(x, 0, correction=0)
        difference = mean_of_batch - mean
        mean.add_(difference, alpha=0.03)
        variance.lerp_(variance_of_batch + 0.97 * difference.square(), 0.03)
        steps.add_(1)
        centre, gain = mean.clone(), variance.clamp(min=1e-5).rsqrt()
        ctx.save_for_backward(x, weight, centre, gain, of_weight * gain, of_bias.clone())
        ctx.estimates = of_weight, of_bias
        return torch.addcmul(bias, (x - centre) * gain, weight)

    @staticmethod
    def backward(ctx, g):
        """Move the gradient estimates and return the gradients."""
        x, weight, mean, gain, slope, rest = ctx.saved_tensors
        centred = x - mean
        grad_weight, grad_bias = (g * centred * gain).sum(0), g.sum(0)
        for old, new in zip(ctx.estimates, (grad_weight, grad_bias), strict=True):
            old.lerp_(new, 0.03)
        return (g - (centred * slope + rest) / len(x)) * (gain * weight), grad_weight, grad_bias, *[None] * 5


def compiled_floor(channels: int) -> Callable[[Tensor], Tensor]:
    """Return ``Graph``, compiled, as a function of the input."""
    parameters = [torch.ones(channels, requires_grad=True), torch.zeros(channels, requires_grad=True)]
    buffers = [torch.zeros(channels), torch.ones(channels), torch.zeros(channels), torch.zeros(channels)]
    step, state = torch.compile(Graph.apply), (*parameters, *buffers, torch.tensor(0))
    return lambda x: step(x, *state)
