"""Checks of single layers: their parameters, buffers, data types and momentum."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnlib.doctor.measurements import Measurements
from bnlib.doctor.norm_layers import CORRECTED_IN_TRAIN_MODE, NORM_TYPES, newest_weight
from bnlib.doctor.report import Finding, make_finding
from bnlib.doctor.running_averages import has_initial_values, mean_distance_to_data
from bnlib.norm import FullNorm


def half_precision_statistics(measurements: Measurements) -> Iterator[Finding]:
    """Find running statistics in float16 or bfloat16, which lose small updates."""
    for name, layer in measurements.norm_layers.items():
        if layer.running_var is None or layer.running_var.dtype.itemsize >= 4:
            continue
        dtype = torch.finfo(layer.running_var.dtype)
        text = (
            f"The running statistics are {dtype.dtype}, so an update that changes a value by less than about "
            f"{dtype.eps / 2:.1g} of its size is lost, and they stop short of the statistics of the data. The smaller "
            f"the momentum, the earlier they stop. The largest number of this type is {dtype.max:.3g}."
        )
        yield make_finding("half-precision-statistics", name, "warning", text)


def unusual_momentum(measurements: Measurements) -> Iterator[Finding]:
    """Find a momentum of 0, or one so large that the running statistics average only the last few batches.

    An average with weight a of the newest batch is as noisy as the mean of (2 - a) / a batches: 19 for PyTorch's
    default of 0.1, 3 for 0.5, and 1.02 for Keras's 0.99. Below 3, the statistics of eval mode are almost as noisy as
    those of train mode.
    """
    for name, layer in measurements.norm_layers.items():
        momentum = newest_weight(layer)
        # The momentum of a class of the user's may be the weight of the old value.
        usual = not isinstance(momentum, Real) or 0 < momentum < 0.5 or not isinstance(layer, NORM_TYPES)
        if isinstance(layer, FullNorm) or layer.running_mean is None or usual:
            continue
        # Statistics that were set once may stay as they are, if no training follows.
        kept = not measurements.will_be_trained and not has_initial_values(layer)
        if momentum == 0 and (measurements.inference or kept or name in measurements.instrumented.fixed):
            continue
        if momentum == 0:
            text = "With momentum 0 the running statistics never change."
        else:
            batches = (2 - momentum) / momentum
            count = f"{batches:.2g} batch{'es' * (batches > 1.05)}"
            text = f"With momentum {momentum:g} the running statistics are as noisy as a mean of {count}."
            if momentum < 1:
                text += (
                    f" In Keras, TensorFlow and Flax, {momentum:g} is the weight of the old value, which is a momentum "
                    f"of {1 - momentum:.3g} in PyTorch."
                )
        yield make_finding("unusual-momentum", name, "note" if measurements.inference else "warning", text)


def statistics_not_tracked(measurements: Measurements) -> Iterator[Finding]:
    """Find layers with ``track_running_stats = False`` that have running statistics: eval mode uses old ones.

    That is so if the attribute is set after the layer was made, for example to keep adversarial inputs out of the
    statistics, and not set back.
    """
    off = [
        name
        for name, layer in measurements.norm_layers.items()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None and not layer.track_running_stats
    ]
    worse = bool(off) and measurements.has_loss and measurements.eval_worse_than_recomputed
    if not off or not (worse or measurements.will_be_trained):
        return
    text = (
        "track_running_stats is False, but the layer has running statistics. So train mode does not update them, and "
        "eval mode uses the old ones."
    )
    if worse:
        text += (
            f" In eval mode, the loss is {measurements.eval_score}, and {measurements.eval_recomputed_score} with "
            "statistics recomputed from these batches."
        )
    for name in off:
        yield make_finding("statistics-not-tracked", name, "error" if worse else "warning", text)


def frozen_layer_updates_statistics(measurements: Measurements) -> Iterator[Finding]:
    """Find frozen layers in train mode: their parameters stay the same, but their running statistics change."""
    if not measurements.will_be_trained:
        return
    instrumented = measurements.instrumented
    for name, layer in measurements.norm_layers.items():
        below = measurements.passes_by_batch[0].module_below.get(name)
        own, fed = list(layer.parameters()), [] if below is None else list(below.parameters(recurse=False))
        if not instrumented.in_train_mode[name] or layer.running_mean is None or not (own or fed):
            continue
        if _updates(measurements, name, layer) and not any(value in instrumented.trainable for value in (*own, *fed)):
            whose = "this layer and of the layer below it" if fed else "this layer"
            text = (
                f"The parameters of {whose} have requires_grad=False, but the layer is in train mode, so each batch "
                f"changes its running statistics. Their means are now {mean_distance_to_data(measurements, name):.2g} "
                "standard deviations from those of the data (median over channels)."
            )
            yield make_finding("frozen-layer-updates-statistics", name, "warning", text)


def _updates(measurements: Measurements, name: str, layer: nn.Module) -> bool:
    """Return whether the running statistics of a layer change in train mode."""
    if isinstance(layer, (nn.SyncBatchNorm, *CORRECTED_IN_TRAIN_MODE)):
        # Their statistics were not measured: the passes use those of this process, or another formula.
        tracks = getattr(layer, "track_running_stats", True)
        return tracks and newest_weight(layer) != 0 and name in measurements.statistics
    return name in measurements.statistics and name in measurements.instrumented.updating
