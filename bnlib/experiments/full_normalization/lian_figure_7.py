"""Repeat figure 7 of Lian and Liu (2019): MNIST in shuffled batches."""

from __future__ import annotations

from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.experiments.objective import lian_setup
from bnlib.samplers import shuffled
from bnlib.schedules import lian_figure_4_alpha
from bnlib.sweep import Run

EPOCHS = {"quick": 100, "paper": 3}


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return the runs of each network with each norm."""
    settings = {
        "batch_size": 64,
        "lr": 0.01,
        "optimiser": lian_setup.MOMENTUM[0.5],
        "batches": shuffled,
        "epochs": EPOCHS[scale],
    }
    return lian_setup.cells(*lian_setup.mnist(scale), lian_setup.norms(lian_figure_4_alpha), **settings)


EXPERIMENT = Experiment(
    name="full_normalization.lian_figure_7",
    question="Is Full Normalization as good as BN on shuffled batches?",
    source="Lian and Liu 2019, figure 7",
    axes=("network", "norm"),
    cells=cells,
)
