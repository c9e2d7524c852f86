"""Repeat figure 4 of Lian and Liu (2019): MNIST in batches of one label."""

from __future__ import annotations

from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.experiments.objective import lian_setup
from bnlib.samplers import single_label
from bnlib.schedules import lian_figure_4_alpha
from bnlib.sweep import Run

EPOCHS = {"quick": 100, "paper": 3}


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return the runs of each network with each norm."""
    settings = {
        "batch_size": 64,
        "lr": 0.01,
        "optimiser": lian_setup.MOMENTUM[0.5],
        "batches": single_label,
        "epochs": EPOCHS[scale],
    }
    return lian_setup.cells(*lian_setup.mnist(scale), lian_setup.norms(lian_figure_4_alpha), **settings)


EXPERIMENT = Experiment(
    name="full_normalization.lian_figure_4",
    question="Do BN and Full Normalization learn from batches of one label each?",
    source="Lian and Liu 2019, figure 4",
    axes=("network", "norm"),
    cells=cells,
)
