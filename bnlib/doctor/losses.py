"""Losses and error rates of a model on batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bnlib.doctor.batches import Batch
from bnlib.probes.tensors import at_least_float32

Loss = Callable[[object, object], Tensor]
"""``loss(outputs, targets)`` returns a single number."""


@dataclass(frozen=True, eq=False)
class Score:
    """The loss and the error rate of a model on several batches.

    Printed, it is the mean loss, with the error rate if there is one: ``0.106 (error 1.4%)``.

    Attributes:
        losses: the loss of each batch, shape (number of batches,), in the unit of the loss (nats for cross-entropy).
        error: the fraction of wrong classes, from 0 to 1; None where the targets are not classes.
    """

    losses: Tensor
    error: float | None

    def __str__(self) -> str:
        loss = f"{float(self.losses.mean()):.3g}"
        return loss if self.error is None else f"{loss} (error {self.error:.1%})"


def batch_loss(loss: Loss | None, outputs: object, batch: Batch) -> Tensor | None:
    """Return the loss of a batch, by ``loss`` or by ``default_loss``; None where it is unknown.

    Raises:
        ValueError: ``loss`` does not return a single number.
    """
    if batch.targets is None:
        return None
    value = (loss or default_loss)(outputs, batch.targets)
    if value is not None and (not isinstance(value, Tensor) or value.numel() != 1):
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"loss must return a tensor with a single number, got {got}")
    return value


def score(loss: Loss | None, outputs: Sequence[object], batches: Sequence[Batch]) -> Score | None:
    """Return the losses and the error rate of the outputs for all batches; None if the loss of a batch is unknown."""
    losses = [batch_loss(loss, output, batch) for output, batch in zip(outputs, batches, strict=True)]
    if any(value is None for value in losses):
        return None
    wrong, count = 0, 0
    for output, batch in zip(outputs, batches, strict=True):
        if default_loss(output, batch.targets) is not None:
            class_dim = -1 if output.shape[:-1] == batch.targets.shape else 1
            wrong += int((output.argmax(class_dim) != batch.targets).sum())
            count += batch.targets.numel()
    values = torch.tensor([float(value) for value in losses], dtype=torch.double)
    return Score(values, wrong / count if count else None)


def default_loss(outputs: object, targets: object) -> Tensor | None:
    """Return the cross-entropy if this is a classification, with the classes in dimension 1 or last; otherwise None."""
    if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor)):
        return None
    integers = not targets.is_floating_point() and not targets.is_complex() and targets.dtype != torch.bool
    if outputs.dim() < 2 or not outputs.is_floating_point() or not integers or not targets.numel():
        return None
    if outputs.dim() > 2 and outputs.shape[:-1] == targets.shape:
        outputs = outputs.movedim(-1, 1)
    if outputs.shape[:1] + outputs.shape[2:] != targets.shape:
        return None
    # Integers that are no classes of these outputs mean something else, as with a single output for two classes.
    if outputs.size(1) < 2 or targets.max() >= outputs.size(1) or targets[targets != -100].lt(0).any():
        return None
    # Half precision has too few digits for the differences between losses that matter here.
    return F.cross_entropy(at_least_float32(outputs), targets.long())
