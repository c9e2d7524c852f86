"""The contest of Full Normalization and ten other norms with plain SGD: errors, verdicts and rates at an edge.

The rule, the grids and the networks are those of ``rivals``; setting and rate are those of ``rivals_sgd_selection``.
"""

from __future__ import annotations

from functools import cache

from bnlib.experiments.framework.experiment import Experiment, Scale
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
