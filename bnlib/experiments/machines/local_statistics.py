"""What one unit sees on each worker, and what is left of it when each worker normalises with statistics of its own."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from bnlib.experiments.machines.label_skew import SKEWS, WORKERS, digits, network
from bnlib.samplers import shards

__all__ = ["SKEWS", "WORKERS", "View", "lookup", "share", "units"]


class View(NamedTuple):
    """One unit and all of its layer.

    Attributes:
        raw, normalised: of the unit, (workers, samples of a worker); with the statistics of all samples, and each
            worker with its own.
        share: of the unit's variance that lies between the workers.
        shares: of all units of the layer, (100,).
        predicted: ``shares`` as the square of the skew says.
    """

    raw: Tensor
    normalised: Tensor
    share: float
    shares: Tensor
    predicted: Tensor


@cache
def units() -> Tensor:
    """Inputs of the first activation of an untrained network, (samples, 100)."""
    with torch.no_grad():
        return network(None, seed=0)[1](digits().train_x.flatten(1))


def share(values: Tensor) -> Tensor:
    """The part of the variance that lies between the workers, for values (workers, samples, units)."""
    between = values.mean(1).var(0, correction=0)
    return between / (between + values.var(1, correction=0).mean(0))


@cache
def _dealt(workers: int, skew: float) -> Tensor:
    return units()[torch.stack(shards(digits().train_y, workers, skew, torch.Generator().manual_seed(0)))]


@cache
def _unit() -> int:
    """The one of which most lies between the workers where they are ten, with one label each."""
    return int(share(_dealt(10, 1.0)).argmax())


def lookup(workers: int, skew: float) -> View:
    """Deal the digits out with seed 0, and look at the unit."""
    dealt, unit = _dealt(workers, skew), _unit()
    chosen, shares = dealt[..., unit], share(dealt)
    raw = (chosen - chosen.mean()) / chosen.std(correction=0)
    own = (chosen - chosen.mean(1, keepdim=True)) / chosen.std(1, correction=0, keepdim=True)
    return View(raw, own, shares[unit].item(), shares, skew**2 * share(_dealt(workers, 1.0)))
