"""Measure how much batch statistics vary between random batches, and the normalised value of one image with them.

The channel is one unit of the first layer of an untrained network for digits: 1437 numbers, one per training image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from bnlib import datasets
from bnlib.models import mlp

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
NUM_BATCHES = 2000
EPS = 1e-5


@cache
def channel_values(unit: int = 0, seed: int = 0) -> np.ndarray:
    """Return the inputs of one BN channel: the outputs of one unit of an untrained first layer for all images.

    Returns:
        float64 array of shape (1437,).
    """
    linear = mlp((64, 100, 10), seed=seed)[1]
    with torch.no_grad():
        return linear(datasets.load("digits").train_x.flatten(1)).double().numpy()[:, unit]


@dataclass(frozen=True)
class BatchNoise:
    """Statistics of ``NUM_BATCHES`` random batches of one channel, and the normalised values of one image.

    Attributes:
        means: batch means, shape (NUM_BATCHES,).
        variances: biased batch variances, shape (NUM_BATCHES,).
        outputs: the normalised value of image 0, which is in every batch, shape (NUM_BATCHES,).
        data_mean: mean of the channel over the training set.
        data_variance: biased variance of the channel over the training set.
        output_with_data_statistics: the normalised value of image 0 with the mean and variance of the training set.
    """

    means: np.ndarray
    variances: np.ndarray
    outputs: np.ndarray
    data_mean: float
    data_variance: float
    output_with_data_statistics: float


def random_batches(batch_size: int, seed: int = 0) -> BatchNoise:
    """Draw random batches without replacement and normalise with their statistics.

    ``means`` and ``variances`` are those of batches of any images; ``outputs`` come from other batches, which all hold
    image 0.
    """
    values = channel_values()
    rng = np.random.default_rng(seed)
    batches = _draw_batches(values, batch_size, rng)
    other_images = _draw_batches(values[1:], batch_size - 1, rng)
    with_image_0 = np.column_stack([np.full(NUM_BATCHES, values[0]), other_images])
    outputs = (values[0] - with_image_0.mean(1)) / np.sqrt(with_image_0.var(1) + EPS)
    mean, variance = values.mean(), values.var()
    expected = (values[0] - mean) / np.sqrt(variance + EPS)
    return BatchNoise(batches.mean(1), batches.var(1), outputs, mean, variance, expected)


def expected_std_of_mean(batch_size: int) -> float:
    r"""Return the standard deviation of a batch mean drawn without replacement: $\sqrt{\frac{v}{b}\frac{n-b}{n-1}}$."""
    values = channel_values()
    n = len(values)
    return float(np.sqrt(values.var() / batch_size * (n - batch_size) / (n - 1)))


def _draw_batches(values: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw ``NUM_BATCHES`` batches without replacement, shape (NUM_BATCHES, size)."""
    if size == 0:
        return np.empty((NUM_BATCHES, 0))
    order = rng.random((NUM_BATCHES, len(values))).argpartition(size - 1, axis=1)[:, :size]
    return values[order]
