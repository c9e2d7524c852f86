"""Normalise the 64 pixels of digits as BN channels: what eps does to pixels that hardly vary or never vary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
from torch import nn

from bnlib import BatchNorm, datasets
from bnlib.models import mlp
from bnlib.training import error_rate, fit

EPSILONS = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
NETWORKS = {"BN on the pixels": 1e-5, "BN on the pixels, epsilon 0.01": 1e-2, "no BN on the pixels": None}
"""The eps of the BN layer on the pixels of each network, None without this layer."""


@cache
def pixel_variances() -> np.ndarray:
    """Return the biased variance of each of the 64 pixels (0 to 1 each) over the training images, shape (64,)."""
    return datasets.load("digits").train_x.flatten(1).double().numpy().var(0)


@dataclass(frozen=True)
class PixelGains:
    """The effect of BN with one eps on the 64 pixels.

    Attributes:
        variances: of the inputs, shape (64,).
        gains: factor between the deviation of a pixel from its mean and its normalised value, shape (64,).
        output_variances: of the normalised pixels, shape (64,); nearly 1 where the variance is far above eps.
    """

    variances: np.ndarray
    gains: np.ndarray
    output_variances: np.ndarray


def pixel_gains(eps: float) -> PixelGains:
    r"""Return the gain $1/\sqrt{v+\epsilon}$ and the output variance $v/(v+\epsilon)$ of each pixel."""
    v = pixel_variances()
    return PixelGains(v, 1 / np.sqrt(v + eps), v / (v + eps))


def errors_by_brightness(brightnesses: Sequence[float], eps: float | None, seed: int) -> list[float]:
    """Return the test errors after one pixel of every test image is set to each of ``brightnesses``.

    The pixel is black (0) in every training image. The network is trained with SGD on unchanged images: batch size 32,
    learning rate 0.1, ten epochs.

    Arguments:
        brightnesses: values of the pixel, from 0 (black) to 1 (white).
        eps: of a BN layer on the pixels, before the first linear layer; None for a network without this layer. Its
            hidden layers have BN in any case.
        seed: of the initial weights and of the batches.
    """
    data = datasets.load("digits")
    pixel_norm = [] if eps is None else [nn.Flatten(), BatchNorm(64, eps=eps)]
    model = nn.Sequential(*pixel_norm, *mlp((64, 100, 100, 10), BatchNorm, seed=seed))
    fit(model, data, batch_size=32, lr=0.1, epochs=10, seed=seed, progress=False)
    errors = []
    for brightness in brightnesses:
        changed = data.test_x.clone()
        changed[..., 0, 0] = brightness
        errors.append(error_rate(model, changed, data.test_y))
    return errors


def errors_by_network(brightnesses: Sequence[float], seeds: Iterable[int]) -> dict[str, np.ndarray]:
    """Return ``errors_by_brightness`` for each of ``NETWORKS``, each array of shape (seeds, brightnesses)."""
    seeds = list(seeds)
    return {
        name: np.array([errors_by_brightness(brightnesses, eps, seed) for seed in seeds])
        for name, eps in NETWORKS.items()
    }


def brightness_rows(errors: Mapping[str, np.ndarray], brightnesses: Sequence[float]) -> list[dict]:
    """Write the result of ``errors_by_network`` as rows for ``tables.Table``: errors in %, a column per brightness."""
    return [
        {"network": name}
        | {
            ("brightness of the corner pixel", str(Fraction(brightness))): 100 * column
            for brightness, column in zip(brightnesses, values.T, strict=True)
        }
        for name, values in errors.items()
    ]
