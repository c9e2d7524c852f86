"""Select the setting and the learning rate of each norm for the contest of Full Normalization, with plain SGD.

The rule, the grids and the networks are those of ``rivals``. Both scales have the same runs, which take about two
hours; a run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from typing import Any

from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.experiments.full_normalization import rivals
from bnlib.sweep import Run

OPTIMISER = "SGD"
ORDER = (
    ("shuffled", 16),
    ("one label", 16),
    ("shuffled", 4),
    ("one label", 4),
    ("shuffled", 64),
    ("one label", 64),
    ("one label", 2),
    ("shuffled", 2),
    ("shuffled", 1),
    ("two labels", 16),
    ("two labels", 64),
    ("sorted stream", 16),
    ("sorted stream", 64),
    ("two labels", 4),
    ("sorted stream", 4),
    ("sorted stream", 2),
    ("sorted stream", 1),
)
"""All places, a construction and a batch size each, in the order in which they are trained."""


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return the runs by norm, setting, construction, batch size and learning rate, one place after another."""
    every = rivals.selection_cells(OPTIMISER)
    return {cell: runs for place in ORDER for cell, runs in every.items() if cell[2:4] == place}


EXPERIMENT = Experiment(
    name="full_normalization.rivals_sgd_selection",
    question="Which setting and learning rate of each of eleven norms has the smallest error on images kept apart?",
    source="the rule of full_normalization.rivals",
    axes=("norm", "setting", "construction", "batch_size", "lr"),
    cells=cells,
    curves=("train_loss", "test_error"),
)


def errors_at_the_end(row: Mapping[str, Any], images: int) -> list[Fraction | None]:
    """Return the exact test error of each run of a cell, and None for a run that diverged.

    Results are rounded to four digits. A share of ``images`` is known exactly nevertheless, so that equal means of the
    selection are equal.

    Example:
        >>> from bnlib.experiments.full_normalization.rivals_sgd_selection import errors_at_the_end
        >>> errors_at_the_end({"train_loss": [[2.3, 0.1], [2.3, None]], "test_error": [[0.9, 0.3333], [0.9, 0.9]]}, 3)
        [Fraction(1, 3), None]
    """
    ends: Sequence[tuple] = [
        (loss[-1], error[-1]) for loss, error in zip(row["train_loss"], row["test_error"], strict=True)
    ]
    return [None if None in end else Fraction(round(end[1] * images), images) for end in ends]


@cache
def chosen(scale: Scale = "quick") -> dict[tuple[str, str, int], tuple[str, float]]:
    """Return the setting and learning rate that the rule chooses, by norm, construction and batch size."""
    images = len(rivals.selection_images().test_y)
    grouped: dict[tuple[str, str, int], dict[tuple[str, float], list]] = {}
    for (norm, setting, construction, batch_size, lr), row in EXPERIMENT.load(scale).items():
        pairs = grouped.setdefault((norm, construction, batch_size), {})
        pairs[setting, lr] = errors_at_the_end(row, images)
    return {place: rivals.choose(pairs) for place, pairs in grouped.items()}
