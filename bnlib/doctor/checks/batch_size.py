"""Checks of the number of values that a batch gives to a norm layer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from bnlib.doctor.measurements import Measurements
from bnlib.doctor.report import Finding, make_finding
from bnlib.norm import FullNorm


def one_value_per_channel(measurements: Measurements) -> Iterator[Finding]:
    """Find layers in train mode with a single value per channel: it is its own mean, so the output is beta."""
    if measurements.inference:
        return
    for name, counts in _values_per_channel(measurements).items():
        ones = int((counts == 1).sum())
        if ones:
            raises = type(measurements.norm_layers[name]).__module__.startswith("torch.")
            text = (
                f"In train mode, {ones} of {len(counts)} batches give this layer one value per channel. That value is "
                f"its own mean, so {'PyTorch raises an error' if raises else 'the output is beta for any input'}."
            )
            yield make_finding("one-value-per-channel", name, "error", text)


def small_batches(measurements: Measurements) -> Iterator[Finding]:
    """Find layers with few values per channel, whose batch statistics are noisy.

    The mean of N values has a standard error of sigma / sqrt(N). On the digits, a trained network that predicts with
    batch statistics loses 2 % of accuracy at N = 16, 7 % at 8 and 18 % at 4. A network that was trained with as few
    values loses little in eval mode down to N = 4, unless it relies on the statistics of such small batches.
    """
    if measurements.inference:
        return
    eval_mode_loses = measurements.recomputed_worse_than_train
    for name, counts in _values_per_channel(measurements).items():
        # The median ignores an incomplete last batch.
        count = int(counts.median())
        if not (1 < count < 16 and isinstance(measurements.norm_layers[name], _BatchNorm)):
            continue
        text = (
            f"A batch gives this layer {count} values per channel. By chance alone, the mean of a batch is off by "
            f"{count**-0.5:.0%} of the standard deviation, and the variance by about {(2 / (count - 1)) ** 0.5:.0%}."
        )
        serious = eval_mode_loses or count < 4
        if eval_mode_loses:
            text += (
                f" The loss is {measurements.train_score} in train mode, and {measurements.eval_recomputed_score} in "
                "eval mode with statistics recomputed from these batches."
            )
        elif not serious:
            text += " The network looks worse in train mode than it is, so judge it in eval mode."
        yield make_finding("small-batches", name, "warning" if serious else "note", text)


def _values_per_channel(measurements: Measurements) -> dict[str, Tensor]:
    """Return, for each layer that normalises by the batch, the number of values per channel in each call."""
    found: dict[str, Tensor] = {}
    passes = measurements.passes_by_batch  # they find layers that training uses as fixed
    for name, layer in measurements.norm_layers.items():
        if isinstance(layer, FullNorm) or name in measurements.instrumented.fixed:
            continue
        counts = [call.count for run in passes for call in run.calls.get(name, []) if call.count]
        if counts:
            found[name] = torch.tensor(counts)
    return found
