"""DOC stable_learning_rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class StableLearningRate:
    """Where stability ends.

    Attributes:
        low: the largest learning rate found stable.
        high: the smallest found not to be.
        trials: each learning rate tried and whether it was stable, in the order of the trials.
    """

    low: float
    high: float
    trials: tuple[tuple[float, bool], ...]


def largest_stable_learning_rate(
    run: Callable[[float], bool], low: float, high: float, ratio: float = 1.1
) -> StableLearningRate:
    """The largest learning rate for which a training is stable, by bisection on a logarithmic scale.

    If stability comes and goes between ``low`` and ``high``, one of its ends is found.

    Arguments:
        run: function of the learning rate that trains from the start and says whether that was stable. A finite loss is
            not enough to ask: a network whose units have all died has one at any learning rate.
        low: a learning rate that is stable.
        high: one that is not.
        ratio: of the two ends at which to stop.

    Returns:
        The last bracket, ``high`` being at most ``ratio`` times ``low``, and all trials.

    Raises:
        ValueError: ``low`` and ``high`` not positive or not in this order, ``ratio`` not above 1, ``low`` not stable or
            ``high`` stable.

    Example:
        Gradient descent on $5w^2$, whose second derivative is 10:

        >>> def run(lr):
        ...     w = 1.0
        ...     for _ in range(1000):
        ...         w -= lr * 10 * w
        ...     return abs(w) < 1
        >>> round(probes.largest_stable_learning_rate(run, low=0.01, high=1.0, ratio=1.01).low, 2)
        0.2
    """
    if not 0 < low < high < math.inf:
        raise ValueError(f"low and high must be positive and in this order, got {low} and {high}")
    if not ratio > 1:
        raise ValueError(f"ratio must be above 1, got {ratio}")
    trials: list[tuple[float, bool]] = []

    def stable(lr: float) -> bool:
        trials.append((lr, bool(run(lr))))
        return trials[-1][1]

    if not stable(low):
        raise ValueError(f"low must be a learning rate that is stable, got {low}, which is not: try a smaller one")
    if stable(high):
        raise ValueError(f"high must be a learning rate that is not stable, got {high}, which is: try a larger one")
    while high / low > ratio:
        middle = math.sqrt(low) * math.sqrt(high)
        if not low < middle < high:
            break
        low, high = (middle, high) if stable(middle) else (low, middle)
    return StableLearningRate(low, high, tuple(trials))
