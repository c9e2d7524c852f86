"""The train step of Full Normalization as ``torch.autograd.Function``: eager, and for ``compile`` and ``torch.func``.

The backward pass uses what the estimates were in the forward pass, and it updates the buffers that the layer had then.
So gradients do not depend on the order of the backward passes, and ``torch.func.functional_call`` changes only the
buffers that it is given.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd import Function

from bnlib.norm.buffers import count, newest, with_counter
from bnlib.norm.checks import check_real
from bnlib.norm.full_norm_fast_path import fast_gradients, fast_step
from bnlib.norm.full_norm_passes import gradients, normalise, update_running_gradients
from bnlib.norm.scheduled import ALPHA, at_step

_ESTIMATES = ("running_mean", "running_mean_rest", "running_var", "running_grad_weight", "running_grad_bias")
_NO_FORWARD_MODE = (
    "FullNorm in train mode has no forward-mode derivative: its gradient is an estimate that exists in the backward "
    "pass only. Use eval mode, where the estimates are constants, or reverse mode (torch.func.vjp, torch.func.jacrev)."
)

# PyTorch has no public function for this question, and none to call operations as a kernel in C++ calls them, without
# asking of each one whether autograd must record it. Inside of a Function it need not.
_is_transformed, _below_autograd = torch._C._are_functorch_transforms_active, torch._C._AutoDispatchBelowAutograd
_is_legacy_batched = torch._C._functorch.is_legacy_batchedtensor


class Step(Function):
    """A train step that updates the buffers of the layer itself, with as little overhead as possible.

    Its last argument is the layer, and the first pass over the same batch (``recomputation``) or None.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, layer_and_pass):
        """Normalise ``x`` and update the buffers of the layer."""
        layer, again = layer_and_pass
        estimates, alpha, oracle, free, known = layer._buffers, layer.alpha, layer.oracle, None, None
        buffers = estimates
        if again is not None:
            estimates, buffers = again.buffers, again.copies()
        steps, count = buffers["num_batches_tracked"], None
        if callable(alpha):
            if steps.is_cpu:
                count = steps.item()
                alpha = float(at_step("alpha", alpha, count, ALPHA))
            else:  # a number is faster, but reading it from a GPU would have to wait for the GPU
                alpha = at_step("alpha", alpha, steps.double(), ALPHA)
        with _below_autograd():
            done = fast_step(x, weight, bias, alpha, layer, buffers)
        if done is not None:
            output, mean, gain, scale, known = done
        else:
            check_real(x)
            old = [buffers[name] for name in _ESTIMATES]
            output, *new, (mean, gain, *others) = normalise(x, weight, bias, *old, alpha, layer.settings)
            known, free = (others[:2], None) if oracle == "running" else (None, others[0])
            scale = None
            for each, value in zip(old[:3], new, strict=True):
                each.copy_(value)
            ctx.before = old[3].clone(), old[4].clone()
        steps.add_(1) if count is None else steps.fill_(count + 1)
        ctx.save_for_backward(x, weight)
        ctx.step = mean, gain, scale, free, known, bias is not None, oracle, layer, alpha
        ctx.estimates = estimates["running_grad_weight"], estimates["running_grad_bias"]
        ctx.backward_passes, ctx.first_pass = 0, again
        return output

    @staticmethod
    def backward(ctx, g):
        """Return the gradients and update the running gradients."""
        x, weight = ctx.saved_tensors
        mean, gain, scale, free, known, has_bias, oracle, layer, alpha = ctx.step
        differentiated, transformed = torch.is_grad_enabled(), _is_transformed()
        if _is_legacy_batched(g):  # is_grads_batched, and jacobian(vectorize=True)
            return _vectorised(ctx, g)
        if scale is not None and not (differentiated or transformed):  # it was a fast step
            with _below_autograd():
                results = fast_gradients(g, x, weight, mean, gain, scale, known, oracle, ctx.needs_input_grad[0])
                if results is not None:
                    grad_input, grad_weight, grad_bias = results
                    if oracle == "running":
                        _move_or_lerp(ctx, layer, grad_weight, grad_bias, alpha)
                    return grad_input, _like(weight, grad_weight), grad_bias if has_bias else None, None
        compute, of_input = gradients, ctx.needs_input_grad[0]
        if differentiated or transformed:
            compute, of_input = Gradients.apply, True
        settings = layer.settings._replace(oracle=oracle)
        results = compute(g, x, weight, mean, gain, free, *(known or (None, None)), of_input, settings)
        grad_input, grad_weight, grad_bias, projection, total = results
        if oracle == "running":
            _move(ctx, layer, projection, total, alpha)
        return grad_input, _like(weight, grad_weight), grad_bias if has_bias else None, None

    @staticmethod
    def jvp(ctx, *tangents):
        """Raise an error."""
        raise RuntimeError(_NO_FORWARD_MODE)


