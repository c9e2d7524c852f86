"""A train step whose backward pass has running statistics of its own, also for ``compile`` and ``torch.func``.

Moving Average Batch Normalization and Online Normalization differentiate their statistics with averages over earlier
backward passes. What they compute is a ``Method``; this file makes a ``torch.autograd.Function`` of it. All tensors of
the state have the channels as their first dimension.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.autograd import Function

from bnlib.norm.buffers import count as count_pass
from bnlib.norm.buffers import is_eager, newest, store, with_counter
from bnlib.norm.full_norm_autograd import counted
from bnlib.norm.full_norm_passes import is_vectorised
from bnlib.norm.recomputation import first_pass, unseen

# PyTorch has no public function for this question.
_is_transformed = torch._C._are_functorch_transforms_active


class Method(Protocol):
    """What a layer computes in its two passes; a ``NamedTuple`` of the layer's settings.

    Attributes:
        forward_state, backward_state: the names of the buffers that the two passes update.
    """

    forward_state: tuple[str, ...]
    backward_state: tuple[str, ...]

    def normalise(self, x: Tensor, count: Tensor, *state: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return the output, the new forward state, and what the backward pass needs besides the output.

        ``state`` is the forward and the backward state. The last of the values for the backward pass are copies of the
        backward state, so that its gradient does not depend on what other backward passes do before it.
        """

    def differentiate(self, g: Tensor, output: Tensor, kept: list[Tensor], state: list[Tensor]):
        """Return the gradient of the input and the new backward state, given the gradient ``g`` at the output."""


def train_step(layer: nn.Module, x: Tensor, method: Method) -> Tensor:
    """Normalise ``x`` with the method and update the buffers of the layer; ``num_batches_tracked`` counts the batches.

    ``torch.utils.checkpoint`` runs the forward pass twice. The second time is recognised: the output is the same, and
    the buffers do not change again.
    """
    with unseen():
        return _train_step(layer, x, method)


def _train_step(layer: nn.Module, x: Tensor, method: Method) -> Tensor:
    again = first_pass(layer, x)
    # Not layer._buffers: functional_call replaces the buffers for the duration of a call.
    live = {name: getattr(layer, name) for name in (*method.forward_state, *method.backward_state)}
    count = layer.num_batches_tracked
    before = live if again is None else again.copies()
    if again is not None:
        count = before["num_batches_tracked"]
        live = again.buffers
    # Copies, because torch.compile does not accept a tensor twice.
    state = [before[name] for name in method.forward_state] + [before[name].clone() for name in method.backward_state]
    state += [live[name] for name in method.backward_state]
    compiled = torch.compiler.is_compiling()
    step = Step if compiled else PlainStep
    output, *results = step.apply(x, method, compiled, again, count, *state)
    if again is None:
        new = dict(zip(method.forward_state, results, strict=False))
        store(layer, **new, num_batches_tracked=count + 1)
    return output


