"""The contest of Full Normalization and ten alternatives on workers whose images show different labels.

The rule and the training are those of ``rivals_on_workers``, setting and rate those of ``rivals_workers_selection``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial

from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.full_normalization import rivals, rivals_on_workers, rivals_workers_selection


def cells(way: str, scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return the seeds of the chosen pairs by norm, setting, way to train together, batch size and learning rate."""
    return {
        (norm, setting, way, batch_size, lr): rivals.SEEDS
        for (norm, way, batch_size), (setting, lr) in rivals_workers_selection.chosen(way).items()
    }


@cache
def experiment(way: str) -> Measurement:
    """Return the experiment of a way to train together, one of ``rivals_on_workers.WAYS``.

    Example:
        >>> from bnlib.experiments.full_normalization import rivals_workers
        >>> rivals_workers.experiment("local steps").name
        'full_normalization.rivals_local_steps'
    """
    return Measurement(
        name=f"full_normalization.rivals_{way.replace(' ', '_')}",
        question="On workers with different labels, is Full Normalization better than ten alternatives?",
        source="the rule of full_normalization.rivals_on_workers",
        axes=rivals_workers_selection.AXES,
        cells=partial(cells, way),
        measure=rivals_on_workers.measure_test,
    )


@cache
def errors(way: str) -> dict[tuple[str, int], dict[str, list]]:
    """Return the test errors of all norms by way to train together and batch size, one per seed; None: diverged."""
    images = len(rivals.images().test_y)
    found: dict[tuple[str, int], dict[str, list]] = {}
    for (norm, _, _, batch_size, _), row in experiment(way).load().items():
        ends = rivals_workers_selection.exact_errors(row["test_error"], images)
        found.setdefault((way, batch_size), {})[norm] = [None if end is None else float(end) for end in ends]
    return found
