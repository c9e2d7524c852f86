"""Running statistics of one channel over random batches of digits: how far off, and for how long."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bnlib import reference
from bnlib.experiments.batch_noise import channel


def follow(batch_size: int, momentum: float, convention: str, steps: int, seed: int = 0) -> np.ndarray:
    """Running mean and variance after each of ``steps`` batches, from the usual start (0, 1).

    Batches are drawn without replacement from the channel of ``batch_noise``; the data do not change, so whatever
    moves is noise or memory of the start. ``convention`` is that of ``reference.update_running``.

    Returns:
        array of shape (``steps`` + 1, 2).
    """
    rng, values = np.random.default_rng(seed), channel()
    mean, variance = np.zeros(1), np.ones(1)
    path = [(0.0, 1.0)]
    for _ in range(steps):
        batch = rng.choice(values, batch_size, replace=False)[:, None]
        mean, variance = reference.update_running(mean, variance, batch, momentum, convention)
        path.append((mean[0], variance[0]))
    return np.array(path)


def settled(batch_size: int, momentum: float, convention: str, seeds: Sequence[int], steps: int = 400) -> np.ndarray:
    """The last running mean and variance of one run a seed, shape (len(seeds), 2)."""
    return np.array([follow(batch_size, momentum, convention, steps, seed)[-1] for seed in seeds])
