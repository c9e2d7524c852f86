"""Select setting and learning rate of each norm for the contest on workers whose images show different labels."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import numpy as np

from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.full_normalization import rivals, rivals_on_workers

EXPERIMENT = Measurement(
    name="full_normalization.rivals_workers_selection",
    question="Which setting and learning rate of each of eleven norms has the smallest error on images kept apart?",
    source="the rule of full_normalization.rivals_on_workers",
    axes=("norm", "setting", "way", "batch_size", "lr"),
    cells=rivals_on_workers.selection_cells,
    measure=rivals_on_workers.measure_selection,
)


def exact_errors(values: np.ndarray, images: int) -> list[Fraction | None]:
    """Return the exact errors from rounded ones, shares of so many images; None for a run that diverged (nan).

    Example:
        >>> from bnlib.experiments.full_normalization.rivals_workers_selection import exact_errors
        >>> exact_errors(np.array([0.3333, np.nan]), 3)
        [Fraction(1, 3), None]
    """
    return [None if np.isnan(value) else Fraction(round(value * images), images) for value in values.tolist()]


@cache
def chosen() -> dict[tuple[str, str, int], tuple[str, float]]:
    """Return the setting and the learning rate that the rule chooses, by norm, way to train together and batch size."""
    images = len(rivals.selection_images().test_y)
    grouped: dict[tuple[str, str, int], dict[tuple[str, float], list]] = {}
    for (norm, setting, way, batch_size, lr), row in EXPERIMENT.load().items():
        pairs = grouped.setdefault((norm, way, batch_size), {})
        pairs[setting, lr] = exact_errors(row["test_error"], images)
    return {place: rivals.choose(pairs) for place, pairs in grouped.items()}
