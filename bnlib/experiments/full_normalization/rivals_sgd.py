"""The contest of Full Normalization and ten other norms with plain SGD: errors, verdicts and rates at an edge.

The rule, the grids and the networks are those of ``rivals``; setting and rate are those of ``rivals_sgd_selection``.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.experiments.framework.results import read_result
from bnlib.experiments.full_normalization import rivals, rivals_sgd_selection
from bnlib.experiments.full_normalization.rivals_sgd_selection import OPTIMISER, errors_at_the_end
from bnlib.sweep import Run


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return the runs of the chosen pairs by norm, setting, construction, batch size and learning rate."""
    return {
        (norm, setting, construction, batch_size, lr): rivals.runs(
            OPTIMISER, norm, setting, construction, batch_size, lr, selection=False
        )
        for (norm, construction, batch_size), (setting, lr) in rivals_sgd_selection.chosen(scale).items()
    }


EXPERIMENT = Experiment(
    name="full_normalization.rivals_sgd",
    question="On small batches, is Full Normalization better than ten other norms, each with its own best settings?",
    source="the rule of full_normalization.rivals",
    axes=("norm", "setting", "construction", "batch_size", "lr"),
    cells=cells,
    curves=("train_loss", "test_error"),
)


@cache
def errors(scale: Scale = "quick") -> dict[tuple[str, int], dict[str, list]]:
    """Return the test errors of all norms at each place, one per seed; None for a run that diverged."""
    images = len(rivals.images().test_y)
    found: dict[tuple[str, int], dict[str, list]] = {}
    for (norm, _, construction, batch_size, _), row in EXPERIMENT.load(scale).items():
        ends = errors_at_the_end(row, images)
        found.setdefault((construction, batch_size), {})[norm] = [None if end is None else float(end) for end in ends]
    return found


def places(scale: Scale = "quick") -> list[tuple[str, int]]:
    """Return the complete places, a construction and a batch size each, in the order of ``rivals.places``."""
    return [place for place in rivals.places() if place in errors(scale)]


def verdicts(scale: Scale = "quick") -> dict[tuple[str, int], str]:
    """Return what the rule says of Full Normalization at each complete place."""
    return {place: rivals.verdict(errors(scale)[place]) for place in places(scale)}


def at_an_end_of_the_grid(norm: str, construction: str, batch_size: int, scale: Scale = "quick") -> bool:
    """Return whether the chosen learning rate is the smallest or the largest that was tried."""
    _, rate = rivals_sgd_selection.chosen(scale)[norm, construction, batch_size]
    rates = rivals.learning_rates(OPTIMISER, batch_size)
    return rate in (rates[0], rates[-1])


def mean_error(values: list) -> float:
    """Return the mean test error over the seeds in per cent, as the rule counts it: a divergence is guessing.

    Example:
        >>> from bnlib.experiments.full_normalization import rivals_sgd
        >>> rivals_sgd.mean_error([0.1, None])
        50.0
    """
    return float(100 * np.mean([rivals.WORST if value is None else value for value in values]))


def verdict_rows(scale: Scale = "quick") -> list[dict]:
    """Return a row for each complete place: errors (%), the best norms in the order of their means, and the verdict.

    A star marks a rate at an end of its grid.
    """

    def star(norm: str, place: tuple[str, int]) -> str:
        return "*" * at_an_end_of_the_grid(norm, *place, scale)

    def told(norm: str, place: tuple[str, int]) -> str:
        values = [rivals.WORST if value is None else value for value in errors(scale)[place][norm]]
        low, high = 100 * min(values), 100 * max(values)
        return f"{mean_error(values):.1f}{star(norm, place)} ({low:.1f}–{high:.1f})"

    return [
        {
            "batches, batch size": f"{place[0]}, {place[1]}",
            "verdict": found,
            ("test error (%)", "Full Norm"): told("Full Norm", place),
            ("test error (%)", "batch norm"): told("batch norm", place),
            "best norms": ", ".join(norm + star(norm, place) for norm in rivals.best(errors(scale)[place])),
        }
        for place, found in verdicts(scale).items()
    ]


def errors_and_times(scale: Scale = "quick") -> dict[str, dict[str, tuple[float, float]]]:
    """Return for each construction and norm the time of a step over batch norm's, and the mean test error (%).

    Both are means over the batch sizes of the complete places; the mean of the ratios is geometric.
    """
    rows = read_result("benchmarks/rivals_cpu", "python benchmarks/rivals.py --save")["rows"]
    ratios = {(row["norm"], row["batch_size"]): row["quartiles_of_ratio"][1] for row in rows}
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for construction in dict.fromkeys(construction for construction, _ in places(scale)):
        sizes = [size for other, size in places(scale) if other == construction]
        found[construction] = {
            norm: (
                float(np.exp(np.mean([np.log(ratios[norm, size]) for size in sizes]))),
                float(np.mean([mean_error(errors(scale)[construction, size][norm]) for size in sizes])),
            )
            for norm in rivals.NORMS
        }
    return found