class Step(Function):
    """The train step; it returns the output, the new forward state, and what the backward pass needs.

    ``compiled`` says whether the whole step is compiled. ``torch.compiler.is_compiling`` does not tell: behind a graph
    break, PyTorch compiles the forward pass of a Function without its backward pass. The last arguments are the forward
    state, the backward state, and the buffers of the backward state, which it moves. In the second pass of a checkpoint
    these hold newer values than the backward state.
    """

    @staticmethod
    def forward(x, method, compiled, again, count, *state):
        """Normalise ``x``."""
        output, new, kept = method.normalise(x, count, *state[: -len(method.backward_state)])
        counter = []
        if compiled:
            new[0], *counter = with_counter(new[0])
        return output, *new, *counter, *kept

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Save what ``backward`` needs; the state that it updates is no saved tensor, because it changes."""
        _, method, compiled, again, _, *state = inputs
        start, live = len(method.forward_state), state[-len(method.backward_state) :]
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(inputs[0], output[0], *output[1 + start :])
        ctx.method, ctx.compiled, ctx.state, ctx.backward_passes, ctx.first_pass = method, compiled, live, 0, again

    @staticmethod
    def backward(ctx, g, *_):
        """Return the gradient of the input and update the backward state."""
        x, output, *kept = ctx.saved_tensors
        size, counter = len(ctx.state), None
        if ctx.compiled:
            counter, *kept = kept
        kept, before = kept[:-size], kept[-size:]
        with torch.no_grad():
            grad_input, new = ctx.method.differentiate(g, output, kept, before)
            if not is_vectorised(g):
                _update(ctx, g, output, kept, before, new, counter)
        if torch.is_grad_enabled() and not ctx.compiled:
            grad_input = Final.apply(grad_input, x, g)
        return grad_input, *[None] * (4 + len(ctx.method.forward_state) + 2 * size)


class PlainStep(Step):
    """The same step outside of ``torch.compile``, which does not accept a class with these methods."""

    @staticmethod
    def jvp(ctx, *tangents):
        """Raise an error."""
        raise RuntimeError(
            "a layer with running statistics of the backward pass has no forward-mode derivative in train mode: its "
            "gradient is an estimate that exists in the backward pass only. Use eval mode, where the statistics are "
            "constants, or reverse mode (torch.func.vjp, torch.func.jacrev)."
        )

    @staticmethod
    def vmap(info, in_dims, x, method, compiled, again, count, *state):
        """Train many layers at once, as one layer with many channels."""
        size = info.batch_size
        x_dim, _, _, _, count_dim, *state_dims = in_dims
        channels = x.size(2 if x_dim is not None and x_dim <= 1 else 1)
        wide = _with_mapped(x, x_dim, size).movedim(0, 1).flatten(1, 2)
        if count_dim is not None or count.dim():  # an inner vmap has repeated it for its channels
            count = _with_mapped(count, count_dim, size)
            count = count.flatten() if count.dim() > 1 else count.repeat_interleave(channels)
        wide_state = [_with_mapped(each, dim, size).flatten(0, 1) for each, dim in zip(state, state_dims, strict=True)]
        output, *others = PlainStep.apply(wide, method, compiled, again, count, *wide_state)
        others = [each.unflatten(0, (size, -1)) for each in others]
        return (output.unflatten(1, (size, -1)), *others), (1, *[0] * len(others))


class Final(Function):
    """A gradient that raises an error when it is differentiated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad_input, x, g):
        """Return the gradient."""
        return grad_input.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Save nothing."""

    @staticmethod
    def backward(ctx, *_):
        """Raise an error."""
        raise RuntimeError(
            "a layer with running statistics of the backward pass cannot be differentiated twice in train mode: its "
            "gradient is an estimate, not the derivative of its output; use eval mode, where the statistics are "
            "constants, or bnlib.BatchNorm"
        )


def _with_mapped(value: Tensor, dim: int | None, size: int) -> Tensor:
    return value.expand(size, *value.shape) if dim is None else value.movedim(dim, 0)


def _update(ctx, g: Tensor, output: Tensor, kept, before: list[Tensor], new: list[Tensor], counter) -> None:
    """Write the new backward state in place; values that are not finite are left out.

    ``new`` is what a state of ``before`` becomes. If the state has changed since the forward pass, it moves from where
    it is now. Several backward passes through one forward pass leave the average of what each would have made of the
    state ``before``. Vectorised backward passes, such as the rows of a Jacobian matrix, are no steps of training and
    update nothing.
    """
    live, compiling = ctx.state, ctx.compiled
    eager, earlier = not (compiling or _is_transformed()), ctx.backward_passes
    if compiling:
        earlier = count_pass(counter, new[0])
    elif eager:
        live = [newest(each) for each in live]
        counts = ctx.first_pass or ctx  # older checkpoints make a new graph for each backward pass
        earlier, counts.backward_passes = counts.backward_passes, counts.backward_passes + 1
    now, values = [each.to(old.dtype) for each, old in zip(live, before, strict=True)], new
    if not eager or (not earlier and is_eager(g) and not g.is_meta and not all(map(torch.equal, now, before))):
        _, values = ctx.method.differentiate(g, output, kept, now)
    if compiling:
        weights = [1 / (earlier.view(-1, *[1] * (old.dim() - 1)) + 1) for old in now]
        averages = [old.lerp(value, weight) for old, value, weight in zip(now, new, weights, strict=True)]
        values = [torch.where(weight < 1, *pair) for weight, *pair in zip(weights, averages, values, strict=True)]
    elif earlier:
        values = [old.to(value.dtype).lerp(value, 1 / (earlier + 1)) for old, value in zip(live, new, strict=True)]
    if not (eager or compiling):
        _, first, last = counted(ctx, values[0], values[-1], live[0])
        values = [first, last][: len(values)]
    for old, value in zip(live, values, strict=True):
        value = value.to(old.dtype)
        old.copy_(torch.where(value.isfinite(), value, old))


def as_wide(values: Tensor, x: Tensor) -> Tensor:
    """View ``values``, shape (C,) or (N, C), so that they broadcast against ``x``, shape (N, C, ...)."""
    return values.view(*values.shape, *[1] * (x.dim() - 2))


def affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Multiply ``x``, shape (N, C, ...), by gamma and add beta, shape (C,); None stands for 1 and 0."""
    if weight is None:
        return x
    scaled = x * as_wide(weight, x)
    return scaled if bias is None else scaled + as_wide(bias, x)


def kept_apart(output: Tensor, weight: Tensor | None) -> Tensor:
    """Return ``output``, which the backward pass needs, so that an activation in place behind the layer may change it.

    With a ``weight`` that follows it is a new tensor anyway.
    """
    return output.clone() if weight is None else output


def is_exported() -> bool:
    """Return whether a program is made of the layer; exporters fold PyTorch's batch norm into a convolution."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()
