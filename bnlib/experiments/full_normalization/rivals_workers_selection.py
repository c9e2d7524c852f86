"""Select setting and learning rate of each norm for the contest on workers whose images show different labels.

The rule and the training are those of ``rivals_on_workers``. Each way to train together is an experiment of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache, partial

import numpy as np

from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.full_normalization import rivals, rivals_on_workers

AXES = ("norm", "setting", "way", "batch_size", "lr")


def cells(way: str, scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return the seeds by norm, setting, way to train together, batch size and learning rate."""
    return {cell: seeds for cell, seeds in rivals_on_workers.selection_cells(scale).items() if cell[2] == way}


@cache
def experiment(way: str) -> Measurement:
    """Return the experiment of a way to train together, one of ``rivals_on_workers.WAYS``.

    Example:
        >>> from bnlib.experiments.full_normalization import rivals_workers_selection
        >>> rivals_workers_selection.experiment("local steps").name
        'full_normalization.rivals_local_steps_selection'
    """
    return Measurement(
        name=f"full_normalization.rivals_{way.replace(' ', '_')}_selection",
        question="Which setting and learning rate of each of ten norms, and of none, has the smallest error on images "
        "kept apart?",
        source="the rule of full_normalization.rivals_on_workers",
        axes=AXES,
        cells=partial(cells, way),
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
def chosen(way: str) -> dict[tuple[str, str, int], tuple[str, float]]:
    """Return the setting and the learning rate that the rule chooses, by norm, way to train together and batch size."""
    images = len(rivals.selection_images().test_y)
    grouped: dict[tuple[str, str, int], dict[tuple[str, float], list]] = {}
    for (norm, setting, _, batch_size, lr), row in experiment(way).load().items():
        pairs = grouped.setdefault((norm, way, batch_size), {})
        pairs[setting, lr] = exact_errors(row["test_error"], images)
    return {place: rivals.choose(pairs) for place, pairs in grouped.items()}
