"""The forward and the backward pass of Full Normalization as functions; ``full_norm_autograd`` calls them.

This is the general implementation, which works for every input; ``full_norm_fast_path`` is a faster one for ordinary
batches. On the CPU, PyTorch's kernels lose digits if a mean is far from 0: at an offset of 1e4 only two digits are
correct. The data are therefore first shifted by one of their own values. The shifted data are written into the memory
of the output, and the following operations work in place.

Per-channel numbers have these types: the mean is a float64 that is stored as the sum of two numbers, and everything
else is float32 or longer.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bnlib.norm.buffers import hold, is_eager
from bnlib.norm.sums import sums

_EXACT = (torch.float32, torch.float64)
_LEAST_SCALE = 1e-12  # a product of two such numbers, divided by the number of values, is not yet rounded to 0
_FAR = 3.0  # sums of squares lose digits if a mean is further than so many standard deviations from 0
_NEAR = 30.0  # up to so many standard deviations, a sum of a mean's multiple and of its negative loses few digits
_LARGE_SAMPLE = 2**13  # a sum over so many values takes longer than to call the kernel
LARGE = 2**16
"""From so many values on, a pass over the data takes longer than a few operations on numbers of each channel."""


class Settings(NamedTuple):
    """The settings of a layer that a step needs in addition to its tensors."""

    eps: float
    oracle: str
    num_features: int
    process_group: torch.distributed.ProcessGroup | None


def statistics_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype that PyTorch's kernels expect for per-channel numbers: that of ``x``, or float32 for a half."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """View ``values``, shape (C,), so that they broadcast against ``like``, shape (N, C, ...)."""
    return values if like.dim() == 2 else values.view(-1, *[1] * (like.dim() - 2))


def is_vectorised(g: Tensor) -> bool:
    """Return whether ``g`` stands for the gradients of several vectorised backward passes (``is_grads_batched``)."""
    # PyTorch has no public function for this question.
    return not torch.compiler.is_compiling() and torch._C._functorch.is_legacy_batchedtensor(g)


def needs_shift(x: Tensor) -> bool:
    """Return whether ``x`` must be shifted for precise sums. CUDA kernels, and half precision, do not need it."""
    # Tensors on the meta device have no values, but PyTorch knows the shapes of these kernels' results only.
    return (x.is_cpu or x.is_meta) and x.dtype in _EXACT


def normalise(
    x, weight, bias, running_mean, running_mean_rest, running_var, of_weight, of_bias, alpha, settings: Settings
):
    r"""Update the estimates and normalise with them.

    The variance is updated as $v \leftarrow (1-\alpha) v + \alpha\,(v_B + (1-\alpha)(m_B - \mu)^2)$. This equals the
    update of $\nu - \mu^2$ in Algorithm 3, but avoids its cancellation of digits. A channel whose new variance is not
    finite keeps its old estimates.

    Returns:
        The output; the new mean, its rounding error (``rest``) and the new variance; and, for the backward pass, a list
        of the mean, the gain (1/sigma), and ``free``, which is 1 where v > eps and else 0. With the oracle
        ``"running"`` the list holds the two numbers of ``correction`` instead of ``free``, and alpha if it is a tensor.
        All but the output have shape (C,).
    """
    kind, largest = statistics_dtype(x), torch.finfo(running_var.dtype).max
    count, mean, variance, shifted, shift = moments(x, running_mean)
    # Replace an overflow by the largest number, so that the output stays finite.
    variance = variance.clamp(0, torch.finfo(kind).max)
    old_mean, old_var = running_mean.double() + running_mean_rest.double(), running_var.double()
    difference = mean - old_mean
    if settings.process_group is not None:
        count, mean, variance = moments_over_processes(settings.process_group, count, mean, variance)
        difference = mean - old_mean
        if settings.oracle == "leave_one_out" and count <= math.prod(x.shape[2:]):
            raise ValueError(
                "input must hold at least two samples, counted over all processes, for oracle='leave_one_out', got 1"
            )
    if count == 0:
        difference, variance = torch.zeros_like(difference), old_var
    step = difference * alpha
    new_var = old_var + (variance - old_var + difference * (difference - step)) * alpha
    finite = new_var < math.inf
    new_mean = torch.where(finite, old_mean + step, old_mean)
    new_var = torch.where(finite, new_var, old_var)

    gain, mean = new_var.clamp(min=settings.eps).rsqrt(), new_mean.to(kind)
    scale = gain if weight is None else gain * weight
    centre = mean if shift is None or torch.compiler.is_compiling() else shift
    offset = (centre - new_mean) * scale
    offset = (offset if bias is None else offset + bias).to(kind)
    gain, scale, free = gain.to(kind), scale.to(kind), (new_var > settings.eps).to(kind)
    used = [mean, gain, free]
    if settings.oracle == "running":
        used = [mean, gain, *correction(of_weight, of_bias, *used)]
        if isinstance(alpha, Tensor):
            used.append(alpha.to(kind).expand_as(gain))
    if torch.compiler.is_compiling():
        # Whatever the backward pass computes again, also for operations behind the layer, it computes from these.
        offset, *used = hold(offset, *used)
        scale = used[1] if weight is None else used[1] * weight.to(kind)
        output = ((x - per_channel(used[0], x)) * per_channel(scale, x) + per_channel(offset, x)).to(x.dtype)
    elif shifted is None:
        weight, bias = (None if each is None else each.to(kind) for each in (weight, bias))
        clamped = new_var.clamp(settings.eps, torch.finfo(kind).max).to(kind)
        output = torch.batch_norm(x, weight, bias, mean, clamped, False, 0.0, 0.0, False)
    else:
        output = shifted.mul_(per_channel(scale, x)).add_(per_channel(offset, x))
    new_var = new_var.clamp(max=largest).to(running_var.dtype)
    stored = new_mean.to(running_mean.dtype)
    rest = (new_mean - stored).to(running_mean.dtype)
    return output, stored, rest, new_var, used


def moments(x: Tensor, fallback: Tensor | None = None):
    """Return the number of values per channel, the mean and the biased variance in float64, and the shift, if any.

    If ``needs_shift(x)``, the last two results are the shifted data and the shift, shape (C,); else both are None. The
    shift is the first value of each channel, or the ``fallback`` where that value is not finite.
    """
    count = x.numel() // x.size(1)
    if count == 0:
        zero = torch.zeros(x.size(1), dtype=torch.float64, device=x.device)
        return 0, zero, zero, x.clone(), zero
    if not needs_shift(x):
        # The running statistics are not needed; the kernel returns its results in their dtype.
        unused = [torch.zeros(x.size(1), dtype=statistics_dtype(x), device=x.device) for _ in range(2)]
        mean, variance = torch.batch_norm_update_stats(x, *unused, 0.0)
        return count, mean.double(), variance.double(), None, None
    shift = _median_of_three(x)
    if fallback is not None:  # else one value that is not finite would spread over its channel
        shift = torch.where(shift.isfinite(), shift, fallback.to(x.dtype))
    shifted = x - per_channel(shift, x)
    mean, variance = _shifted_moments(shifted, count)
    if shifted.is_cpu and is_eager(shifted) and (mean.square() > _FAR**2 * variance).any():  # three unusual values
        shift = (shift + torch.where(mean.isfinite(), mean, 0)).to(x.dtype)
        shifted = x - per_channel(shift, x)
        mean, variance = _shifted_moments(shifted, count)
    return count, mean + shift, variance, shifted, shift


def _median_of_three(x: Tensor) -> Tensor:
    """Return the median of the first, the middle and the last value of each channel; all three may be the same."""
    values = []
    for place in (0, 1, 2):
        value = x
        for dim in (0, *[-1] * (x.dim() - 2)):
            index = (value.size(dim) - 1) * place // 2
            if torch.compiler.is_compiling():  # it cannot prove of a number that it is in range for every size
                value = value.index_select(dim, torch.full((1,), index, device=x.device)).squeeze(dim)
            else:
                value = value.select(dim, index)
        values.append(value)
    first, second, third = values
    return torch.maximum(torch.minimum(first, second), torch.minimum(torch.maximum(first, second), third))


def _shifted_moments(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    zero = x.new_zeros(x.size(1))
    squares, total = sums(x, x, zero, zero + 1)
    if x.dtype is torch.float32 and x.is_cpu and is_eager(x) and not squares.isfinite().all():
        # From about 1e18 on, float32 can hold the variance, but not the sum of the squares.
        squares, total = sums(*[x.double()] * 2, zero.double(), zero.double() + 1)
    mean = total.double() / count
    return mean, squares.double() / count - mean.square()


def correction(of_weight: Tensor, of_bias: Tensor, mean: Tensor, gain: Tensor, free: Tensor | None):
    r"""Return two numbers per channel, with which the gradient of the input is ``g - (slope * x + rest) / N``.

    ``of_weight`` is $S_\gamma$ and ``of_bias`` is $S_\beta$; ``slope * x + rest`` is $S_\beta + \hat x\,S_\gamma$.
    """
    if of_weight.dtype is not gain.dtype:
        of_weight, of_bias = of_weight.to(gain.dtype), of_bias.to(gain.dtype)
    slope = of_weight * gain if free is None else of_weight * gain * free
    return slope, torch.addcmul(of_bias, slope, mean, value=-1)


def gradients(g, x, weight, mean, gain, free, slope, rest, of_input: bool, settings: Settings):
    """Return the gradients of input, weight and bias, and the two sums for the running gradients.

    ``slope`` and ``rest`` are the ``correction`` by the running gradients; they are None for the other oracles. The two
    sums, over all processes, are sum(g * normalised) and sum(g). ``of_input`` says whether the gradient of the input is
    needed; else the first result is None.
    """
    if g.stride() != x.stride():
        g = torch.empty_like(x, dtype=g.dtype).copy_(g)
    oracle, group, kind = settings.oracle, settings.process_group, gain.dtype
    own = _own_sums(g, x, mean, gain) if oracle == "leave_one_out" and x.dim() > 2 else None
    grad_weight, grad_bias = sums(g, x, mean, gain) if own is None else (each.sum(0) for each in own)
    count, projection, total = x.numel() // x.size(1), grad_weight, grad_bias
    if group is not None and oracle != "constant":
        count, projection, total = sums_over_processes(group, count, projection, total)
        projection, total = projection.to(mean.dtype), total.to(mean.dtype)
    others = grad_weight, grad_bias, projection, total
    if not of_input:
        return None, *others
    scale = gain if weight is None else gain * (weight if weight.dtype is kind else weight.to(kind))
    if oracle == "leave_one_out":
        count -= math.prod(x.shape[2:])
        return _without_own(g, x, mean, gain, free, scale, own, projection, total, count), *others
    if oracle != "running":
        slope, rest = correction(projection, total, mean, gain, free)
    share = {"constant": 0.0, "literal": 1 / settings.num_features}.get(oracle, 1.0) / max(count, 1)
    # Half precision is computed in float32, because it would round after each operation.
    exact = x.is_cpu and is_eager(x) and scale.abs().amin() < _LEAST_SCALE
    grad_input = weighted(g, x, slope, rest, scale, -share, exact) if share else g * per_channel(scale, x)
    return grad_input.to(x.dtype), *others


def weighted(g: Tensor, x: Tensor, slope: Tensor, rest: Tensor, scale: Tensor, share: float, exact=False) -> Tensor:
    """Return ``(g + share * (slope * x + rest)) * scale``, where the last three have a number for each channel.

    If ``exact``, no product of numbers of a channel is formed, which float32 could round to 0.
    """
    if exact or torch.compiler.is_compiling() or x.numel() < LARGE or is_vectorised(g):
        product = torch.addcmul(g, x, per_channel(slope, x), value=share)
        return product.add_(per_channel(rest, x), alpha=share).mul_(per_channel(scale, x))
    # For large data each pass counts: two of them, and one new tensor.
    factor = scale * share
    slope, rest = slope * factor, rest * factor
    if x.is_cpu and x.is_contiguous() and x.dim() > 2 and x.dtype is slope.dtype:
        zero = torch.zeros_like(slope)
        line = torch.native_batch_norm(x, slope, rest, zero, zero + 1, False, 0.0, 0.0)[0]
    else:
        line = torch.addcmul(per_channel(rest, x), x, per_channel(slope, x))
    return line.addcmul_(g, per_channel(scale, x))


def _own_sums(g: Tensor, x: Tensor, mean: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two ``sums`` for each sample, shape (N, C)."""
    if x.is_contiguous() and x.numel() > 0:  # then each channel of each sample can be seen as a channel
        size, rows = x.size(0), (1, -1, *x.shape[2:])
        own = sums(g.view(rows), x.view(rows), mean.repeat(size), gain.repeat(size))
        return tuple(each.unflatten(-1, (size, -1)) for each in own)
    by_rows = (
        x.dim() > 2 and x.stride(1) == 1 and g.stride() == x.stride() and x.numel() >= max(1, len(x)) * _LARGE_SAMPLE
    )
    if by_rows and is_eager(g) and not is_vectorised(g):  # channels-last
        own = [sums(*sample, mean, gain) for sample in zip(g.split(1), x.split(1), strict=True)]
        return torch.stack([each for each, _ in own]), torch.stack([each for _, each in own])
    space = tuple(range(2, x.dim()))
    normalised = (x - per_channel(mean, x)).mul_(per_channel(gain, x))
    return _product(normalised, g).sum(space), g.sum(space, dtype=mean.dtype)


