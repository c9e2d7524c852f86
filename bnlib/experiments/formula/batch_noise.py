"""One picture in many random batches: how noisy batch statistics are, and what they do to one output.

The channel is one unit of an untrained first layer on digits: 1437 numbers, one a training picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from bnlib import datasets
from bnlib.models import mlp

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BATCHES = 2000
EPS = 1e-5


@cache
def channel(unit: int = 0, seed: int = 0) -> np.ndarray:
    """The inputs of one BN channel, float64, shape (1437,): unit ``unit`` of the first layer of an ``mlp``."""
    linear = mlp((64, 100, 10), seed=seed)[1]
    with torch.no_grad():
        return linear(datasets.load("digits").train_x.flatten(1)).double().numpy()[:, unit]


@dataclass(frozen=True)
class BatchNoise:
    """What ``BATCHES`` random batches made of one channel and of one picture in it.

    Attributes:
        means: batch means, shape (BATCHES,).
        variances: biased batch variances, shape (BATCHES,).
        outputs: the normalised value of picture 0, which is in every batch, shape (BATCHES,).
        whole: mean and variance of the channel over the data set.
        alone: the normalised value of picture 0 with the statistics of the data set.
    """

    means: np.ndarray
    variances: np.ndarray
    outputs: np.ndarray
    whole: tuple[float, float]
    alone: float


def lookup(batch_size: int, seed: int = 0) -> BatchNoise:
    """Draw batches without replacement and normalise; ``means`` and ``variances`` come from batches at large."""
    values = channel()
    rng = np.random.default_rng(seed)
    batches = _draw(values, BATCHES, batch_size, rng)
    companions = _draw(values[1:], BATCHES, batch_size - 1, rng)
    company = np.column_stack([np.full(BATCHES, values[0]), companions])
    outputs = (values[0] - company.mean(1)) / np.sqrt(company.var(1) + EPS)
    mean, variance = values.mean(), values.var()
    alone = (values[0] - mean) / np.sqrt(variance + EPS)
    return BatchNoise(batches.mean(1), batches.var(1), outputs, (mean, variance), alone)


def expected_std_of_mean(batch_size: int) -> float:
    r"""Standard deviation of a batch mean drawn without replacement: $\sqrt{\frac{v}{b}\frac{n-b}{n-1}}$."""
    values = channel()
    n = len(values)
    return float(np.sqrt(values.var() / batch_size * (n - batch_size) / (n - 1)))


def std_of_mean_rows(batch_sizes: Sequence[int]) -> list[dict]:
    """Compare the measured standard deviation of the batch mean with the expected one, in those of the data."""
    deviation = channel().std()
    return [
        {
            "batch size": size,
            "measured": lookup(size).means.std() / deviation,
            "expected": expected_std_of_mean(size) / deviation,
        }
        for size in batch_sizes
    ]


def _draw(values: np.ndarray, batches: int, size: int, rng: np.random.Generator) -> np.ndarray:
    if size == 0:
        return np.empty((batches, 0))
    order = rng.random((batches, len(values))).argpartition(size - 1, axis=1)[:, :size]
    return values[order]
