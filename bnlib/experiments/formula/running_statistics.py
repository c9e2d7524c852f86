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


def variance_ratio(batch_size: int, convention: str, momentum: float = 0.05, runs: int = 100) -> float:
    """Return the running variance after 400 batches over the variance of the data, averaged over ``runs`` seeds."""
    ends = settled(batch_size, momentum, convention, seeds=range(runs))
    return float(ends[:, 1].mean() / channel().var())


def variance_ratio_rows(batch_sizes: Sequence[int]) -> list[dict]:
    """Compare ``variance_ratio`` of the unbiased convention (PyTorch) and the biased one (Algorithm 1) with theory."""
    return [
        {
            "batch size N": size,
            "unbiased": variance_ratio(size, "torch"),
            "biased": variance_ratio(size, "algorithm1"),
            "(N − 1) / N": (size - 1) / size,
        }
        for size in batch_sizes
    ]


def equivalent_sample_size(momentum: float, batch_size: int = 16, runs: int = 300) -> float:
    """Return how many samples a plain mean needs to be as noisy as the running mean after 100 batches.

    Measured as the variance of the data over the variance of the running mean between ``runs`` seeds.
    """
    ends = settled(batch_size, momentum, "torch", seeds=range(runs), steps=100)
    return float(channel().var() / ends[:, 0].var())


def expected_sample_size(momentum: float, batch_size: int = 16) -> float:
    r"""Return what ``equivalent_sample_size`` is for independent batches: $b\,(2-\alpha)/\alpha$."""
    return batch_size * (2 - momentum) / momentum


def equivalent_sample_size_rows(momenta: Sequence[float], batch_size: int = 16) -> list[dict]:
    """Compare ``equivalent_sample_size`` with ``expected_sample_size`` for each momentum."""
    return [
        {
            "momentum": f"{momentum:g}",
            "measured": equivalent_sample_size(momentum, batch_size),
            "expected": expected_sample_size(momentum, batch_size),
        }
        for momentum in momenta
    ]


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