def _without_own(g, x, mean, gain, free, scale, own, projection, total, count: int) -> Tensor:
    """Return the gradient of the input if the sums over the other samples, of ``count`` values, stand for all.

    With few new tensors and passes. Where all means are near 0, ``x - mean`` need not be formed.
    """
    share = scale / count
    plain = x.numel() >= LARGE and x.is_cpu and is_eager(x) and x.dtype is g.dtype is gain.dtype
    near = plain and not is_vectorised(g) and torch.mul(mean, gain).abs_().amax().item() < _NEAR
    if own is None:  # shape (N, C): each sum over a sample is the value itself
        if near and share.amin().item() > 0:
            return _without_own_value(g, x, mean, gain, free, share, projection, total, count)
        normalised = (x - mean).mul_(gain)
        product = _product(normalised, torch.addcmul(-projection, g, normalised))
        product = torch.addcmul(total * -share, product, share if free is None else share * free)
        return product.addcmul_(g, share * (count + 1))
    slope, rest = (own[0] - projection) * (gain * share), (own[1] - total) * share
    if free is not None:
        slope = slope * free
    if near:
        rest = torch.addcmul(rest, slope, mean, value=-1)
    slope, rest = (each.view(*each.shape, *[1] * (x.dim() - 2)) for each in (slope, rest))
    if near:
        return torch.addcmul(rest, x, slope).addcmul_(g, per_channel(scale, x))
    return _product(x - per_channel(mean, x), slope).add_(rest).addcmul_(g, per_channel(scale, x))


