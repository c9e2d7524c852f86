"""Check the arguments and the inputs of layers: an error names the argument, its value, and what it must be."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bnlib.arguments import check_integer, check_kind, check_number, shown

_INTEGERS = {
    "num_features",
    "num_channels",
    "num_groups",
    "num_domains",
    "in_features",
    "out_features",
    "virtual_batch_size",
}
_NUMBERS = {"eps", "momentum", "shift", "scale", "shift_spread", "scale_spread"}
_HALVES = (torch.float16, torch.bfloat16)


def check_layer(optional: tuple[str, ...] = (), **arguments: Any) -> None:
    """Check the arguments of a layer by their names, which mean the same in all layers.

    Integers must be at least 1, numbers finite; the layers check narrower ranges themselves.

    Arguments:
        optional: names of arguments that may be None.
        arguments: the arguments of a layer.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if it is out of range.
    """
    for name, value in arguments.items():
        if value is None and name in ("device", "dtype", "process_group", *optional):
            continue
        if name in _INTEGERS:
            check_integer(name, value)
        elif name in _NUMBERS:
            check_number(name, value)
        elif name == "seed":
            check_integer(name, value, at_least=0)
        elif name == "process_group":
            _check_group(value)
        elif name == "device":
            try:
                torch.device(value)
            except (RuntimeError, TypeError) as error:
                raise ValueError(f"device must be a device such as 'cpu' or 'cuda', got {shown(value)}") from error
        elif name == "dtype":
            check_kind(name, value, torch.dtype, "a torch.dtype such as torch.float32")
            if not value.is_floating_point:
                raise TypeError(f"dtype must be a type of real numbers such as torch.float32, got {value}")
        elif not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, got {shown(value)}")


def _check_group(value: Any) -> None:
    parts = torch.distributed
    # What new_group returns in a process that is not a member is no group.
    if parts.is_available() and (isinstance(value, parts.ProcessGroup) or value is parts.GroupMember.NON_GROUP_MEMBER):
        return
    hint = "; a device must be named, device=..." if isinstance(value, (str, torch.device)) else ""
    raise TypeError(f"process_group must be a group of torch.distributed or None, got {shown(value)}{hint}")


def check_input(layer: nn.Module, input: Any) -> None:
    """Check that the input of a layer is a tensor of real numbers with the shape (N, C, ...).

    Raises:
        TypeError: if it is no tensor or holds no real numbers.
        ValueError: if it has fewer than two dimensions or another number of channels.
    """
    check_real(input)
    if input.dim() < 2:
        raise ValueError(f"input must have shape (N, C) or (N, C, *spatial), got {tuple(input.shape)}")
    if input.size(1) != layer.num_features:
        raise ValueError(
            f"input must have num_features={layer.num_features} channels in dimension 1, got {input.size(1)} in "
            f"shape {tuple(input.shape)}"
        )


def check_real(input: Any) -> None:
    """Raise a TypeError if ``input`` is not a dense tensor of floating-point numbers that PyTorch computes with."""
    if not isinstance(input, Tensor):
        raise TypeError(f"input must be a tensor, got {shown(input)}")
    if not input.is_floating_point():
        raise TypeError(f"input must hold floating-point numbers, got {input.dtype}; convert it with input.float()")
    if input.dtype.itemsize == 1:
        raise TypeError(
            f"input must hold floating-point numbers of at least 16 bits, got {input.dtype}; convert it with "
            "input.float()"
        )
    if input.layout is not torch.strided or input.is_nested:
        way = "torch.nested.to_padded_tensor" if input.is_nested else "input.to_dense()"
        raise TypeError(f"input must be a dense tensor, got one of layout {input.layout}; convert it with {way}")


def refuse_tracing(layer: nn.Module, or_exporting: bool = False) -> None:
    """Raise a RuntimeError in ``torch.jit.trace``, whose program would repeat in each step what was done in one."""
    name = type(layer).__name__
    if or_exporting and torch.compiler.is_exporting():
        raise RuntimeError(f"{name} in train mode cannot be exported by torch.export; call layer.eval() first")
    if torch.jit.is_tracing():
        instead = "" if or_exporting else ", or use torch.export"
        raise RuntimeError(
            f"{name} in train mode cannot be traced by torch.jit.trace; call layer.eval() first{instead}"
        )


def check_same_dtype(input: Tensor, own: Tensor | None, or_half: bool = True) -> None:
    """Raise a TypeError if PyTorch's kernels do not take ``input`` with the layer's ``own`` tensor (None: any).

    They take tensors of one dtype, and those of batch norm ``or_half`` precision with tensors of float32.
    """
    if own is None or input.dtype is own.dtype or (or_half and own.dtype is torch.float32 and input.dtype in _HALVES):
        return
    raise TypeError(
        f"input must have the dtype of the layer, {own.dtype}, got {input.dtype}; convert the one or the other, for "
        f"example with layer.to({input.dtype})"
    )