def _move_or_lerp(ctx, layer, grad_weight: Tensor, grad_bias: Tensor, alpha: float) -> None:
    """Do the same as ``_move``, in two operations if it is the first backward pass and all values are finite."""
    of_weight, of_bias = ctx.estimates
    if (
        ctx.backward_passes
        or ctx.first_pass is not None
        or layer._buffers["running_grad_bias"] is not of_bias
        or not math.isfinite(torch.dot(grad_weight, grad_bias).item())  # otherwise each value is finite
    ):
        _move(ctx, layer, grad_weight, grad_bias, alpha)
        return
    of_weight.lerp_(grad_weight, alpha)
    of_bias.lerp_(grad_bias, alpha)
    ctx.backward_passes = 1


def _move(ctx, layer, projection: Tensor, total: Tensor, alpha) -> None:
    """Update the running gradients that the layer had in the forward pass, or the tensors that took their place."""
    estimates = ctx.estimates
    if layer._buffers["running_grad_bias"] is not estimates[1]:
        estimates = [newest(each) for each in estimates]
    earlier, before = 0, None
    if _is_transformed():
        earlier, projection, total = counted(ctx, projection, total, estimates[0])
    else:
        counter = ctx.first_pass or ctx  # older checkpoints make a new graph for each backward pass
        earlier, counter.backward_passes = counter.backward_passes, counter.backward_passes + 1
    if earlier:
        mean, gain, scale, _, (slope, rest), *_ = ctx.step
        before = ctx.before if scale is None else (slope / gain, rest + slope * mean)
    update_running_gradients(estimates, projection, total, alpha, before, earlier)


def _vectorised(ctx, g: Tensor):
    """Return the gradients for a batch of gradients at the output; its rows are not losses, so no estimate moves."""
    x, weight = ctx.saved_tensors
    mean, gain, _, free, known, has_bias, oracle, layer, _ = ctx.step
    settings = layer.settings._replace(oracle=oracle)
    results = gradients(g, x, weight, mean, gain, free, *(known or (None, None)), True, settings)
    return results[0], _like(weight, results[1]), results[2] if has_bias else None, None


def _like(weight: Tensor | None, grad_weight: Tensor) -> Tensor | None:
    if weight is None or weight.dtype is grad_weight.dtype:
        return weight if weight is None else grad_weight
    return grad_weight.to(weight.dtype)


# Without Function.apply's questions about torch.func, which is_eager has answered.
eager_step = super(Function, Step).apply


