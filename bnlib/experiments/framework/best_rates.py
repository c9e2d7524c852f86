"""The best learning rate of each arm of a result, and whether it lies inside the rates that were tried.

A best rate at the edge of its grid is no best rate: an even smaller or larger one might do better. So a text that
compares arms at their best rates must say where that is so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

AXES = ("lr", "learning rate")
"""The names that the axis of the learning rates has in results."""


@dataclass(frozen=True)
class BestRate:
    """The best learning rate of one arm.

    Attributes:
        rate: the rate with the smallest median over seeds; ties go to the smaller mean.
        edge: ``"lowest"`` or ``"highest"`` if the rate is at an end of the grid, ``""`` if it is inside.

    Example:
        >>> from bnlib.experiments.framework.best_rates import BestRate
        >>> BestRate(0.1, "").edge or "inside"
        'inside'
    """

    rate: float
    edge: str


def best_rates(result: Mapping[tuple, Mapping[str, Any]], axes: Sequence[str], value: str) -> dict[tuple, BestRate]:
    """Find the best learning rate of each arm of a result; arms with fewer than three rates have no inside.

    Arguments:
        result: the cells, as ``Experiment.load`` and ``Measurement.load`` return them.
        axes: the names of the axes of the cells; one of them must be in ``AXES``.
        value: the value that should be small, such as ``"test_error"``: for each seed a number, or a curve, whose last
            point counts. A value that is not finite, as the loss of a run that diverged, counts as infinite.

    Returns:
        For each arm, by its values on the other axes, its best rate.

    Raises:
        ValueError: no axis holds learning rates.

    Example:
        >>> from bnlib.experiments.framework.best_rates import best_rates
        >>> errors = {("BN", 0.1): [0.3, 0.4], ("BN", 1.0): [0.1, 0.1], ("BN", 10.0): [0.9, 0.9]}
        >>> found = best_rates({cell: {"error": each} for cell, each in errors.items()}, ("norm", "lr"), "error")
        >>> found["BN",]
        BestRate(rate=1.0, edge='')
    """
    places = [place for place, axis in enumerate(axes) if axis in AXES]
    if not places:
        raise ValueError(f"axes must include one of {', '.join(map(repr, AXES))}, got {tuple(axes)}")
    arms: dict[tuple, dict[float, tuple[float, float]]] = {}
    for cell, kept in result.items():
        last = np.array([_last(run) for run in kept[value]])
        arm = (*cell[: places[0]], *cell[places[0] + 1 :])
        arms.setdefault(arm, {})[cell[places[0]]] = (float(np.median(last)), float(np.mean(last)))
    return {arm: _best(rates) for arm, rates in arms.items()}


def _last(run: float | Sequence[float | None]) -> float:
    """Return the last point of a run that did not diverge, and infinity for one that did."""
    value = run if np.ndim(run) == 0 else run[-1]
    return np.inf if value is None or np.isnan(value) else float(value)


def _best(rates: Mapping[float, tuple[float, float]]) -> BestRate:
    best = min(rates, key=lambda rate: rates[rate])
    return BestRate(best, {min(rates): "lowest", max(rates): "highest"}.get(best, ""))
