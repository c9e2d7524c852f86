"""How far the engine's numbers are from those of bnlib."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor


def distance(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """The largest difference of any number, relative to 1 + its size; infinite if a number is missing or not finite."""
    if "error" in ours:
        return math.inf
    worst = 0.0
    for name in ("initial", "final", "running", "checkpoints"):
        found, expected = numbers(ours[name]), numbers(theirs[name])
        if found.shape != expected.shape:  # not as many numbers
            return math.inf
        with np.errstate(invalid="ignore"):
            far = np.abs(found - expected) / (1 + np.abs(expected))
        if not np.isfinite(far).all():
            return math.inf
        worst = max(worst, far.max(initial=0.0))
    return worst


def numbers(value: Any) -> np.ndarray:
    """All numbers in one row, those of a mapping in the order of its keys."""
    if isinstance(value, Tensor):
        return value.detach().double().flatten().numpy()
    if isinstance(value, Mapping) and value.keys() == {"float64"}:  # see driver.js
        return np.frombuffer(base64.b64decode(value["float64"]))
    if isinstance(value, Mapping):
        value = [value[key] for key in sorted(value)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return np.concatenate([np.empty(0), *map(numbers, value)])
    return np.array([float(value)])
