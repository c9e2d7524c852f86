"""Repeat figure 8 of Lian and Liu (2019): CIFAR-10 in shuffled batches."""

from __future__ import annotations

from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.experiments.objective import lian_setup
from bnlib.samplers import shuffled
from bnlib.schedules import StepDecay, lian_figure_8_alpha
from bnlib.sweep import Run

EPOCHS = {"quick": 120, "paper": 60}
DECAY = {scale: StepDecay(every=epochs / 3, factor=0.2) for scale, epochs in EPOCHS.items()}


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return the runs of each network with each norm."""
    settings = {
        "batch_size": 64,
        "lr": 0.01,
        "optimiser": lian_setup.MOMENTUM[0.9],
        "batches": shuffled,
        "epochs": EPOCHS[scale],
    }
    settings["schedule"] = DECAY[scale]
    return lian_setup.cells(*lian_setup.cifar(scale), lian_setup.norms(lian_figure_8_alpha), **settings)


EXPERIMENT = Experiment(
    name="full_normalization.lian_figure_8",
    question="Is Full Normalization as good as BN on shuffled batches of photographs?",
    source="Lian and Liu 2019, figure 8",
    axes=("network", "norm"),
    cells=cells,
)
