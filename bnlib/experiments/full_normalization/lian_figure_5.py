"""Repeat figure 5 of Lian and Liu (2019): CIFAR-10 in batches of at most three labels."""

from __future__ import annotations

from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.experiments.objective import lian_setup
from bnlib.samplers import MaxLabelsPerBatch
from bnlib.schedules import StepDecay, lian_figure_5_alpha
from bnlib.sweep import Run

EPOCHS = {"quick": 120, "paper": 60}
DECAY = {scale: StepDecay(every=epochs / 3, factor=0.2) for scale, epochs in EPOCHS.items()}


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return the runs of each network with each norm."""
    settings = {
        "batch_size": 64,
        "lr": 0.01,
        "optimiser": lian_setup.MOMENTUM[0.9],
        "batches": MaxLabelsPerBatch(3),
        "epochs": EPOCHS[scale],
    }
    settings["schedule"] = DECAY[scale]
    return lian_setup.cells(*lian_setup.cifar(scale), lian_setup.norms(lian_figure_5_alpha), **settings)


EXPERIMENT = Experiment(
    name="full_normalization.lian_figure_5",
    question="Do BN and Full Normalization learn from batches of at most three labels each?",
    source="Lian and Liu 2019, figure 5",
    axes=("network", "norm"),
    cells=cells,
)
