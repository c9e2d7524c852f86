"""Check of whether a loader shuffles: two passes over it are compared."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from bnlib.doctor.losses import main_targets
from bnlib.doctor.measurements import Measurements
from bnlib.doctor.report import Finding, make_finding
from bnlib.doctor.structures import tensors

_COMPARED = 4
"""Number of batches of each pass that are compared."""

_IMPOSSIBLE = 20.0
"""Labels with this entropy in nats agree by chance once in five hundred million cases."""


def batches_never_reshuffled(measurements: Measurements) -> Iterator[Finding]:
    """Find loaders that give the same samples in the same batches in each pass.

    A list of batches tells nothing about the loader that it was made from, and an iterator has only one pass. Where
    each pass changes the samples, as random crops do, the order of the labels within the batches is compared.
    """
    loader = measurements.loader
    if not measurements.will_be_trained or not _has_two_passes(loader):
        return
    first = [each.whole for each in measurements.batches[:_COMPARED] if each.whole is not None]
    if len(first) < 2:
        return
    try:
        second = list(itertools.islice(loader, len(first)))
    except Exception as error:
        measurements.skipped["whether the loader shuffles"] = f"a second pass over it failed: {error}"
        return
    if len(second) < len(first):
        return
    equal = all(map(_equal, first, second))
    if not equal and not _same_labels(first, second):
        return
    samples = sum(each.size or 0 for each in measurements.batches[: len(first)])
    text = f"Two passes over the loader begin with the same {len(first)} batches"
    if not equal:
        text = f"In two passes over the loader, the first {len(first)} batches have the same labels in the same order"
    text += f", {samples} samples." if samples else "."
    if isinstance(loader, DataLoader):
        text += f" The DataLoader uses a {type(loader.sampler).__name__}."
    yield make_finding("batches-never-reshuffled", "", "warning", text)


def _has_two_passes(loader: object) -> bool:
    if loader is None or isinstance(loader, Sequence):
        return False
    return isinstance(loader, DataLoader) or not isinstance(loader, Iterator)


def _equal(one: object, other: object) -> bool:
    """Return whether two batches hold the same numbers."""
    pairs = list(itertools.zip_longest(tensors(one), tensors(other)))
    return bool(pairs) and all(
        a is not None and b is not None and a.shape == b.shape and torch.equal(a.cpu(), b.cpu()) for a, b in pairs
    )


def _same_labels(first: Sequence[object], second: Sequence[object]) -> bool:
    """Return whether the labels agree, and chance cannot be the cause."""
    pairs = [(_labels(one), _labels(other)) for one, other in zip(first, second, strict=True)]
    if any(a is None or b is None or not torch.equal(a, b) for a, b in pairs):
        return False
    counts = [labels.unique(return_counts=True)[1].double() for labels, _ in pairs]
    return sum(float(each.sum() * torch.special.entr(each / each.sum()).sum()) for each in counts) > _IMPOSSIBLE


def _labels(batch: object) -> Tensor | None:
    found = main_targets(batch[-1] if isinstance(batch, (tuple, list)) and len(batch) > 1 else batch)
    usable = isinstance(found, Tensor) and found.dim() == 1 and not found.is_floating_point()
    return found.cpu() if usable else None
