"""The contest on Fashion-MNIST, and on workers with different labels: errors, verdicts and rows of its table.

The rules are those of ``rivals_on_images`` and ``rivals_on_workers``.
"""

from __future__ import annotations

from functools import cache

from bnlib.experiments.full_normalization import (
    rivals,
    rivals_contest,
    rivals_images,
    rivals_images_selection,
    rivals_on_images,
    rivals_on_workers,
    rivals_workers,
    rivals_workers_selection,
)
from bnlib.experiments.full_normalization.rivals_selection import errors_at_the_end

PARTS = ("Fashion-MNIST", *rivals_on_workers.WAYS)
"""Fashion-MNIST, and the two ways in which workers train together."""


@cache
def errors(part: str) -> dict[tuple[str, int], dict[str, list]]:
    """Return the test errors of all norms at each place, one per seed; None for a run that diverged.

    Arguments:
        part: one of ``PARTS``.
    """
    if part in rivals_on_workers.WAYS:
        return rivals_workers.errors(part)
    images = rivals_on_images.LABELS * rivals_on_images.IMAGES["quick"].tested
    found: dict[tuple[str, int], dict[str, list]] = {}
    for (norm, _, construction, batch_size, _), row in rivals_images.EXPERIMENT.load("quick").items():
        ends = errors_at_the_end(row, images)
        found.setdefault((construction, batch_size), {})[norm] = [None if end is None else float(end) for end in ends]
    return found


def verdicts(part: str) -> dict[tuple[str, int], str]:
    """Return what the rule says of Full Normalization at each place, "no norm learns" where that is so."""
    return {place: rivals.verdict(of) if _learned(of) else "no norm learns" for place, of in errors(part).items()}


def where_among_the_best(norm: str) -> list[tuple[str, int]]:
    """Return the places where a norm is one of the best."""
    return [place for part in PARTS for place, of in errors(part).items() if norm in rivals.best(of)]


def _learned(of: dict[str, list]) -> bool:
    return min(map(rivals_contest.mean_error, of.values())) < rivals_contest.LEARNED


def chosen(part: str) -> dict[tuple[str, str, int], tuple[str, float]]:
    """Return the chosen setting and learning rate by norm and place."""
    if part in rivals_on_workers.WAYS:
        return rivals_workers_selection.chosen(part)
    return rivals_images_selection.chosen()


def at_an_end_of_the_grid(part: str, norm: str, place: tuple[str, int]) -> bool:
    """Return whether the chosen learning rate is the smallest or the largest that was tried."""
    rates = rivals.learning_rates("SGD", place[1]) if part == PARTS[0] else rivals_on_workers.LEARNING_RATES
    return chosen(part)[norm, *place][1] in (rates[0], rates[-1])


def _told(part: str, norm: str, place: tuple[str, int]) -> str:
    """Return the mean error of a norm (%), a star if its rate is an end of the grid, and the range over the seeds."""
    values = [rivals.WORST if value is None else value for value in errors(part)[place][norm]]
    star = "*" * at_an_end_of_the_grid(part, norm, place)
    return f"{rivals_contest.mean_error(values):.1f}{star} ({100 * min(values):.1f}–{100 * max(values):.1f})"


def verdict_rows() -> list[dict[str, str]]:
    """Return a row for each place: the verdict on Full Normalization, and the errors (%) of three norms."""
    return [
        {"case": f"{part}, {place[0]}, {place[1]}" if part == PARTS[0] else f"workers, {place[0]}, {place[1]}"}
        | {"verdict": verdict}
        | {name: _told(part, norm, place) for norm, name in rivals_contest.COMPARED.items()}
        for part in PARTS
        for place, verdict in verdicts(part).items()
    ]