def _without_own_value(g, x, mean, gain, free, share, projection, total, count: int) -> Tensor:
    r"""Return the same for vectors, if means are near 0 and every ``share`` is positive, in four passes over the data.

    With the share $s$ and $\hat x$ it is $g\,(s\hat x^2 + s\,(count + 1)) - s\,(projection\,\hat x + total)$.
    """
    root = gain * share.sqrt()
    slope, root = (projection * gain, root) if free is None else (projection * gain * free, root * free)
    factor = torch.addcmul(torch.mul(mean, root).neg_(), x, root)
    factor = torch.addcmul(share * (count + 1), factor, factor, out=factor)
    rest = torch.addcmul(total, slope, mean, value=-1).mul_(share).neg_()
    return torch.addcmul(rest, x, slope.mul_(share).neg_()).addcmul_(g, factor)


def _product(plain: Tensor, other: Tensor) -> Tensor:
    """Return ``plain * other``, in the memory of ``plain`` if PyTorch allows it."""
    return plain * other if is_vectorised(other) else plain.mul_(other)


def moments_over_processes(group, count: int, mean: Tensor, variance: Tensor) -> tuple[int, Tensor, Tensor]:
    """Return the number of values per channel, the mean and the biased variance in float64 over all processes.

    A sum of squares over the processes would lose the digits of the variance if a mean is far from 0.
    """
    own = torch.cat((mean.new_full((1,), count, dtype=torch.float64), mean.double(), variance.double()))
    found = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size(group))]
    torch.distributed.all_gather(found, own, group=group)
    counts, of_processes = torch.stack(found).tensor_split((1,), 1)
    means, variances = of_processes.unflatten(1, (2, -1)).unbind(1)
    total = int(counts.sum().item())
    share = counts / max(total, 1)
    mean = (share * means).sum(0)
    return total, mean, (share * (variances + (means - mean).square())).sum(0)