class PureStep(Function):
    """A train step that returns the new estimates, for ``torch.compile``.

    Its last but one argument says whether the whole step is compiled. ``torch.compiler.is_compiling`` does not tell:
    behind a graph break, PyTorch compiles the forward pass of a Function without its backward pass.
    """

    @staticmethod
    def forward(x, weight, bias, mean, mean_rest, variance, of_weight, of_bias, alpha, compiled, settings):
        """Return the output, the new estimates, and the values that ``backward`` needs."""
        estimates = mean, mean_rest, variance, of_weight, of_bias
        output, *new, used = normalise(x, weight, bias, *estimates, alpha, settings)
        before = []
        if settings.oracle == "running":
            before = [of_weight.clone(), of_bias.clone()]
            if compiled:
                new[0], *before = with_counter(new[0], *before)
        return output, *new, *before, *used

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Save the tensors that ``backward`` needs."""
        x, weight, bias, _, _, _, of_weight, of_bias, alpha, compiled, settings = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(x, weight, *output[4:])
        alpha = None if isinstance(alpha, Tensor) else alpha
        ctx.layer = bias is not None, (of_weight, of_bias), alpha, compiled, settings
        ctx.backward_passes = 0

    @staticmethod
    def backward(ctx, g, *_):
        """Return the gradients and update the running gradients."""
        has_bias, estimates, alpha, compiled, settings = ctx.layer
        running = settings.oracle == "running"
        x, weight, *saved = ctx.saved_tensors
        before, (mean, gain, *others) = saved[: (2 + compiled) * running], saved[(2 + compiled) * running :]
        free, slope, rest = None, None, None
        if running:
            slope, rest, *newest = others
            alpha = newest[0] if newest else alpha
        else:
            (free,) = others
        # torch.compile cannot trace a Function inside another one, and raises its own error for second derivatives.
        differentiate = gradients if compiled else Gradients.apply
        results = differentiate(g, x, weight, mean, gain, free, slope, rest, True, settings)
        grad_input, grad_weight, grad_bias, projection, total = results
        if running:
            if compiled:
                earlier = count(before[2], total)
            else:
                earlier, projection, total = counted(ctx, projection, total, estimates[0])
            update_running_gradients(estimates, projection, total, alpha, before, earlier)
        return grad_input, _like(weight, grad_weight), grad_bias if has_bias else None, *[None] * 8


class TransformedStep(PureStep):
    """The same step for ``torch.func``; ``torch.compile`` does not accept a class with these methods."""

    @staticmethod
    def vmap(info, in_dims, *inputs):
        """Train many layers at once, as one layer with many channels."""
        return _unfolded(info.batch_size, TransformedStep.apply(*_folded(info.batch_size, in_dims, inputs)))

    @staticmethod
    def jvp(ctx, *tangents):
        """Raise an error."""
        raise RuntimeError(_NO_FORWARD_MODE)


class Gradients(Function):
    """The function ``gradients``, which raises an error when its results are differentiated."""

    @staticmethod
    def forward(*inputs):
        """Call ``gradients``."""
        return gradients(*inputs)

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Save nothing."""

    @staticmethod
    def backward(ctx, *_):
        """Raise an error."""
        raise RuntimeError(
            "FullNorm in train mode cannot be differentiated twice: its gradient is an estimate, not the derivative of "
            "its output. Use eval mode, where the estimates are constants, or bnlib.BatchNorm."
        )

    @staticmethod
    def vmap(info, in_dims, *inputs):
        """Do the same as ``TransformedStep.vmap``."""
        return _unfolded(info.batch_size, Gradients.apply(*_folded(info.batch_size, in_dims, inputs)))


def counted(ctx, first: Tensor, last: Tensor, estimate: Tensor) -> tuple[int, Tensor, Tensor]:
    """Return the number of earlier backward passes and the results of ``UnlessVectorised``; count unless vectorised."""
    earlier, vectorised = ctx.backward_passes, set()  # torch.func would copy a list
    first, last = UnlessVectorised.apply(first, last, estimate, vectorised)
    ctx.backward_passes += not vectorised
    return earlier, first, last


class UnlessVectorised(Function):
    """The two sums that update the estimates; or NaN, which updates nothing, if only the sums are vectorised.

    So the rows of a Jacobian matrix (``torch.func.jacrev``) are not taken for the gradients of losses. In that case
    something is added to the last argument, a set.
    """

    @staticmethod
    def forward(projection, total, estimate, vectorised):
        """Return copies of the sums."""
        return projection.clone(), total.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Save nothing."""
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx, *_):
        """Return no gradients."""
        return None, None, None, None

    @staticmethod
    def vmap(info, in_dims, projection, total, estimate, vectorised):
        """Return the sums if each member of the mapped dimension has an estimate of its own."""
        if in_dims[2] is not None:
            return (projection.clone(), total.clone()), in_dims[:2]
        vectorised.add(True)
        nothing = torch.full_like(estimate, torch.nan)
        return (nothing, nothing.clone()), (None, None)


def _folded(size: int, in_dims, inputs):
    """Merge the mapped dimension of each tensor, shape (N, C, *) or (C,), with its channels; keep other inputs."""
    channels = inputs[-1].num_features
    return [_fold(size, channels, value, dim) if isinstance(value, Tensor) else value
            for value, dim in zip(inputs, in_dims, strict=True)]  # fmt: skip


def _fold(size: int, channels: int, value: Tensor, dim: int | None) -> Tensor:
    value = value.expand(size, *value.shape) if dim is None else value.movedim(dim, 0)
    if value.dim() == 1:
        return value.repeat_interleave(channels)
    return value.flatten(0, 1) if value.dim() == 2 else value.movedim(0, 1).flatten(1, 2)


def _unfolded(size: int, outputs):
    big, *small = outputs
    small = [None if each is None else each.unflatten(0, (size, -1)) for each in small]
    return (big.unflatten(1, (size, -1)), *small), (1, *[None if each is None else 0 for each in small])
