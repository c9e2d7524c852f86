"""The statistics of a norm layer's inputs, of one call and of many calls together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib.doctor.norm_layers import eps, has_known_forward
from bnlib.norm import FullNorm
from bnlib.probes.tensors import at_least_float32

MISMATCH = 1.0
"""From this ``Distance.value`` on, statistics do not match: the means are one standard deviation apart, or one standard
deviation is twice the other."""


@dataclass(frozen=True, eq=False)
class CallStatistics:
    """The statistics of a norm layer's input in one call, for each of C channels.

    Attributes:
        count: number of values per channel.
        mean: shape (C,).
        variance: the biased variance, shape (C,).
        sample_means: the mean over the values of each sample, shape (samples, C); None where it is unknown which
            values belong to which sample.
        shape: the shape of the input.
    """

    count: int
    mean: Tensor
    variance: Tensor
    sample_means: Tensor | None
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class PooledStatistics:
    """The statistics of a norm layer's inputs in several calls, for each of C channels.

    Attributes:
        count: number of values per channel.
        mean: shape (C,).
        within_batch_variance: the average unbiased variance within a batch, shape (C,). The running variance of BN
            estimates it. nan where each batch has one value per channel.
        total_variance: the variance of all values, including that between batches, shape (C,).
    """

    count: int
    mean: Tensor
    within_batch_variance: Tensor
    total_variance: Tensor


def call_statistics(layer: nn.Module, input: Tensor, batch_size: int) -> CallStatistics | None:
    """Compute the statistics of a layer's input; None if no dimension of it fits the layer's channels.

    Arguments:
        layer: the norm layer. A class of the user's may have its channels last.
        input: shape (N, C, *).
        batch_size: number of samples in the model's input; 0 if unknown. N may be a multiple of it, if a layer takes
            the time steps of a sample as samples of their own.
    """
    input = _with_channels_second(layer, input.dequantize() if input.is_quantized else input)
    if input is None:
        return None
    values = at_least_float32(input)
    count = input.numel() // max(1, input.size(1))
    if input.numel() == 0:
        nothing = values.new_full((input.size(1),), float("nan"))
        return CallStatistics(0, nothing, nothing, None, tuple(input.shape))
    mean, variance = _mean_and_variance(values, count)
    return CallStatistics(count, mean, variance, sample_means(values, batch_size), tuple(input.shape))


def _mean_and_variance(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the mean and the biased variance of each channel, shape (C,) each."""
    if values.dim() < 3 or count < 2:
        variance, mean = torch.var_mean(values, all_but_channels(values), correction=0)
        return mean, variance
    # On images, the kernel of batch norm takes a quarter of the time of torch.var_mean.
    mean, variance = values.new_zeros(values.size(1)), values.new_ones(values.size(1))
    F.batch_norm(values, mean, variance, training=True, momentum=1.0)
    return mean, variance * ((count - 1) / count)


def sample_means(values: Tensor, batch_size: int) -> Tensor | None:
    """Return the mean of each sample's values, shape (samples, C); None if it is unknown which values are a sample's.

    Arguments:
        values: shape (N, C, *).
        batch_size: see ``call_statistics``.
    """
    if not batch_size or len(values) % batch_size:
        return None
    # The time steps of one sample are next to each other.
    means = values.flatten(2).mean(2) if values.dim() > 2 else values
    return means.unflatten(0, (batch_size, -1)).mean(1).cpu().double()


def _with_channels_second(layer: nn.Module, input: Tensor) -> Tensor | None:
    input = input.detach()
    if has_known_forward(layer):
        return input
    if input.dim() < 2 or not input.is_floating_point() or layer.running_mean is None:
        return input if input.dim() > 1 and input.is_floating_point() else None
    channels = layer.running_mean.numel()
    if input.size(1) == channels:
        return input
    return input.movedim(-1, 1) if input.size(-1) == channels else None


def pool_statistics(calls: Sequence[CallStatistics]) -> PooledStatistics | None:
    """Combine the statistics of several calls; return None if the calls had no values."""
    calls = [call for call in calls if call.count]
    if not calls:
        return None
    counts = torch.tensor([float(call.count) for call in calls], dtype=torch.double)[:, None]
    means = torch.stack([call.mean for call in calls]).cpu().double()
    variances = torch.stack([call.variance for call in calls]).cpu().double()
    mean = (counts * means).sum(0) / counts.sum()
    # 0/0 where each call has a single value per channel.
    within = (counts * variances).sum(0) / (counts - 1).sum()
    total = (counts * (variances + (means - mean).square())).sum(0) / counts.sum()
    return PooledStatistics(int(counts.sum()), mean, within, total)


def running_variance_target(statistics: PooledStatistics, layer: nn.Module) -> Tensor:
    """Return the variance that the running variance of this layer estimates, shape (C,)."""
    uses_total = isinstance(layer, FullNorm) or bool(statistics.within_batch_variance.isnan().any())
    return statistics.total_variance if uses_total else statistics.within_batch_variance


@dataclass(frozen=True)
class Distance:
    """How far two sets of means and variances are apart; its text names the unit of each number.

    Attributes:
        value: the median over channels of the larger of two numbers: the difference of the means in standard
            deviations, and the absolute binary logarithm of the ratio of the standard deviations.
        means: the difference of the means in standard deviations, the median over channels.
        factor: the larger standard deviation divided by the smaller one, the median over channels.
    """

    value: float
    means: float
    factor: float

    def __str__(self) -> str:
        return (
            f"the means are {self.means:.2g} standard deviations apart, and the standard deviations differ by a factor "
            f"of {self.factor:.3g} (medians over channels)"
        )


def distance(layer: nn.Module, mean: Tensor, variance: Tensor, data: PooledStatistics) -> Distance:
    """Return how far a mean and a variance are from those of the data.

    Both the standard deviations and their ratio include the layer's eps.

    Arguments:
        layer: the norm layer.
        mean, variance: shape (C,).
        data: the statistics to compare with; their standard deviation is the unit for the means.
    """
    target = running_variance_target(data, layer) + eps(layer)
    means = (mean - data.mean).abs() / (data.total_variance + eps(layer)).sqrt()
    doublings = ((variance + eps(layer)) / target).log().abs() / math.log(4)
    value, apart, doubled = (float(each.nanmedian()) for each in (torch.maximum(means, doublings), means, doublings))
    return Distance(value, apart, 2**doubled)


def all_but_channels(input: Tensor) -> list[int]:
    """Return all dimensions but dimension 1, over which the statistics of a channel are taken."""
    return [dim for dim in range(input.dim()) if dim != 1]
