"""DOC tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor


def gradients_or_zeros(
    gradients: Mapping[str, Tensor], names: Iterable[str], like: Mapping[str, Tensor]
) -> list[Tensor]:
    """The gradients by ``names``, 0 for those that are not there."""
    return [gradients[name] if name in gradients else torch.zeros_like(like[name]) for name in names]


def flattened(tensors: Iterable[Tensor]) -> Tensor:
    """All values of the tensors, detached, in a row of one dimension."""
    return torch.cat([at_least_float32(each.detach()).flatten() for each in tensors])


def at_least_float32(values: Tensor) -> Tensor:
    """At least float32, in which a half has no rounding errors to speak of."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def number_sequence(name: str, values: Sequence[float] | Tensor) -> Tensor:
    row = torch.as_tensor(values, dtype=torch.float64, device="cpu").detach()
    if row.dim() != 1 or row.numel() == 0:
        raise ValueError(f"{name} must be a sequence of numbers, got shape {tuple(row.shape)}")
    return row
