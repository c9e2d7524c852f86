"""How far running statistics are from the statistics of the data, and how much they have averaged so far."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn

from bnlib.doctor.layer_statistics import MISMATCH, Distance, PooledStatistics, distance, running_variance_target
from bnlib.doctor.measurements import Measurements
from bnlib.doctor.norm_layers import batches_tracked, eps, newest_weight, running_statistics


def distance_to_data(measurements: Measurements, name: str, initial_share: float = 0.0) -> Distance:
    """Return the distance of a layer's running statistics from those of the data.

    The layers below normalise by the batch or, if that is too far, by their running statistics.

    Arguments:
        measurements: of the model.
        name: name of the layer.
        initial_share: the weight of the initial values, mean 0 and variance 1, which is taken out first.
    """
    layer = measurements.norm_layers[name]
    mean, variance = without_initial_values(layer, initial_share)
    by_batch = distance(layer, mean, variance, measurements.statistics[name])
    if by_batch.value <= MISMATCH or name not in measurements.statistics_in_eval:
        return by_batch
    in_eval = distance(layer, mean, variance, measurements.statistics_in_eval[name])
    return min(by_batch, in_eval, key=lambda each: each.value)


def without_initial_values(layer: nn.Module, share: float) -> tuple[Tensor, Tensor]:
    """Return the running mean and variance without the share of the initial values, mean 0 and variance 1."""
    mean, variance = running_statistics(layer)
    return mean / (1 - share), ((variance - share) / (1 - share)).clamp(min=0)


def largest_distance(layer: nn.Module, parts: Sequence[PooledStatistics]) -> Distance:
    """Return the largest distance between any two of several statistics."""
    pairs = itertools.permutations(parts, 2)
    distances = [distance(layer, one.mean, running_variance_target(one, layer), other) for one, other in pairs]
    return max(distances, key=lambda each: each.value, default=Distance(0.0, 0.0, 1.0))


def mean_distance_to_data(measurements: Measurements, name: str) -> float:
    """Return how far the running means are from the data's, in standard deviations; the median over channels."""
    layer, data = measurements.norm_layers[name], measurements.statistics[name]
    gaps = (running_statistics(layer)[0] - data.mean).abs() / (data.total_variance + eps(layer)).sqrt()
    return float(gaps.nanmedian())


def layers_with_running_statistics_in_use(measurements: Measurements) -> list[str]:
    """Return the names of the called layers with running statistics that training does not use as fixed values."""
    layers, fixed = measurements.norm_layers, measurements.instrumented.fixed
    statistics = measurements.statistics  # the passes for them find layers that training uses as fixed
    return [name for name in statistics if layers[name].running_mean is not None and name not in fixed]


def has_initial_values(layer: nn.Module) -> bool:
    """Return whether the running statistics are still mean 0 and variance 1."""
    found = running_statistics(layer)
    return found is not None and bool((found[0] == 0).all() and (found[1] == 1).all())


def is_untrained(measurements: Measurements) -> bool:
    """Return whether a model was not trained: no layer has seen a batch, and no loss tells of a training."""
    layers = [measurements.norm_layers[name] for name in measurements.statistics]
    if not all(
        has_initial_values(layer) and batches_tracked(layer) == 0 for layer in layers if layer.running_mean is not None
    ):
        return False
    train = measurements.train_score
    return train is None or not float(train.losses.mean()) < 0.9 * measurements.constant_output_loss


def initial_weight(layer: nn.Module) -> float:
    """Return the weight, from 0 to 1, that the initial values still have in the running statistics."""
    count, rate = batches_tracked(layer), newest_weight(layer)
    if rate is None or not count:
        return 0.0
    if not callable(rate):
        return (1 - rate) ** count
    # After some thousand batches the weight is 0.
    return math.prod(1 - float(rate(step)) for step in range(count)) if count < 5000 else 0.0


def batches_needed(layer: nn.Module) -> float:
    """Return the number of batches after which the running statistics have forgotten their initial values.

    It is 3 / momentum: the first of these batches then has a twentieth of the weight of the last.
    """
    rate = newest_weight(layer)
    rate = float(rate(batches_tracked(layer) or 0)) if callable(rate) else rate
    return 3 / rate if rate else 0.0


def statistics_are_young(layer: nn.Module) -> bool:
    """Return whether the running statistics average too few batches to have forgotten their initial values."""
    return 0 < (batches_tracked(layer) or 0) < batches_needed(layer)
