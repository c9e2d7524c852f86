"""How far the engine's numbers are from those of bnlib."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor


def distance(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """The largest difference of any number, relative to 1 + its size; infinite if a number is missing or not finite."""
    if "error" in ours:
        return math.inf
    worst = 0.0
    for name in ("initial", "final", "running", "checkpoints"):
        pairs = zip(numbers(ours[name]), numbers(theirs[name]), strict=True)
        try:
            worst = max([worst, *(abs(a - b) / (1 + abs(b)) for a, b in pairs)])
        except ValueError:  # not as many numbers
            return math.inf
    return worst if math.isfinite(worst) else math.inf


def numbers(value: Any) -> Iterator[float]:
    """All numbers, those of a mapping in the order of its keys."""
    if isinstance(value, Tensor):
        yield from value.double().flatten().tolist()
    elif isinstance(value, Mapping):
        for key in sorted(value):
            yield from numbers(value[key])
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for each in value:
            yield from numbers(each)
    else:
        yield float(value)
