"""The numbers that describe one norm layer over a window of training passes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from bnlib.doctor.norm_layers import eps, newest_weight
from bnlib.doctor.running_averages import Distance
from bnlib.monitor.layer_states import BatchStatistics, LayerState, means_are_blurred, pool, smallest_variance
from bnlib.monitor.window import Pass

QUANTITIES: dict[str, str] = {
    "distance": "distance of the running statistics from those of the batch",
    "drift": "change of the running statistics since the last measurement",
    "initial_weight": "weight of the initial values in the running statistics",
    "between_batches": "share of the variance that is between batches",
    "variance_over_eps": "variance of the batch divided by eps",
    "below_eps": "share of channels with a variance below eps",
    "dead": "share of channels without any variance",
    "gamma": "absolute value of gamma",
    "small_gamma": "share of channels with |gamma| below 0.01",
    "updates": "updates of the running statistics per step",
    "calls": "calls per step, repeated ones included",
    "values_per_channel": "values per channel in a batch",
    "train_mode": "1 in train mode, 0 in eval mode",
    "non_finite": "channels with nan or infinite running statistics",
}
"""What the monitor measures of each layer, by the name in the log. Numbers over channels are medians."""

SMALL_GAMMA = 0.01


@dataclass(frozen=True)
class Measured:
    """What a window tells about one layer.

    Attributes:
        passes: what the layer did in each pass.
        values: the numbers by the keys of ``QUANTITIES``; those that are unknown are missing.
        distance: of the running statistics before the window from those of its batches; None if unknown.
        calls_differ: how far the statistics of several calls in one pass are apart; None if there is one.
        batches: all batches of the window together; None if unknown.
        below_resolution: whether a variance is so small, or so small beside the mean, that only the input itself tells
            the statistics of a batch.
    """

    passes: Sequence[Pass]
    values: dict[str, float]
    distance: Distance | None
    calls_differ: Distance | None
    batches: BatchStatistics | None
    below_resolution: bool


def measure(layer: nn.Module, passes: Sequence[Pass], last: Pass | None, earlier: LayerState | None) -> Measured:
    """Compute the numbers of one layer.

    Arguments:
        layer: the norm layer.
        passes: what it did in the window.
        last: the last pass of the window before this one.
        earlier: its state at the end of the window before this one.
    """
    before, after = passes[0].before, passes[-1].after
    batches = pool([call for each in passes for call in each.batches])
    values: dict[str, float] = {"train_mode": float(layer.training)}
    gap, limit = None, eps(layer)
    if before.mean is not None:
        values["initial_weight"] = _initial_weight(layer, after)
        values["non_finite"] = (
            float(max(after.non_finite_channels().values(), default=0)) if not after.is_finite else 0.0
        )
        if earlier is not None and earlier.mean is not None and earlier.mean.shape == after.mean.shape:
            values["drift"] = distance(earlier.mean, earlier.variance, after.mean, after.variance, limit).value
        if batches is not None:
            gap = distance(before.mean, before.variance, batches.mean, batches.variance, limit)
            values["distance"] = gap.value
    unknown = False
    if batches is not None:
        variances, unknown = _variance(layer, passes, batches)
        values |= variances
        follows = last is not None and last.step + 1 == passes[0].step
        share = None if unknown else _between([last, *passes] if follows else passes)
        values |= {} if share is None else {"between_batches": share}
    if after.gamma is not None:
        size = np.abs(after.gamma)
        values |= {"gamma": _median(size), "small_gamma": _share(size < SMALL_GAMMA)}
    return Measured(passes, values | _counts(passes), gap, _calls_differ(passes, limit), batches, unknown)


def distance(
    mean: np.ndarray, variance: np.ndarray, data_mean: np.ndarray, data_variance: np.ndarray, eps: float
) -> Distance:
    """Return how far a mean and a variance are from those of data, as ``bnlib.doctor.running_averages.distance`` does.

    NumPy takes a tenth of the time of tensors for the few numbers of a layer.
    """
    means = np.abs(mean - data_mean) / np.sqrt(data_variance + eps)
    doublings = np.abs(np.log((variance + eps) / (data_variance + eps))) / math.log(4)
    return Distance(_median(np.maximum(means, doublings)), _median(means), 2 ** _median(doublings))


def _calls_differ(passes: Sequence[Pass], eps: float) -> Distance | None:
    """Return how far the two most different calls in a pass are apart; None if there is one call."""
    number = max(len(each.batches) for each in passes)
    if number < 2:
        return None
    parts = [pool([each.batches[k] for each in passes if len(each.batches) > k]) for k in range(number)]
    pairs = ((one, other) for one in parts for other in parts if one is not other)
    found = (distance(one.mean, one.variance, other.mean, other.variance, eps) for one, other in pairs)
    return max(found, key=lambda each: each.value)


def _counts(passes: Sequence[Pass]) -> dict[str, float]:
    updates = [each.updates for each in passes if each.updates is not None]
    calls = [each.calls for each in passes if each.calls is not None]
    values = {"updates": sum(updates) / len(updates)} if updates else {}
    if calls:
        values["calls"] = sum(len(each.counts) + each.repeated for each in calls) / len(calls)
    counts = [count for each in calls for count in each.counts]
    return values | ({"values_per_channel": float(min(counts))} if counts else {})


def samples(passes: Sequence[Pass]) -> int | None:
    """Return the smallest number of samples in a batch; None if it is unknown."""
    return min((each.calls.samples for each in passes if each.calls and each.calls.samples), default=None)


def _variance(layer: nn.Module, passes: Sequence[Pass], batches: BatchStatistics) -> tuple[dict[str, float], bool]:
    """Return the numbers about the variance, and whether the statistics are below what can be known."""
    variance, limit, state = batches.variance, eps(layer), passes[0].before
    by_input = any(each.calls is not None and each.calls.statistics for each in passes)
    known = by_input or state.variance is None
    smallest = 0.0 if known else smallest_variance(layer, state)
    zero = variance <= smallest
    unknown = bool((zero & (smallest > 0.01 * limit)).any())
    blurred = not known and means_are_blurred(layer, passes[-1].after, np.maximum(variance, 1e-6 * limit))
    values = {
        "variance_over_eps": _median(variance) / limit if limit else math.inf,
        "below_eps": _share(variance < limit),
    }
    return (values if unknown else values | {"dead": _share(zero)}), unknown or blurred


def _between(passes: Sequence[Pass]) -> float | None:
    """Return the share of the variance that is between the batches of two consecutive passes, above chance.

    The share is that of ``bnlib.diagnose``, estimated from pairs of batches: the mean over channels of the squared
    difference of the means, divided by two, as a share of the whole variance. Random batches of n samples have 1/n.
    """
    shares = []
    for one, other in itertools.pairwise(passes):
        size = samples([one, other])
        if len(one.batches) != 1 or len(other.batches) != 1 or not size:
            continue
        shares.append(_share_between(one.batches[0], other.batches[0]) - 1 / size)
    return max(0.0, sum(shares) / len(shares)) if shares else None


def _share_between(one: BatchStatistics, other: BatchStatistics) -> float:
    between = np.square(one.mean - other.mean) / 2
    whole = between + (one.variance + other.variance) / 2
    # A channel without any variance has no share.
    return float(np.sum(between / np.maximum(whole, 1e-300)) / max(1, np.count_nonzero(whole)))


def _share(chosen: np.ndarray) -> float:
    """Return the share of the values that are true."""
    return float(np.count_nonzero(chosen)) / len(chosen)


def _initial_weight(layer: nn.Module, state: LayerState) -> float:
    weight = newest_weight(layer)
    if not state.batches:
        return 1.0 if state.batches == 0 else 0.0
    if not isinstance(weight, float):
        return 0.0  # momentum=None replaces the initial values at once; a schedule begins with a weight of 1
    return (1 - weight) ** state.batches


def _median(values: np.ndarray) -> float:
    """Return the lower median, as ``torch.median``; ``np.median`` takes ten times as long."""
    return float(np.sort(values)[(len(values) - 1) // 2])
