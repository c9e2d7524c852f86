"""Repeat figure 3 of Lian and Liu (2019) with BN after the linear layer, where it normalises the logits.

Equation (1) of the paper normalises the inputs of a linear layer, as ``lian_figure_3`` does; the network of the paper's
own figure 1 has BN after the linear layer. The settings are those of ``lian_figure_3``, with more test samples,
because one error among 100 is a whole point.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from torch import nn

from bnlib import BatchNorm
from bnlib.datasets import wide_variation
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.experiments.objective import lian_setup
from bnlib.experiments.objective.lian_figure_3 import BATCH_SIZE, EPOCHS, LEARNING_RATES, SIZES
from bnlib.models import logistic_regression
from bnlib.sweep import Run

TESTS = 2_000
RATES: dict[Scale, tuple[float, ...]] = {"quick": LEARNING_RATES, "paper": (0.1,)}
"""Learning rates by scale; at the paper's scale the best one of the quick scale."""


def logistic_regression_norm_last(num_classes: int, norm: Callable[[int], nn.Module], *, seed: int) -> nn.Sequential:
    """Build a logistic regression on as many inputs as classes, with a normalisation of the logits."""
    return nn.Sequential(*logistic_regression(num_classes, num_classes, seed=seed), norm(num_classes))


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return the runs at each learning rate with BN after the linear layer."""
    num_classes, num_train, _ = SIZES[scale]
    model = partial(logistic_regression_norm_last, num_classes, BatchNorm)
    data = partial(wide_variation, num_classes, num_train, TESTS)
    return {
        (lr,): [Run(model, data, BATCH_SIZE, lr, seed, epochs=EPOCHS) for seed in lian_setup.SEEDS]
        for lr in RATES[scale]
    }


EXPERIMENT = Experiment(
    name="objective.lian_figure_3_norm_last",
    question="Does BN behind the linear layer prevent logistic regression from converging on data of large variation?",
    source="Lian and Liu 2019, figure 3",
    axes=("learning rate",),
    cells=cells,
)


def final_errors(lr: float, curve: str, scale: Scale = "paper") -> np.ndarray:
    """Return the last value of ``"train_error"`` or ``"test_error"`` in per cent, one number per seed."""
    return 100 * np.array([run[-1] for run in EXPERIMENT.load(scale)[lr,][curve]], dtype=float)
