"""Update the buffers of a layer: eagerly, under ``torch.compile`` and under ``torch.func``."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils.weak import WeakIdKeyDictionary

_NO_OPERATIONS_OF_ITS_OWN = torch._C._disabled_torch_dispatch_impl
_MOVED = WeakIdKeyDictionary()
"""The buffers that took the place of others, for example in ``layer.double()``, by the old ones."""


def is_eager(x: Tensor) -> bool:
    """Return whether operations on ``x`` compute numbers now, and are not traced or transformed by ``torch.func``."""
    # Function.apply makes the second check; PyTorch has no public function for it.
    return (type(x) is Tensor or isinstance(x, nn.Parameter) or _has_plain_values(x)) and not (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._is_tracing()
        or (torch._C._len_torch_dispatch_stack() and get_proxy_mode() is not None)  # make_fx, torch.func.linearize
    )


def _has_plain_values(x: Tensor) -> bool:
    # A subclass with operations of its own, such as a FakeTensor, need not have values.
    return isinstance(x, Tensor) and type(x).__torch_dispatch__ is _NO_OPERATIONS_OF_ITS_OWN


def is_transformed() -> bool:
    """Return whether a transformation of ``torch.func`` runs, outside of ``torch.compile``."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def store(layer: nn.Module, **values: Tensor) -> None:
    """Write ``values`` into the buffers of ``layer`` in place, so that references and shared memory stay valid.

    Raises:
        RuntimeError: if ``torch.func`` does not allow it; the message says what to do instead.
    """
    if torch.compiler.is_compiling():  # which does not compile the explanation
        for name, value in values.items():
            getattr(layer, name).copy_(value)
        return
    with explained(layer, next(iter(values))):
        for name, value in values.items():
            getattr(layer, name).copy_(value)


@contextmanager
def explained(layer: nn.Module, buffer: str) -> Iterator[None]:
    """Say what to do instead if ``torch.func`` cannot run what stands in a ``with`` block and updates a buffer."""
    try:
        yield
    except RuntimeError as error:
        known = re.search(r"in-?place|vmap|\.item\(\)|batched", str(error)) and "in train mode updates" not in str(
            error
        )
        if not known or not is_transformed():
            raise
        raise RuntimeError(
            f"{type(layer).__name__} in train mode updates {buffer}, which torch.func cannot do for each sample, or if "
            "the buffers are not arguments of the transformed function. For per-sample gradients and Jacobian matrices "
            "call layer.eval() first. To train with torch.func, pass the buffers (torch.func.functional_call), and "
            "give each model of an ensemble its own (torch.func.stack_module_state); layers that draw noise cannot be "
            "members of such an ensemble."
        ) from error


@contextmanager
def followed(layer: nn.Module, *buffers: str) -> Iterator[None]:
    """Remember which new buffers take the place of old ones in a ``with`` block, such as a change of the type."""
    before = {name: getattr(layer, name) for name in buffers}
    yield
    for name, old in before.items():
        if getattr(layer, name) is not old:
            _MOVED[old] = getattr(layer, name)  # a backward pass may still have to update it


def newest(buffer: Tensor) -> Tensor:
    """Return the buffer that took the place of ``buffer``, or itself."""
    while buffer in _MOVED:
        buffer = _MOVED[buffer]
    return buffer


def refuse_tangents(*statistics: Tensor) -> None:
    """Raise an error if a derivative by running statistics is asked for in forward mode, as PyTorch does in reverse.

    The kernel of batch norm would take it for 0.
    """
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return
    if any(forward_ad.unpack_dual(each).tangent is not None for each in statistics):
        raise RuntimeError(
            "running statistics must have no tangents in eval mode, got some: PyTorch's batch norm has no derivative "
            "with respect to them; write down its formula to differentiate it"
        )


def kept_for_backward(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Return copies of running statistics if a backward pass in eval mode may need them.

    A training step before that backward pass would change the statistics themselves, and the gradient with them. An
    exported program gets the statistics themselves.

    Raises:
        RuntimeError: if the statistics have tangents. Reverse mode raises PyTorch's own error.
    """
    if torch.compiler.is_compiling():
        return copied_if_compiled(mean, variance)
    refuse_tangents(mean, variance)
    if not torch.is_grad_enabled() or torch._C._is_tracing():
        return mean, variance
    return mean.clone(), variance.clone()


def copied_if_compiled(*statistics: Tensor) -> tuple[Tensor, ...]:
    """Return copies of statistics in compiled code, which would else compute with them again in the backward pass."""
    if not torch.compiler.is_compiling() or torch.compiler.is_exporting() or not torch.is_grad_enabled():
        return statistics
    return torch.ops.bnlib.copied(torch.stack(statistics)).unbind()


def hold(*values: Tensor) -> list[Tensor]:
    """Return values that a backward pass needs, so that ``torch.compile`` saves them in the forward pass.

    It would otherwise compute some of them again in the backward pass, from buffers that have new values by then. At
    least one of the results must be used for the output or for the buffers; the others are then saved with it.

    Arguments:
        values: tensors of the same shape.

    Raises:
        RuntimeError: by the compiled code, if ``torch.utils.checkpoint`` runs it again in the backward pass.
    """
    if not torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return list(values)
    dtype = functools.reduce(torch.promote_types, [each.dtype for each in values])
    held = torch.ops.bnlib.hold(torch.stack([each.to(dtype) for each in values])).unbind()
    return [each.to(value.dtype) for each, value in zip(held, values, strict=True)]


def _copy_in_first_pass(values: Tensor) -> Tensor:
    # A backward pass is running, and not only being compiled.
    if torch._C._current_graph_task_id() != -1 and type(values) is Tensor:
        raise RuntimeError(
            "a compiled layer that changes its buffers in train mode must not be inside torch.utils.checkpoint, "
            "because compiled code does not see that it computes the same batch again; leave out torch.compile or the "
            "checkpoint for this part of the model"
        )
    return values.clone()


def with_counter(value: Tensor, *values: Tensor) -> list[Tensor]:
    """Return held ``values`` (see ``hold``) and a new counter of backward passes, in which each channel has the same.

    Compiled code cannot count in a Python object. One of the values must be used for the output or for the buffers.
    """
    return hold(value, *values, torch.zeros_like(value))


def count(counter: Tensor, gradient: Tensor) -> Tensor:
    """Return how many backward passes ``counter`` has counted, and count one more; for compiled code.

    ``gradient`` is any tensor that depends on the gradient, so that it is done in the backward pass.
    """
    return torch.ops.bnlib.count(counter, gradient)


def _count(counter: Tensor, gradient: Tensor) -> Tensor:
    before = counter.clone()
    if type(counter) is Tensor:  # the code runs, and is not only being compiled
        counter.data.add_(1)  # not seen by autograd, for which a saved tensor must not change
    return before


if not hasattr(torch.ops.bnlib, "hold"):
    # torch.compile never repeats an operator that it does not know.
    _LIBRARY = torch.library.Library("bnlib", "FRAGMENT")
    _LIBRARY.define("hold(Tensor values) -> Tensor")
    _LIBRARY.define("copied(Tensor values) -> Tensor")
    _LIBRARY.impl("copied", torch.clone, "CompositeExplicitAutograd")
    _LIBRARY.impl("hold", _copy_in_first_pass, "CompositeExplicitAutograd")
    _LIBRARY.define("count(Tensor counter, Tensor gradient) -> Tensor")
    _LIBRARY.impl("count", _count, "CompositeExplicitAutograd")
