"""Compare a unit's inputs on each worker before and after normalisation with the worker's own statistics."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from bnlib.experiments.machines.label_skew import SKEWS, WORKERS, digits, network
from bnlib.samplers import shards

__all__ = [
    "SKEWS",
    "WORKERS",
    "LocalStatistics",
    "between_worker_share",
    "between_worker_share_rows",
    "lookup",
    "units",
]


class LocalStatistics(NamedTuple):
    """A unit's values on each worker, and the between-worker variance of its layer.

    Attributes:
        global_norm, local_norm: the unit's values, (workers, samples per worker), normalised with the statistics of
            all samples and with each worker's own.
        share: share of the unit's variance that lies between workers.
        shares: the same for all units of the layer, (100,).
        predicted: ``shares`` predicted as skew squared times their value at skew 1.
    """

    global_norm: Tensor
    local_norm: Tensor
    share: float
    shares: Tensor
    predicted: Tensor


@cache
def units() -> Tensor:
    """Return the inputs of the first activation of an untrained network, (samples, 100)."""
    with torch.no_grad():
        return network(None, seed=0)[1](digits().train_x.flatten(1))


def between_worker_share(values: Tensor) -> Tensor:
    """Return the share of the variance that lies between workers, for values (workers, samples, units)."""
    between = values.mean(1).var(0, correction=0)
    return between / (between + values.var(1, correction=0).mean(0))


@cache
def _shards_of_units(workers: int, skew: float) -> Tensor:
    return units()[torch.stack(shards(digits().train_y, workers, skew, torch.Generator().manual_seed(0)))]


@cache
def _most_affected_unit() -> int:
    """Return the unit with the largest between-worker share for ten workers with one label each."""
    return int(between_worker_share(_shards_of_units(10, 1.0)).argmax())


def lookup(workers: int, skew: float) -> LocalStatistics:
    """Distribute the digits with seed 0 and return the statistics of the most affected unit."""
    values, unit = _shards_of_units(workers, skew), _most_affected_unit()
    chosen, shares = values[..., unit], between_worker_share(values)
    global_norm = (chosen - chosen.mean()) / chosen.std(correction=0)
    local_norm = (chosen - chosen.mean(1, keepdim=True)) / chosen.std(1, correction=0, keepdim=True)
    return LocalStatistics(
        global_norm,
        local_norm,
        shares[unit].item(),
        shares,
        skew**2 * between_worker_share(_shards_of_units(workers, 1.0)),
    )


def between_worker_share_rows() -> list[dict]:
    """Return the share (%) of the variance that lies between workers, mean over units, measured and predicted."""
    rows = []
    for skew in SKEWS:
        row: dict = {"skew": f"{skew:g}"}
        for workers in WORKERS:
            found = lookup(workers, skew)
            row[f"{workers} workers", "measured"] = 100 * found.shares.mean().item()
            row[f"{workers} workers", "predicted"] = 100 * found.predicted.mean().item()
        rows.append(row)
    return rows
