"""Copies of the buffers of all norm layers at one moment, and the statistics of a batch from two of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bnlib.doctor.layer_modes import stores_its_statistics
from bnlib.doctor.norm_layers import gamma, newest_weight


@dataclass(frozen=True, eq=False)
class LayerState:
    """What a norm layer holds at one moment: float64 arrays of shape (C,), or None if the layer has none.

    Attributes:
        mean, variance: the running statistics.
        gamma: the parameter gamma.
        batches: the number of batches in the running statistics; None if the layer does not count them.
        is_finite: whether all running statistics are finite.
    """

    mean: np.ndarray | None
    variance: np.ndarray | None
    gamma: np.ndarray | None
    batches: int | None
    is_finite: bool

    def non_finite_channels(self) -> dict[str, int]:
        """Return the number of channels that are nan or infinite, by the name of the buffer; without zeros."""
        named = {"running_mean": self.mean, "running_var": self.variance}
        counts = {key: int((~np.isfinite(value)).sum()) for key, value in named.items() if value is not None}
        return {key: count for key, count in counts.items() if count}


@dataclass(frozen=True, eq=False)
class BatchStatistics:
    """The statistics of a layer's input in one call or in several, for each of C channels.

    Attributes:
        count: number of values per channel; None if unknown.
        mean: shape (C,).
        variance: the variance that the running variance estimates, shape (C,).
    """

    count: int | None
    mean: np.ndarray
    variance: np.ndarray


class Snapshot:
    """Copies of the buffers of norm layers, on the layers' devices: taking one does not wait for a device.

    Arguments:
        layers: the norm layers by name.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        self._places: dict[str, tuple] = {}
        values: dict[torch.device, list[Tensor]] = {}
        counts: dict[torch.device, list[Tensor]] = {}
        ends: dict[torch.device, int] = {}
        for name, layer in layers.items():
            slices = []
            for value in (layer.running_mean, layer.running_var, gamma(layer)):
                if value is None:
                    slices.append(None)
                    continue
                device, begin = value.device, ends.get(value.device, 0)
                ends[device] = begin + value.numel()
                slices.append((device, slice(begin, ends[device])))
                values.setdefault(device, []).append(value.flatten())
            count = getattr(layer, "num_batches_tracked", None)
            place = None
            if isinstance(count, Tensor):
                group = counts.setdefault(count.device, [])
                place = count.device, len(group)
                group.append(count)
            self._places[name] = *slices, place
        with torch.no_grad():
            self._values = {device: torch.cat(found) for device, found in values.items()}
            self._counts = {device: torch.stack(found) for device, found in counts.items()}

    @np.errstate(invalid="ignore", over="ignore")
    def states(self) -> dict[str, LayerState]:
        """Return the state of each layer by name; this waits for the devices."""
        values = {device: each.cpu().double().numpy() for device, each in self._values.items()}
        counts = {device: each.tolist() for device, each in self._counts.items()}
        # The sum of all values tells in one operation that nothing is nan or infinite.
        finite = all(math.isfinite(each.sum()) for each in values.values())
        found = {}
        for name, (*slices, place) in self._places.items():
            mean, variance, gammas = (None if each is None else values[each[0]][each[1]] for each in slices)
            known = finite or mean is None or math.isfinite(mean.sum() + variance.sum())
            found[name] = LayerState(mean, variance, gammas, place and int(counts[place[0]][place[1]]), known)
        return found


def reveals_its_batch(layer: nn.Module, input: Tensor | None) -> bool:
    """Return whether two states of a layer, before and after a pass, tell the statistics of the batch.

    Arguments:
        layer: the norm layer.
        input: its input in the pass; None if unknown, as in a compiled model.
    """
    if not layer.training or layer.running_mean is None:
        return False
    # Any input of more than one sample stands for an unknown one.
    if not stores_its_statistics(layer, layer.running_mean.new_empty(2, 1) if input is None else input):
        return False
    return layer.momentum != 0 and layer.num_batches_tracked is not None


def batch_between(layer: nn.Module, before: LayerState, after: LayerState, count: int | None) -> BatchStatistics | None:
    """Compute the statistics of the batch that brought a layer from one state to the next.

    BN moves its running statistics by r' = (1 - m) r + m s, so that s = (r' - (1 - m) r) / m. The rounding error of s
    is that of r divided by the momentum m, about 1e-6 of its size.

    Arguments:
        layer: a layer that ``reveals_its_batch``.
        before, after: its states.
        count: number of values per channel; None if unknown.

    Returns:
        The statistics; None if the layer has not seen exactly one batch between the two states.
    """
    if before.batches is None or after.batches != before.batches + 1:
        return None
    weight = newest_weight(layer)
    weight = 1 / after.batches if weight is None else float(weight)
    mean = (after.mean - (1 - weight) * before.mean) / weight
    variance = (after.variance - (1 - weight) * before.variance) / weight
    return BatchStatistics(count, mean, np.maximum(variance, 0))


def smallest_variance(layer: nn.Module, state: LayerState) -> np.ndarray:
    """Return the variance that ``batch_between`` cannot tell from 0, shape (C,)."""
    return np.abs(state.variance) * _rounding(layer, state)


def means_are_blurred(layer: nn.Module, state: LayerState, variance: np.ndarray) -> bool:
    """Return whether the means of ``batch_between`` are off by a tenth of the standard deviation, in any channel.

    That is so where the mean of a channel is many thousand times its standard deviation.
    """
    error = np.abs(state.mean) * _rounding(layer, state)
    return bool((np.square(error) > 0.01 * variance).any())


def _rounding(layer: nn.Module, state: LayerState) -> float:
    """Return the relative rounding error of ``batch_between``."""
    weight = newest_weight(layer)
    weight = 1 / max(1, state.batches or 1) if not isinstance(weight, float) or not weight else weight
    return 4 * float(np.finfo(np.float32).eps) / weight


def pool(batches: list[BatchStatistics]) -> BatchStatistics | None:
    """Combine the statistics of batches of the same size; return None if there are none."""
    if len(batches) < 2:
        return batches[0] if batches else None
    counts = [each.count for each in batches]
    mean = sum(each.mean for each in batches) / len(batches)
    variance = sum(each.variance for each in batches) / len(batches)
    return BatchStatistics(None if None in counts else sum(counts), mean, variance)
