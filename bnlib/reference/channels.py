"""The shapes of the inputs: what lies in a channel, and how one number per channel becomes as wide as an input."""

from __future__ import annotations

import numpy as np


def as_input(x) -> np.ndarray:
    """Return ``x`` in float64, shape (N, C, ...).

    Raises:
        ValueError: if ``x`` has fewer than two dimensions.
    """
    x = np.asarray(x, dtype=np.float64)
    if x.ndim < 2:
        raise ValueError(f"x must have shape (N, C) or (N, C, *spatial), got shape {x.shape}")
    return x


def over(x: np.ndarray) -> tuple[int, ...]:
    """Return the dimensions over which the values of a channel lie: all except the second."""
    return (0, *range(2, x.ndim))


def wide(per_channel: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Reshape one number per channel, shape (C,), so that it broadcasts against ``x``."""
    return per_channel.reshape(1, -1, *[1] * (x.ndim - 2))


def affine(weight, bias, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return gamma and beta, shape (C,) each; None stands for 1 and 0."""
    weight = np.ones(x.shape[1]) if weight is None else np.asarray(weight, dtype=np.float64)
    bias = np.zeros(x.shape[1]) if bias is None else np.asarray(bias, dtype=np.float64)
    return weight, bias
