"""The same samples, shuffled into other batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bnlib.doctor.batches import Batch
from bnlib.doctor.structures import join, sample_count, sample_shapes, select


def reshuffled_batches(batches: Sequence[Batch], loss_takes_batches: bool) -> list[Batch]:
    """Return batches of the same sizes with the same samples in another order.

    Arguments:
        batches: for which ``why_not_reshuffled`` finds no reason against it.
        loss_takes_batches: there is a loss that takes the whole batch where the batches have no targets.
    """
    sizes = [batch.size for batch in batches]
    order = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(0))
    everything = select(join([_needed_parts(batch, loss_takes_batches) for batch in batches]), order)
    parts = [select(everything, slice(end - size, end)) for size, end in zip(sizes, np.cumsum(sizes), strict=True)]
    return [Batch(*inputs, *rest) for inputs, *rest in parts]


def why_not_reshuffled(batches: Sequence[Batch], loss_takes_batches: bool) -> str:
    """Return why the samples cannot be shuffled into other batches; empty if they can."""
    if len(batches) < 2:
        return "there is only one batch"
    if any(batch.size is None for batch in batches):
        return "the samples are not the first dimension of each tensor of a batch"
    for batch in batches:
        _, targets, whole = _needed_parts(batch, loss_takes_batches)
        if any(each is not None and sample_count(each) != batch.size for each in (targets, whole)):
            return "the targets do not belong to single samples"
        if sample_shapes((batch.inputs, targets)) != sample_shapes((batches[0].inputs, batches[0].targets)):
            return "the samples have different shapes"
    return ""


def _needed_parts(batch: Batch, loss_takes_batches: bool) -> tuple:
    """Return what the model and the loss take: a loss without targets takes the whole batch."""
    whole = batch.whole if loss_takes_batches and batch.targets is None else None
    return batch.inputs, batch.targets, whole
