"""Check of whether single batches have a far larger variance than the others, as with outliers in the data."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from bnlib.doctor.measurements import Measurements
from bnlib.doctor.report import Finding, make_finding

_LARGE, _FEWEST_BATCHES, _ENOUGH = 10, 4, 32
"""How many times the median variance is large; and batches and values per channel enough to tell."""


def variance_of_single_batches(measurements: Measurements) -> Iterator[Finding]:
    """Find layers in which one batch in a few has at least ten times the variance of the others.

    In such a batch, train mode makes all other samples small, and the running variance becomes an average that fits no
    batch. The first layer of the network where that is so is named: what follows has normalised inputs.
    """
    for name in measurements.passes_by_batch[0].calls:
        calls = [
            (number, call)
            for number, run in enumerate(measurements.passes_by_batch)
            for call in run.calls.get(name, ())[:1]
        ]
        if len(calls) < _FEWEST_BATCHES or any(call.count < _ENOUGH for _, call in calls):
            continue
        variances = torch.stack([call.variance.cpu().double() for _, call in calls])
        ratios = (variances / variances.median(0).values).nanmedian(1).values
        large = [(float(ratio), number) for ratio, (number, _) in zip(ratios, calls, strict=True) if ratio > _LARGE]
        if not large or 3 * len(large) > len(calls):
            continue
        ratio, number = max(large)
        text = (
            f"In {len(large)} of {len(calls)} batches, the variance of this layer's input is more than {_LARGE} times "
            f"the median over batches; in batch {number}, {ratio:.3g} times."
        )
        severity = "warning"
        if measurements.has_loss:
            text += f" The loss is {measurements.train_score} in train mode and {measurements.eval_score} in eval mode."
            severity = "error" if measurements.eval_worse_than_train else severity
        yield make_finding("outliers", name, severity, text)
        return
