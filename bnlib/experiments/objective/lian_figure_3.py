"""Repeat figure 3 of Lian and Liu (2019): logistic regression on data of large variation.

The paper states no learning rate. The quick scale has a tenth of the samples, of the features and of the classes.
"""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np

from bnlib import BatchNorm, FullNorm
from bnlib.datasets import wide_variation
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.experiments.objective import lian_setup
from bnlib.models import logistic_regression
from bnlib.sweep import Run

BATCH_SIZE, EPOCHS = 20, 20
LEARNING_RATES = (0.01, 0.1, 1.0)
NORMS = {"BN": BatchNorm, "FN, default": FullNorm, "without normalisation": None}
SIZES = {"quick": (100, 1_000, 1_000), "paper": (1_000, 10_000, 100)}
"""Number of classes, of training samples and of test samples, by scale; the paper has 100 test samples."""


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return each norm at each learning rate."""
    num_classes, num_train, num_test = SIZES[scale]
    data = partial(wide_variation, num_classes, num_train, num_test)
    return {
        (norm, lr): [
            Run(
                partial(logistic_regression, num_classes, num_classes, NORMS[norm]),
                data,
                BATCH_SIZE,
                lr,
                seed,
                epochs=EPOCHS,
            )
            for seed in lian_setup.SEEDS
        ]
        for norm, lr in itertools.product(NORMS, LEARNING_RATES)
    }


EXPERIMENT = Experiment(
    name="objective.lian_figure_3",
    question="Does BN prevent logistic regression from converging on data of large variation?",
    source="Lian and Liu 2019, figure 3",
    axes=("norm", "learning rate"),
    cells=cells,
)


def final_errors(norm: str, lr: float, curve: str, scale: Scale = "paper") -> np.ndarray:
    """Return the last value of ``"train_error"`` or ``"test_error"`` in per cent, one number per seed."""
    return 100 * np.array([run[-1] for run in EXPERIMENT.load(scale)[norm, lr][curve]], dtype=float)
