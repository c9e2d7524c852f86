"""Train the networks with BN of figure 4 of Lian and Liu (2019) for four times as many epochs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from bnlib import BatchNorm
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.experiments.full_normalization import lian_figure_4
from bnlib.experiments.objective import lian_setup
from bnlib.samplers import single_label
from bnlib.sweep import Run

FACTOR, CHECKPOINTS = 4, 40


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return the runs of each network with BN, in batches of one label; the settings are those of figure 4."""
    settings = {
        "batch_size": 64,
        "lr": 0.01,
        "optimiser": lian_setup.MOMENTUM[0.5],
        "batches": single_label,
        "epochs": FACTOR * lian_figure_4.EPOCHS[scale],
        "checkpoints": CHECKPOINTS,
    }
    runs = lian_setup.cells(*lian_setup.mnist(scale), {"BN": BatchNorm}, **settings)
    return {(network,): each for (network, _), each in runs.items()}


EXPERIMENT = Experiment(
    name="full_normalization.lian_figure_4_longer",
    question="Does BN learn from batches of one label each if it trains longer?",
    source="Lian and Liu 2019, figure 4",
    axes=("network",),
    cells=cells,
    curves=("train_loss", "test_error"),
)


@cache
def load() -> dict[tuple, dict]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def values_after(network: str, epochs: int, curve: str) -> np.ndarray:
    """Return the value of a curve after so many epochs for each seed; errors in per cent.

    Raises:
        ValueError: there is no checkpoint after ``epochs``.
    """
    total = FACTOR * lian_figure_4.EPOCHS["quick"]
    if epochs not in range(0, total + 1, total // CHECKPOINTS):
        raise ValueError(f"epochs must be a multiple of {total // CHECKPOINTS} up to {total}, got {epochs}")
    place = epochs * CHECKPOINTS // total
    values = np.array([run[place] for run in load()[network,][curve]], dtype=float)
    return 100 * values if curve.endswith("error") else values


def longer_training_rows(epochs: Sequence[int] = (100, 200, 400)) -> list[dict]:
    """Return training loss (nats) and test error (%) with BN after so many epochs, a row per network."""
    return [
        {"network": network}
        | {
            (name, f"{each} epochs"): values_after(network, each, curve)
            for name, curve in (("training loss (nats)", "train_loss"), ("test error (%)", "test_error"))
            for each in epochs
        }
        for (network,) in load()
    ]
