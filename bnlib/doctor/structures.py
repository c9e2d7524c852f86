"""Tensors inside tuples, lists, mappings and dataclasses: move them, count their samples, cut and join batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor


def tensors(value: object) -> Iterator[Tensor]:
    """Yield the tensors inside a value, in order.

    Example:
        >>> [each.item() for each in tensors({"a": torch.tensor(1), "b": [torch.tensor(2), "c"]})]
        [1, 2]
    """
    if isinstance(value, Tensor):
        yield value
    elif (parts := _parts(value)) is not None:
        for each in parts:
            yield from tensors(each)


def map_tensors(function: Callable[..., Tensor], value: object, *others: object) -> object:
    """Return the value with each tensor replaced by ``function(tensor, *tensors at the same place of the others)``.

    Mappings come back as dictionaries. What is neither a tensor nor a container stays as it is.
    """
    if isinstance(value, Tensor):
        return function(value, *others)
    parts = _parts(value)
    if parts is None:
        return value
    mapped = [
        map_tensors(function, part, *rest)
        for part, *rest in zip(parts, *(_parts(each) for each in others), strict=True)
    ]
    if isinstance(value, Mapping):
        return dict(zip(value, mapped, strict=True))
    if _is_dataclass(value):
        names = [each.name for each in dataclasses.fields(value) if each.init]
        return dataclasses.replace(value, **dict(zip(names, mapped, strict=True)))
    return type(value)(*mapped) if hasattr(value, "_fields") else type(value)(mapped)


def to_device(value: object, device: torch.device) -> object:
    """Move all tensors of a value to a device; also objects with a method ``to``, such as batches of graphs."""
    if not isinstance(value, Tensor) and _parts(value) is None and callable(getattr(value, "to", None)):
        return value.to(device)
    return map_tensors(lambda each: each.to(device), value)


def sample_count(value: object) -> int | None:
    """Return the number of samples if each tensor of the value has it as its first dimension; otherwise None.

    A list of dictionaries, such as the targets of a detector, has no tensor with a dimension for samples.
    """
    if _holds_lists_of_mappings(value):
        return None
    sizes = {len(each) if each.dim() else None for each in tensors(value)}
    return sizes.pop() if len(sizes) == 1 else None


def sample_shapes(value: object) -> list[tuple[int, ...]]:
    """Return the shape of one sample in each tensor."""
    return [tuple(each.shape[1:]) for each in tensors(value)]


def select(value: object, index: Tensor | slice) -> object:
    """Return the chosen samples of each tensor."""
    return map_tensors(lambda each: each[index.to(each.device) if isinstance(index, Tensor) else index], value)


def join(values: Sequence[object]) -> object:
    """Join batches of one structure along the samples."""
    first, *others = values
    return map_tensors(lambda *each: torch.cat(each), first, *others)


def describe(value: object) -> str:
    """Return the form of a batch in a few words.

    Example:
        >>> describe((torch.zeros(4, 3), {"y": torch.zeros(4)}))
        '(Tensor (4, 3), {y: Tensor (4,)})'
    """
    if isinstance(value, Tensor):
        return f"Tensor {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {describe(each)}" for key, each in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        inside = ", ".join(map(describe, value[:4])) + ", ..." * (len(value) > 4)
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    return type(value).__name__


def _parts(value: object) -> list | None:
    """Return what a container holds; None for anything else."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, (tuple, list)):
        return list(value)
    if _is_dataclass(value):
        return [getattr(value, each.name) for each in dataclasses.fields(value) if each.init]
    return None


def _is_dataclass(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _holds_lists_of_mappings(value: object) -> bool:
    if isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        return True
    return not isinstance(value, Tensor) and any(map(_holds_lists_of_mappings, _parts(value) or []))
