"""Follow the running statistics of one channel over random batches of digits: how noisy they are, and how slow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from bnlib import reference
from bnlib.experiments.formula.batch_noise import channel_values


def trajectory(batch_size: int, momentum: float, convention: str, steps: int, seed: int = 0) -> np.ndarray:
    """Return the running mean and variance after each of ``steps`` batches, from the usual start (0, 1).

    Batches are drawn without replacement from ``batch_noise.channel_values``. The data do not change, so the running
    statistics change only through the noise of the batches and because the start is forgotten.

    Arguments:
        batch_size: samples per batch.
        momentum: of the running statistics.
        convention: see ``reference.update_running``.
        steps: number of batches.
        seed: of the batches.

    Returns:
        array of shape (``steps`` + 1, 2).
    """
    return _trajectories(batch_size, momentum, convention, steps, [seed])[:, :, 0]


def final_statistics(
    batch_size: int, momentum: float, convention: str, seeds: Sequence[int], steps: int = 400
) -> np.ndarray:
    """Return the last running mean and variance of one run per seed, shape (len(seeds), 2); see ``trajectory``."""
    return _trajectories(batch_size, momentum, convention, steps, seeds)[-1].T


@cache
def variance_ratio(batch_size: int, convention: str, momentum: float = 0.05, runs: int = 100) -> float:
    """Return the running variance after 400 batches over the variance of the data, averaged over ``runs`` seeds."""
    final = final_statistics(batch_size, momentum, convention, seeds=range(runs))
    return float(final[:, 1].mean() / channel_values().var())


def equivalent_sample_size(momentum: float, batch_size: int = 16, runs: int = 300) -> float:
    """Return how many samples a plain mean needs to be as noisy as the running mean after 100 batches.

    Measured as the variance of the data over the variance of the running mean between ``runs`` seeds.
    """
    final = final_statistics(batch_size, momentum, "torch", seeds=range(runs), steps=100)
    return float(channel_values().var() / final[:, 0].var())


def expected_sample_size(momentum: float, batch_size: int = 16) -> float:
    r"""Return the ``equivalent_sample_size`` that theory predicts for independent batches: $b\,(2-\alpha)/\alpha$."""
    return batch_size * (2 - momentum) / momentum


def _trajectories(batch_size: int, momentum: float, convention: str, steps: int, seeds: Sequence[int]) -> np.ndarray:
    """Return the ``trajectory`` of each seed, computed as channels of one layer: shape (steps + 1, 2, len(seeds))."""
    rngs, values = [np.random.default_rng(seed) for seed in seeds], channel_values()
    statistics = np.zeros(len(rngs)), np.ones(len(rngs))
    path = [statistics]
    for _ in range(steps):
        batch = np.stack([rng.choice(values, batch_size, replace=False) for rng in rngs], 1)
        statistics = reference.update_running(*statistics, batch, momentum, convention)
        path.append(statistics)
    return np.array(path)
