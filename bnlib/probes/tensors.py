"""Small tensor operations that several probes share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from bnlib.arguments import shown


def gradients_or_zeros(
    gradients: Mapping[str, Tensor], names: Iterable[str], like: Mapping[str, Tensor]
) -> list[Tensor]:
    """Return the gradients in the order of ``names``, with zeros for the names that have no gradient."""
    return [gradients[name] if name in gradients else torch.zeros_like(like[name]) for name in names]


def flattened(tensors: Iterable[Tensor]) -> Tensor:
    """Return all values of the tensors, detached, as one tensor of shape (number of values,) in float32 or better."""
    return torch.cat([at_least_float32(each.detach()).flatten() for each in tensors])


def at_least_float32(values: Tensor) -> Tensor:
    """Convert float16 and bfloat16 to float32, because sums in half precision have large rounding errors."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def norm(values: Tensor, dim: int | None = None) -> Tensor:
    """Return the norm of all values or along one dimension, also where the squares leave the range of the dtype."""
    found = torch.linalg.vector_norm(values, dim=dim)
    least = torch.finfo(values.dtype).tiny ** 0.5 * 2**10
    if values.numel() == 0 or bool(((found > least) & found.isfinite()).all()):
        return found
    largest = values.abs().amax() if dim is None else values.abs().amax(dim, keepdim=True)
    largest = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
    scaled = largest.view_as(found) * torch.linalg.vector_norm(values / largest, dim=dim)
    return torch.where((found > least) & found.isfinite(), found, scaled)


def root_mean_square(values: Tensor) -> Tensor:
    """Return the root of the mean of the squares, also where the squares leave the range of the dtype."""
    return norm(values) / max(1, values.numel()) ** 0.5


def number_sequence(name: str, values: Sequence[float] | Tensor) -> Tensor:
    """Return a sequence of numbers as a float64 tensor of shape (K,) on the CPU.

    Raises:
        TypeError: ``values`` does not consist of numbers; the message calls it ``name``.
        ValueError: ``values`` is empty or not one-dimensional.
    """
    try:
        row = torch.as_tensor(values, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be a sequence of numbers, got {shown(values)}") from error
    if row.dim() != 1 or row.numel() == 0:
        raise ValueError(f"{name} must be a sequence of numbers, got shape {tuple(row.shape)}")
    return row
