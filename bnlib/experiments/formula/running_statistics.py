"""Running statistics of one channel over random batches of digits: how far off, and for how long."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bnlib import reference
from bnlib.experiments.formula.batch_noise import channel


def follow(batch_size: int, momentum: float, convention: str, steps: int, seed: int = 0) -> np.ndarray:
    """Running mean and variance after each of ``steps`` batches, from the usual start (0, 1).

    Batches are drawn without replacement from the channel of ``batch_noise``; the data do not change, so whatever
    moves is noise or memory of the start. ``convention`` is that of ``reference.update_running``.

    Returns:
        array of shape (``steps`` + 1, 2).
    """
    return _paths(batch_size, momentum, convention, steps, [seed])[:, :, 0]


def settled(batch_size: int, momentum: float, convention: str, seeds: Sequence[int], steps: int = 400) -> np.ndarray:
    """The last running mean and variance of one run a seed, shape (len(seeds), 2)."""
    return _paths(batch_size, momentum, convention, steps, seeds)[-1].T


def _paths(batch_size: int, momentum: float, convention: str, steps: int, seeds: Sequence[int]) -> np.ndarray:
    """What ``follow`` returns for each seed, as channels of one layer: shape (steps + 1, 2, len(seeds))."""
    rngs, values = [np.random.default_rng(seed) for seed in seeds], channel()
    statistics = np.zeros(len(rngs)), np.ones(len(rngs))
    path = [statistics]
    for _ in range(steps):
        batch = np.stack([rng.choice(values, batch_size, replace=False) for rng in rngs], 1)
        statistics = reference.update_running(*statistics, batch, momentum, convention)
        path.append(statistics)
    return np.array(path)
