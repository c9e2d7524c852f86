"""The contest of Full Normalization and ten alternatives: errors, verdicts and rates at an edge.

The rule, the grids and the networks are those of ``rivals``; setting and rate are those of ``rivals_selection``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.experiments.framework.results import read_result
from bnlib.experiments.full_normalization import rivals, rivals_selection
from bnlib.sweep import Run

LEARNED = 80.0
"""A norm whose mean test error (%) is below this has learned; guessing has 90. The rule does not use this."""
COMPARED = {"Full Norm": "FN", "batch norm": "BN", "weight standardisation + GN": "WS + GN"}
"""The norms whose errors the table of verdicts shows, with their short names."""
NO_BREAK = "\N{NO-BREAK SPACE}"


def cells(optimiser: str, part: str, scale: Scale) -> dict[tuple, list[Run]]:
    """Return the runs of the chosen pairs by norm, setting, construction, batch size and learning rate."""
    return {
        (norm, setting, construction, batch_size, lr): rivals.runs(
            optimiser, norm, setting, construction, batch_size, lr, selection=False
        )
        for (norm, construction, batch_size), (setting, lr) in rivals_selection.chosen(optimiser, part, scale).items()
    }


@cache
def experiment(optimiser: str, part: str = "") -> Experiment:
    """Return the experiment of an optimiser, or of a part of its places, a key of ``rivals_selection.PARTS``.

    Example:
        >>> from bnlib.experiments.full_normalization import rivals_contest
        >>> rivals_contest.experiment("SGD").name
        'full_normalization.rivals_sgd'
    """
    return Experiment(
        name=f"full_normalization.rivals_{optimiser.lower()}{part}",
        question="On small batches, is Full Normalization better than ten alternatives, each with its own settings?",
        source="the rule of full_normalization.rivals",
        axes=("norm", "setting", "construction", "batch_size", "lr"),
        cells=partial(cells, optimiser, part),
        curves=("train_loss", "test_error"),
    )


def rows(optimiser: str, scale: Scale = "quick") -> dict[tuple, dict[str, Any]]:
    """Return the committed rows of all parts, by norm, setting, construction, batch size and learning rate."""
    loaded = [experiment(optimiser, part).load(scale) for part in rivals_selection.PARTS[optimiser]]
    return {cell: row for part in loaded for cell, row in part.items()}


@cache
def errors(optimiser: str, scale: Scale = "quick") -> dict[tuple[str, int], dict[str, list]]:
    """Return the test errors of all norms at each place, one per seed; None for a run that diverged."""
    images = len(rivals.images().test_y)
    found: dict[tuple[str, int], dict[str, list]] = {}
    for (norm, _, construction, batch_size, _), row in rows(optimiser, scale).items():
        ends = rivals_selection.errors_at_the_end(row, images)
        found.setdefault((construction, batch_size), {})[norm] = [None if end is None else float(end) for end in ends]
    return found


def places(optimiser: str, scale: Scale = "quick") -> list[tuple[str, int]]:
    """Return the complete places, a construction and a batch size each, in the order of ``rivals.places``."""
    return [place for place in rivals.places() if place in errors(optimiser, scale)]


def verdicts(optimiser: str, scale: Scale = "quick") -> dict[tuple[str, int], str]:
    """Return what the rule says of Full Normalization at each complete place."""
    return {place: rivals.verdict(errors(optimiser, scale)[place]) for place in places(optimiser, scale)}


def at_an_end_of_the_grid(
    optimiser: str, norm: str, construction: str, batch_size: int, scale: Scale = "quick"
) -> bool:
    """Return whether the chosen learning rate is the smallest or the largest that was tried."""
    _, rate = rivals_selection.chosen(optimiser, scale=scale)[norm, construction, batch_size]
    rates = rivals.learning_rates(optimiser, batch_size)
    return rate in (rates[0], rates[-1])


def mean_error(values: list) -> float:
    """Return the mean test error over the seeds in per cent, as the rule counts it: a divergence is guessing.

    Example:
        >>> from bnlib.experiments.full_normalization import rivals_contest
        >>> rivals_contest.mean_error([0.1, None])
        50.0
    """
    return float(100 * np.mean([rivals.WORST if value is None else value for value in values]))


def some_norm_learns(optimiser: str, construction: str, batch_size: int, scale: Scale = "quick") -> bool:
    """Return whether any norm has a mean test error below ``LEARNED`` at a place.

    Where none has, all are about equal, and the rule calls all of them best; such a verdict says nothing.
    """
    return min(map(mean_error, errors(optimiser, scale)[construction, batch_size].values())) < LEARNED


def _told(optimiser: str, norm: str, place: tuple[str, int], scale: Scale) -> str:
    """Return the mean error of a norm (%), a star if its rate is an end of the grid, and the range over the seeds."""
    values = [rivals.WORST if value is None else value for value in errors(optimiser, scale)[place][norm]]
    star = "*" * at_an_end_of_the_grid(optimiser, norm, *place, scale)
    return f"{mean_error(values):.1f}{star} ({100 * min(values):.1f}–{100 * max(values):.1f})"


def _verdict(optimiser: str, place: tuple[str, int], scale: Scale) -> str:
    return verdicts(optimiser, scale)[place] if some_norm_learns(optimiser, *place, scale) else "no norm learns"


def verdict_rows(optimiser: str, scale: Scale = "quick") -> list[dict[str, str]]:
    """Return a row for each place: the verdict on Full Normalization, and the errors (%) of the norms ``COMPARED``."""
    return [
        {"batches": f"{place[0]}, {place[1]}"}
        | {"verdict": _verdict(optimiser, place, scale)}
        | {name: _told(optimiser, norm, place, scale) for norm, name in COMPARED.items()}
        for place in places(optimiser, scale)
    ]


def mean_error_rows(optimiser: str, norms: Mapping[str, str], scale: Scale = "quick") -> list[dict[str, str]]:
    """Return a row for each place where a norm learns: mean errors (%) by norm, with a tick at those among the best.

    Arguments:
        optimiser: one of ``rivals.OPTIMISERS``.
        norms: the norms to show, some of ``rivals.NORMS``, with the names of their columns.
        scale: of the experiment.
    """

    def told(norm: str, of: dict[str, list]) -> str:
        return f"{mean_error(of[norm]):.1f}{NO_BREAK + '✓' if norm in rivals.best(of) else ''}"

    return [
        {"batches": f"{place[0]}, {place[1]}"}
        | {name: told(norm, errors(optimiser, scale)[place]) for norm, name in norms.items()}
        for place in places(optimiser, scale)
        if some_norm_learns(optimiser, *place, scale)
    ]


def optimiser_rows(optimisers: Sequence[str], scale: Scale = "quick") -> list[dict[str, str]]:
    """Return a row for each place: for each optimiser the verdict on Full Normalization, and its errors (%).

    A place that is not complete with an optimiser has a dash.
    """

    def told(optimiser: str, place: tuple[str, int]) -> str:
        if place not in places(optimiser, scale):
            return "–"
        return f"{_verdict(optimiser, place, scale)}, {_told(optimiser, 'Full Norm', place, scale)}"

    return [
        {"batches": f"{place[0]}, {place[1]}"} | {optimiser: told(optimiser, place) for optimiser in optimisers}
        for place in rivals.places()
        if any(place in places(optimiser, scale) for optimiser in optimisers)
    ]


def verdict_count_rows(optimisers: Sequence[str], scale: Scale = "quick") -> list[dict[str, str | int]]:
    """Return a row for each optimiser: its complete places, those of each verdict, and those at the lowest rate.

    The last number counts the places where a norm learns and the rate chosen for Full Normalization is the lowest.
    """

    def at_the_lowest_rate(optimiser: str, place: tuple[str, int]) -> bool:
        _, rate = rivals_selection.chosen(optimiser, scale=scale)["Full Norm", *place]
        return rate == rivals.learning_rates(optimiser, place[1])[0] and some_norm_learns(optimiser, *place, scale)

    found = {each: [_verdict(each, place, scale) for place in places(each, scale)] for each in optimisers}
    return [
        {"optimiser": each, "cases": len(told)}
        | {name: told.count(name) for name in ("wins", "among the best", "loses", "no norm learns")}
        | {"lowest rate": sum(at_the_lowest_rate(each, place) for place in places(each, scale))}
        for each, told in found.items()
    ]


def best_count_rows(optimisers: Sequence[str], scale: Scale = "quick") -> list[dict[str, str | int]]:
    """Return a row for each norm: at how many places it is one of the best, by optimiser.

    Counted are the places that are complete with all these optimisers, but for those where no norm learns.
    """
    shared = [place for place in rivals.places() if all(place in places(each, scale) for each in optimisers)]
    found = {
        each: [rivals.best(errors(each, scale)[at]) for at in shared if some_norm_learns(each, *at, scale)]
        for each in optimisers
    }
    return [
        {"norm": COMPARED.get(norm, norm)}
        | {f"{each}, of {len(best)}": sum(norm in names for names in best) for each, best in found.items()}
        for norm in rivals.NORMS
    ]


def best_rows(optimiser: str, scale: Scale = "quick") -> list[dict[str, str]]:
    """Return a row for each norm: the batch sizes at which it is one of the best, by construction.

    Places where no norm learns are left out.
    """
    shown = [place for place in places(optimiser, scale) if some_norm_learns(optimiser, *place, scale)]
    found = {place: rivals.best(errors(optimiser, scale)[place]) for place in shown}

    def sizes(norm: str, construction: str) -> str:
        return ", ".join(str(place[1]) for place in shown if place[0] == construction and norm in found[place])

    return [
        {"norm": COMPARED.get(norm, norm)}
        | {each: sizes(norm, each) or "–" for each in dict.fromkeys(place[0] for place in shown)}
        for norm in rivals.NORMS
    ]


class Point(NamedTuple):
    """Where a norm lies in the picture of errors and times, over the batch sizes of a construction.

    Attributes:
        time: of a step over batch norm's, the geometric mean over the batch sizes.
        error: mean test error (%) over batch sizes and seeds.
        lowest, highest: of the seeds' means over the batch sizes (%).
    """

    time: float
    error: float
    lowest: float
    highest: float


def errors_and_times(optimiser: str, scale: Scale = "quick") -> dict[str, dict[str, Point]]:
    """Return the time of a step and the errors by norm, for each construction where a norm learns at every size."""
    rows = read_result("benchmarks/rivals_cpu", "python benchmarks/rivals.py --save")["rows"]
    ratios = {(row["norm"], row["batch_size"]): row["quartiles_of_ratio"][1] for row in rows}
    found: dict[str, dict[str, Point]] = {}
    for construction in dict.fromkeys(place[0] for place in places(optimiser, scale)):
        sizes = [size for other, size in places(optimiser, scale) if other == construction]
        if not all(some_norm_learns(optimiser, construction, size, scale) for size in sizes):
            continue
        found[construction] = {}
        for norm in rivals.NORMS:
            kept = [errors(optimiser, scale)[construction, size][norm] for size in sizes]
            seeds = 100 * np.mean([[rivals.WORST if value is None else value for value in row] for row in kept], 0)
            time = np.exp(np.mean([np.log(ratios[norm, size]) for size in sizes]))
            found[construction][norm] = Point(*map(float, (time, seeds.mean(), seeds.min(), seeds.max())))
    return found
