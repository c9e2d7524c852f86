"""Checks of running statistics that no data can have, or that no layer can have to itself."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bnlib.doctor.measurements import Measurements
from bnlib.doctor.norm_layers import batches_tracked, eps, running_statistics
from bnlib.doctor.report import Finding, make_finding
from bnlib.doctor.running_averages import batches_needed, initial_weight, layers_with_running_statistics_in_use
from bnlib.norm import FullNorm


def negative_variance(measurements: Measurements) -> Iterator[Finding]:
    """Find running variances below 0, as differences of weights leave them, or a momentum outside of 0 to 1."""
    for name, layer in measurements.norm_layers.items():
        found = running_statistics(layer)
        if found is None or not bool((found[1] < 0).any()):
            continue
        negative = found[1][found[1] < 0]
        text = (
            f"running_var is below 0 in {len(negative)} of {len(found[1])} channels, and at least "
            f"{float(negative.min()):.3g}. No data have such a variance."
        )
        if isinstance(layer, FullNorm):
            text += f" In its place, FullNorm takes eps = {eps(layer):g}, which multiplies these channels."
        elif undefined := int((negative + eps(layer) < 0).sum()):
            text += f" In eval mode, the output of {undefined} channels is nan, because the root of var + eps is."
        yield make_finding("negative-variance", name, "error", text)


def statistics_of_constant_batches(measurements: Measurements) -> Iterator[Finding]:
    """Find layers all of whose batches were constant, as in a dry run on zeros that builds or profiles a model.

    A batch with variance 0 multiplies the running variance by 1 - momentum, so n of them leave (1 - momentum)^n in each
    channel. Only the first layers show this: after padding, those behind them get more than one value.
    """
    for name in layers_with_running_statistics_in_use(measurements):
        layer, data = measurements.norm_layers[name], measurements.statistics[name]
        count, variance = batches_tracked(layer), running_statistics(layer)[1]
        left = initial_weight(layer)
        varies = bool((data.total_variance > 100 * eps(layer)).double().mean() > 0.5)
        if not count or left > 0.999 or not varies:
            continue
        if not torch.allclose(variance, torch.full_like(variance, left), rtol=1e-4, atol=1e-9):
            continue
        batches = f"All {count} batches that this layer has averaged were" if count > 1 else "The only batch was"
        text = (
            f"{batches} constant in each channel, as in a dry run on zeros: running_var is {left:.3g} in all "
            f"{len(variance)} channels, which is what they leave of the initial 1."
        )
        severity = "error"
        if measurements.will_be_trained:
            needed = batches_needed(layer)
            severity = "note" if needed else "warning"
            text += f" Training forgets them after about {needed:.0f} batches." if needed else _NEVER_FORGOTTEN
        yield make_finding("statistics-of-constant-batches", name, severity, text)
        return


def layers_share_statistics(measurements: Measurements) -> Iterator[Finding]:
    """Find layers whose running statistics are the same memory, as after ``load_state_dict(assign=True)``."""
    owners: dict[tuple, list[str]] = {}
    for name, layer in measurements.norm_layers.items():
        # Without channels, and on the meta device, there is no memory to share.
        if isinstance(layer.running_mean, Tensor) and layer.running_mean.data_ptr():
            owners.setdefault(_place(layer), []).append(name)
    called = measurements.statistics
    for first, *others in owners.values():
        if not others:
            continue
        text = (
            f"The running statistics of this layer and of {', '.join(others)} are the same memory, so a batch of one "
            "layer moves those of the other, too."
        )
        severity = "note"
        if first in called and any(other in called for other in others):
            severity = "warning"
            if measurements.has_loss and measurements.eval_worse_than_recomputed:
                severity = "error"
                text += (
                    f" In eval mode, the loss is {measurements.eval_score}, and {measurements.eval_recomputed_score} "
                    "with statistics recomputed for each layer."
                )
        yield make_finding("layers-share-statistics", first, severity, text)


_NEVER_FORGOTTEN = " With momentum=None, training averages them together with all later batches."


def _place(layer: nn.Module) -> tuple:
    mean = layer.running_mean
    return mean.device, mean.data_ptr(), mean.shape
