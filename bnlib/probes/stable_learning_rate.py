"""Search for the learning rates at which training is stable: scan a grid of rates, or find one border by bisection.

Stable and unstable rates need not be separated by one border. Scan unless you know that they are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bnlib.arguments import check_number, check_usual, shown
from bnlib.probes.tensors import number_sequence


@dataclass(frozen=True)
class StableLearningRate:
    """The interval that contains the limit of stability.

    Attributes:
        low: the largest learning rate that was found stable.
        high: the smallest learning rate that was found unstable.
        trials: each learning rate that was tried and whether it was stable, in the order of the trials.
    """

    low: float
    high: float
    trials: tuple[tuple[float, bool], ...]


def largest_stable_learning_rate(
    run: Callable[[float], bool], low: float, high: float, ratio: float = 1.1
) -> StableLearningRate:
    """Find the largest learning rate at which training is stable, by bisection on a logarithmic scale.

    Bisection assumes one border: every rate below it is stable and every rate above it is not, as for a quadratic. If
    there are several borders between ``low`` and ``high``, one of them is found, and which one says nothing about the
    network; then use ``scan_learning_rates``.

    Arguments:
        run: takes a learning rate, trains from the start and returns whether the training was stable. A finite loss is
            not a sufficient criterion: a network whose units are all dead has a finite loss at any learning rate.
        low: a learning rate at which training is stable.
        high: a learning rate at which training is unstable.
        ratio: the search stops when ``high / low`` is at most this ratio.

    Returns:
        The last interval and all trials.

    Raises:
        TypeError: ``run`` returns something else than True or False.
        ValueError: ``low`` and ``high`` are not positive or not in this order, ``ratio`` is not above 1, training at
            ``low`` is unstable, or training at ``high`` is stable.

    Example:
        Gradient descent on $5w^2$, whose second derivative is 10, is stable below 2/10:

        >>> def run(lr):
        ...     w = 1.0
        ...     for _ in range(1000):
        ...         w -= lr * 10 * w
        ...     return abs(w) < 1
        >>> round(probes.largest_stable_learning_rate(run, low=0.01, high=1.0, ratio=1.01).low, 2)
        0.2
    """
    check_usual(run=run)
    check_number("low", low, above=0)
    check_number("high", high, above=low)
    check_number("ratio", ratio, above=1)
    trials: list[tuple[float, bool]] = []

    def stable(lr: float) -> bool:
        trials.append((lr, _truth(run(lr))))
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


def _truth(stable: object) -> bool:
    """Return what ``run`` returned; raise an error if it is no truth value, such as a loss, which may be nan."""
    is_tensor = isinstance(stable, torch.Tensor) and stable.dtype is torch.bool and stable.numel() == 1
    if not is_tensor and not isinstance(stable, (bool, np.bool_)):
        raise TypeError(f"run must return whether the training was stable, True or False, got {shown(stable)}")
    return bool(stable)


@dataclass(frozen=True)
class LearningRateScan:
    """Which learning rates of a grid are stable.

    Attributes:
        rates: the learning rates, in increasing order.
        stable: for each of them, whether training was stable.
    """

    rates: tuple[float, ...]
    stable: tuple[bool, ...]

    @property
    def first_unstable(self) -> float:
        """The smallest learning rate that is not stable; infinite if all are stable."""
        return next((rate for rate, stable in zip(self.rates, self.stable, strict=True) if not stable), math.inf)

    @property
    def last_stable(self) -> float:
        """The largest learning rate that is stable; 0 if none is."""
        return max((rate for rate, stable in zip(self.rates, self.stable, strict=True) if stable), default=0.0)

    @property
    def has_one_border(self) -> bool:
        """Whether every stable rate is below every unstable one, as bisection assumes."""
        return self.last_stable < self.first_unstable


def scan_learning_rates(run: Callable[[float], bool], rates: Sequence[float]) -> LearningRateScan:
    """Try every learning rate of a grid.

    Arguments:
        run: takes a learning rate, trains from the start and returns whether the training was stable, see
            ``largest_stable_learning_rate``.
        rates: the learning rates to try, positive and in increasing order.

    Raises:
        TypeError: ``run`` returns something else than True or False.
        ValueError: ``rates`` is empty, not positive or not increasing.

    Example:
        A training that is unstable only in a gap:

        >>> found = probes.scan_learning_rates(lambda lr: not 0.2 < lr < 0.5, [0.1, 0.3, 1.0])
        >>> found.first_unstable, found.last_stable, found.has_one_border
        (0.3, 1.0, False)
    """
    check_usual(run=run)
    rates = number_sequence("rates", rates).tolist()
    if not 0 < rates[0] or any(not low < high for low, high in itertools.pairwise(rates)):
        raise ValueError(f"rates must be positive and in increasing order, got {list(rates)}")
    return LearningRateScan(tuple(rates), tuple(_truth(run(rate)) for rate in rates))
