"""The batches that a model is diagnosed on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch: the inputs of the model and, if known, the targets."""

    inputs: object
    targets: object = None


def first_batches(name: str, batches: Iterable, max_batches: int, model: nn.Module) -> list[Batch]:
    """Return the first ``max_batches`` batches, without empty ones, on the model's device.

    Raises:
        ValueError: ``batches``, which the message calls ``name``, is not an iterable of batches or has no samples.
    """
    if not isinstance(batches, Iterable) or isinstance(batches, Tensor):
        raise ValueError(f"{name} must be an iterable of batches, such as a DataLoader, got {type(batches).__name__}")
    device = next((each.device for each in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    taken = [_as_batch(name, each, device) for each in itertools.islice(batches, max_batches)]
    taken = [each for each in taken if not (isinstance(each.inputs, Tensor) and each.inputs.numel() == 0)]
    if not taken:
        raise ValueError(f"{name} must hold at least one batch with a sample, got none")
    return taken


def _as_batch(name: str, batch: object, device: torch.device) -> Batch:
    if not isinstance(batch, (tuple, list)):
        parts = [batch]
    elif len(batch) in (1, 2):
        parts = list(batch)
    else:
        raise ValueError(
            f"{name} must yield inputs or pairs (inputs, targets), got {len(batch)} parts; unpack such batches first, "
            'for example with ((b["x"], b["y"]) for b in loader)'
        )
    return Batch(*(part.to(device) if isinstance(part, Tensor) else part for part in parts))
