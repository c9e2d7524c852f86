"""Repeat figure 2 of Lian and Liu (2019): train for ten epochs at many batch sizes.

The batch size changes the noise of the batch statistics, the noise of SGD and the number of steps. The networks without
normalisation and with Full Normalization are controls: for them only the last two change. The paper states no learning
rate.
"""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np

from bnlib import BatchNorm, FullNorm
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.experiments.objective import lian_setup
from bnlib.models import resnet18, small_cnn
from bnlib.sweep import Run

BATCH_SIZES = {"quick": (2, 4, 8, 16, 32, 64, 128), "paper": (4, 8, 16, 32, 64, 128, 256, 512)}
LEARNING_RATES = (0.01, 0.1)
EPOCHS = 10
NORMS = {"BN": BatchNorm, "FN, default": FullNorm, "without normalisation": None}
NETWORKS = {"quick": ("digits", small_cnn), "paper": ("cifar10", resnet18)}


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return each norm at each batch size and learning rate."""
    data, network = NETWORKS[scale]
    return {
        (norm, batch_size, lr): [
            Run(partial(network, norm=NORMS[norm]), data, batch_size, lr, seed, epochs=EPOCHS, checkpoints=10)
            for seed in lian_setup.SEEDS
        ]
        for norm, batch_size, lr in itertools.product(NORMS, BATCH_SIZES[scale], LEARNING_RATES)
    }


EXPERIMENT = Experiment(
    name="objective.lian_figure_2",
    question="Does a network with BN have more errors with smaller batches, and is BN the reason?",
    source="Lian and Liu 2019, figure 2",
    axes=("norm", "batch size", "learning rate"),
    cells=cells,
)


def final_test_errors(norm: str, batch_size: int, lr: float, scale: Scale = "quick") -> np.ndarray:
    """Return the test errors after the last epoch in per cent, one number per seed."""
    return 100 * np.array([run[-1] for run in EXPERIMENT.load(scale)[norm, batch_size, lr]["test_error"]], dtype=float)


def errors_by_batch_size_rows(lr: float, scale: Scale = "quick") -> list[dict]:
    """Return the test errors after the last epoch (%) with BN and Full Normalization at one rate, by batch size."""
    titles = {"BN": "BN", "FN, default": "Full Normalization"}
    return [
        {"batch size": batch_size}
        | {title: final_test_errors(norm, batch_size, lr, scale) for norm, title in titles.items()}
        for batch_size in BATCH_SIZES[scale]
    ]
