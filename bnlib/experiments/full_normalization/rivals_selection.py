"""Select the setting and the learning rate of each norm for the contest of Full Normalization, with an optimiser.

The rule, the grids and the networks are those of ``rivals``. A run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache, partial
from typing import Any

from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.experiments.full_normalization import rivals
from bnlib.sweep import Run

ORDER = tuple(
    (construction, size)
    for size in (16, 64, 4, 2, 1)
    for construction in rivals.CONSTRUCTIONS
    if (construction, size) in rivals.places()
)
"""All places, a construction and a batch size each, in the order in which they are trained."""
PARTS: dict[str, dict[str, tuple[tuple[str, int], ...]]] = {
    "SGD": {"": ORDER},
    "momentum": {"": ORDER[:12], "_pairs": ORDER[12:15], "_single_images": ORDER[15:]},
    "Adam": {"": ORDER[:12], "_pairs": ORDER[12:15], "_single_images": ORDER[15:]},
}
"""The places of each optimiser by experiment; the key is what the experiment's name has after the optimiser's."""


def cells(optimiser: str, part: str, scale: Scale) -> dict[tuple, list[Run]]:
    """Return the runs by norm, setting, construction, batch size and learning rate, one place after another."""
    every = rivals.selection_cells(optimiser)
    return {cell: runs for place in PARTS[optimiser][part] for cell, runs in every.items() if cell[2:4] == place}


@cache
def experiment(optimiser: str, part: str = "") -> Experiment:
    """Return the experiment of an optimiser, or of a part of its places.

    Example:
        >>> from bnlib.experiments.full_normalization import rivals_selection
        >>> rivals_selection.experiment("SGD").name
        'full_normalization.rivals_sgd_selection'
        >>> rivals_selection.experiment("Adam", "_pairs").name
        'full_normalization.rivals_adam_pairs_selection'
    """
    return Experiment(
        name=f"full_normalization.rivals_{optimiser.lower()}{part}_selection",
        question="Which setting and learning rate of each of ten norms, and of none, has the smallest error on images "
        "kept apart?",
        source="the rule of full_normalization.rivals",
        axes=("norm", "setting", "construction", "batch_size", "lr"),
        cells=partial(cells, optimiser, part),
        curves=("train_loss", "test_error"),
    )


def rows(optimiser: str, scale: Scale = "quick") -> dict[tuple, dict[str, Any]]:
    """Return the committed rows of all parts, by norm, setting, construction, batch size and learning rate."""
    loaded = [experiment(optimiser, part).load(scale) for part in PARTS[optimiser]]
    return {cell: row for part in loaded for cell, row in part.items()}


def errors_at_the_end(row: Mapping[str, Any], images: int) -> list[Fraction | None]:
    """Return the exact test error of each run of a cell, and None for a run that diverged.

    Results are rounded to four digits. A share of ``images`` is known exactly nevertheless, so that equal means of the
    selection are equal.

    Example:
        >>> from bnlib.experiments.full_normalization.rivals_selection import errors_at_the_end
        >>> errors_at_the_end({"train_loss": [[2.3, 0.1], [2.3, None]], "test_error": [[0.9, 0.3333], [0.9, 0.9]]}, 3)
        [Fraction(1, 3), None]
    """
    ends: Sequence[tuple] = [
        (loss[-1], error[-1]) for loss, error in zip(row["train_loss"], row["test_error"], strict=True)
    ]
    return [None if None in end else Fraction(round(end[1] * images), images) for end in ends]


@cache
def chosen(
    optimiser: str, part: str | None = None, scale: Scale = "quick"
) -> dict[tuple[str, str, int], tuple[str, float]]:
    """Return the setting and learning rate that the rule chooses, by norm, construction and batch size.

    Arguments:
        part: a key of ``PARTS``, None for all places.
    """
    images = len(rivals.selection_images().test_y)
    grouped: dict[tuple[str, str, int], dict[tuple[str, float], list]] = {}
    loaded = rows(optimiser, scale) if part is None else experiment(optimiser, part).load(scale)
    for (norm, setting, construction, batch_size, lr), row in loaded.items():
        pairs = grouped.setdefault((norm, construction, batch_size), {})
        pairs[setting, lr] = errors_at_the_end(row, images)
    return {place: rivals.choose(pairs) for place, pairs in grouped.items()}
