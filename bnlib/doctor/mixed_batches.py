"""Outputs for the same samples in batches with different other samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bnlib.doctor.batches import Batch
from bnlib.doctor.losses import has_samples, main_output
from bnlib.doctor.measurements import Measurements
from bnlib.doctor.structures import join, sample_count, sample_shapes, select


def outputs_in_two_batches(measurements: Measurements) -> tuple[Tensor, ...] | None:
    """Return outputs for the same samples in two batches with different other samples, in the user's modes."""
    size = max(2, measurements.batches[0].size or 0)
    return _outputs_with_other_samples(measurements, "original", size, lambda others: [others])


def eval_outputs_in_two_batches(measurements: Measurements) -> tuple[Tensor, ...] | None:
    """Return the same after ``model.eval()``."""
    return _outputs_with_other_samples(measurements, "as is", 16, lambda others: [others], smallest=4)


def eval_outputs_in_three_batches(measurements: Measurements) -> tuple[Tensor, ...] | None:
    """Return the same after ``model.eval()``, and a third time with the other samples in reverse order."""

    def both_orders(others: object) -> list[object]:
        return [others, select(others, torch.arange(sample_count(others) - 1, -1, -1))]

    return _outputs_with_other_samples(measurements, "as is", 16, both_orders, smallest=4)


def _outputs_with_other_samples(
    measurements: Measurements,
    normalise_by: str,
    size: int,
    orders: Callable[[object], list[object]],
    smallest: int = 2,
) -> tuple[Tensor, ...] | None:
    """Return the outputs for the first half of a batch, for several second halves.

    Arguments:
        measurements: of the model.
        normalise_by: see ``InstrumentedModel``.
        size: of the batches; less if there are fewer samples, but at least ``smallest``.
        orders: takes other samples and returns the second halves, after the batch's own.
        smallest: return None if there are too few samples for batches of this size.
    """
    first = measurements.batches[0]
    alike = [each for each in measurements.batches if each.size and _same_form(each, first)]
    if not alike:
        return None
    enough = alike[0].size + alike[-1].size >= 2 * size
    pool = join([each.inputs for each in (alike[:1] + alike[1:][-1:] if enough else alike)])
    total = sample_count(pool)
    size = max(2, min(size, total // 2))
    if total < 3 or size < smallest:
        return None
    kept = max(1, size // 2)
    own = select(pool, slice(0, kept))
    halves = [select(pool, slice(kept, size)), *orders(select(pool, slice(total - (size - kept), total)))]
    mixed = [join([own, each]) for each in halves]
    try:
        with measurements.domain_in_use():
            outputs = [main_output(measurements.instrumented(Batch(*each), normalise_by).outputs) for each in mixed]
    except Exception:  # a model may take batches of one size only
        return None
    if not all(has_samples(each) and len(each) == size for each in outputs):
        return None
    return tuple(each[:kept] for each in outputs)


def _same_form(one: Batch, other: Batch) -> bool:
    return sample_shapes(one.inputs) == sample_shapes(other.inputs)
