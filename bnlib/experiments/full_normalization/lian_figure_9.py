"""Repeat figure 9 of Lian and Liu (2019): MNIST, each sample times a random number, at batch sizes 1 and 16.

The paper does not say whether the numbers are drawn once or in every epoch, nor whether the test set is multiplied.
Here they are drawn once, for the training set and the test set.
"""

from __future__ import annotations

from functools import partial

from bnlib.datasets import randomly_scaled
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.experiments.objective import lian_setup
from bnlib.reference import ORACLES
from bnlib.schedules import lian_figure_4_alpha
from bnlib.sweep import Run

BATCH_SIZES = (1, 16)
EPOCHS = {"quick": 10, "paper": 1}


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return the runs of each network with each norm at each batch size."""
    name, networks = lian_setup.mnist(scale)
    settings = {"lr": 0.01, "optimiser": lian_setup.MOMENTUM[0.5], "epochs": EPOCHS[scale]}
    made = {}
    for batch_size in BATCH_SIZES:
        oracles = [oracle for oracle in ORACLES if batch_size > 1 or oracle != "leave_one_out"]
        runs = lian_setup.cells(
            partial(randomly_scaled, name),
            networks,
            lian_setup.norms(lian_figure_4_alpha, oracles),
            batch_size=batch_size,
            **settings,
        )
        made |= {(*cell, batch_size): each for cell, each in runs.items()}
    return made


EXPERIMENT = Experiment(
    name="full_normalization.lian_figure_9",
    question="Do BN and Full Normalization end at the same error at batch sizes 1 and 16?",
    source="Lian and Liu 2019, figure 9",
    axes=("network", "norm", "batch size"),
    cells=cells,
)
