"""The contest of Full Normalization and ten other norms on workers whose images show different labels."""

from __future__ import annotations

from collections.abc import Sequence

from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.full_normalization import rivals, rivals_on_workers, rivals_workers_selection


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return the seeds of the chosen pairs by norm, setting, way to train together, batch size and learning rate."""
    return {
        (norm, setting, way, batch_size, lr): rivals.SEEDS
        for (norm, way, batch_size), (setting, lr) in rivals_workers_selection.chosen().items()
    }


EXPERIMENT = Measurement(
    name="full_normalization.rivals_workers",
    question="On workers with different labels, is Full Normalization better than ten other norms?",
    source="the rule of full_normalization.rivals_on_workers",
    axes=("norm", "setting", "way", "batch_size", "lr"),
    cells=cells,
    measure=rivals_on_workers.measure_test,
)