def sums_over_processes(group, count: int, first: Tensor, second: Tensor) -> tuple[int, Tensor, Tensor]:
    """Return the number of values per channel in all processes, and the sums of two values over them in float64."""
    packed = torch.cat((first.new_full((1,), count, dtype=torch.float64), first.double(), second.double()))
    torch.distributed.all_reduce(packed, group=group)
    first, second = packed[1:].unflatten(0, (2, -1))
    return int(packed[0].item()), first, second


def update_running_gradients(
    estimates, projection: Tensor, total: Tensor, alpha, before=None, earlier: int | Tensor = 0
) -> None:
    """Update the running gradients in place; a channel whose update is not finite keeps its old estimates.

    If there were ``earlier`` backward passes through the same forward pass, the estimates become the average of what
    each of the passes would have made of the values ``before``. So the order of the passes does not matter. Compiled
    code gives ``earlier`` as a tensor.
    """
    unknown = isinstance(earlier, Tensor)
    if total.requires_grad:
        projection, total = projection.detach(), total.detach()
    for index, (old, new) in enumerate(zip(estimates, (projection, total), strict=True)):
        if new.dtype is not old.dtype:
            new = new.to(old.dtype)
        weight = alpha.to(old.dtype) if isinstance(alpha, Tensor) else alpha
        if unknown:
            start = torch.where(earlier > 0, before[index], old)
        else:
            start = before[index].to(old.dtype) if earlier else old
        moved = start.lerp(new, weight)
        if unknown or earlier:
            moved = old.lerp(moved, 1 / (earlier + 1))
        old.copy_(torch.where(moved.isfinite(), moved, old))
