"""What eps does to features of digits that hardly vary: the 64 pixels as BN channels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
from torch import nn

from bnlib import BatchNorm, datasets
from bnlib.models import mlp
from bnlib.training import error_rate, fit

EPSILONS = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


@cache
def pixel_variances() -> np.ndarray:
    """Biased variance of each of the 64 pixels (0 to 1 each) over the training pictures, shape (64,)."""
    return datasets.load("digits").train_x.flatten(1).double().numpy().var(0)


@dataclass(frozen=True)
class Gain:
    """The effect of one eps on the 64 pixels.

    Attributes:
        variances: of the inputs, shape (64,).
        gains: what each pixel's deviation from its mean is multiplied by, shape (64,).
        output_variances: of the normalised pixels, shape (64,); 1 is what the name "normalised" promises.
    """

    variances: np.ndarray
    gains: np.ndarray
    output_variances: np.ndarray


def lookup(eps: float) -> Gain:
    r"""Gain $1/\sqrt{v+\epsilon}$ and output variance $v/(v+\epsilon)$ of each pixel."""
    v = pixel_variances()
    return Gain(v, 1 / np.sqrt(v + eps), v / (v + eps))


def dead_pixel(levels: Sequence[float], eps: float | None, seed: int) -> list[float]:
    """Test error after one pixel, black in every training picture, is set to each of ``levels`` (0 to 1).

    The network of chapter 1 is trained on unchanged pictures with a BN layer of this ``eps`` on the pixels, before its
    first linear layer; with None there is no such layer. Batch size 32, learning rate 0.1, ten epochs.
    """
    data = datasets.load("digits")
    front = [] if eps is None else [nn.Flatten(), BatchNorm(64, eps=eps)]
    model = nn.Sequential(*front, *mlp((64, 100, 100, 10), BatchNorm, seed=seed))
    fit(model, data, batch_size=32, lr=0.1, epochs=10, seed=seed, progress=False)
    errors = []
    for level in levels:
        changed = data.test_x.clone()
        changed[..., 0, 0] = level
        errors.append(error_rate(model, changed, data.test_y))
    return errors


NETWORKS = {"BN on the pixels": 1e-5, "BN on the pixels, epsilon 0.01": 1e-2, "no BN on the pixels": None}
"""The eps of the BN layer on the pixels, by the network's name in tables."""


def dead_pixel_errors(levels: Sequence[float], seeds: Iterable[int]) -> dict[str, np.ndarray]:
    """Return the test errors of ``dead_pixel`` for each of ``NETWORKS``, each array of shape (seeds, levels)."""
    seeds = list(seeds)
    return {name: np.array([dead_pixel(levels, eps, seed) for seed in seeds]) for name, eps in NETWORKS.items()}


def dead_pixel_rows(errors: dict[str, np.ndarray], levels: Sequence[float]) -> list[dict]:
    """Write what ``dead_pixel_errors`` returned as rows of percentages, a column per brightness of the pixel."""
    return [
        {"network": name}
        | {
            ("brightness of the corner pixel", str(Fraction(level))): 100 * column
            for level, column in zip(levels, values.T, strict=True)
        }
        for name, values in errors.items()
    ]
