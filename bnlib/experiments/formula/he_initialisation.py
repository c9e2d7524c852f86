"""Repeat the grid of ``training_curves`` with He initialisation, and compare the two.

``training_curves`` starts from PyTorch's default weights, which are smaller than those that He et al. (2015) derived
for ReLU. Without normalisation a network then starts with small activations and small gradients. Batches of 1 and 2 are
left out here: they need three quarters of all steps.
"""

from __future__ import annotations

import itertools
from functools import cache, partial

import numpy as np
from torch import nn

from bnlib.experiments.formula import training_curves
from bnlib.experiments.formula.training_curves import LAYER_SIZES, LEARNING_RATES, NORMS, SEEDS
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.models import mlp
from bnlib.sweep import Run

INITS = ("PyTorch default", "He")
BATCH_SIZES = (4, 8, 16, 32, 64, 128, 256)
LARGEST_ERROR = 0.06
"""A learning rate works if the median test error is at most this."""


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return the runs of ``training_curves.cells`` at ``BATCH_SIZES``, but with He initialisation."""
    return {
        (norm, batch_size, lr): [
            Run(
                partial(mlp, LAYER_SIZES, NORMS[norm], init=nn.init.kaiming_normal_),
                "digits",
                batch_size,
                lr,
                seed,
                checkpoints=10,
            )
            for seed in SEEDS[scale]
        ]
        for norm, batch_size, lr in itertools.product(NORMS, BATCH_SIZES, LEARNING_RATES)
    }


EXPERIMENT = Experiment(
    name="formula.he_initialisation",
    question="At which batch sizes and learning rates does a small network learn from He initialisation?",
    source="chapter 1",
    axes=("norm", "batch_size", "lr"),
    cells=cells,
    curves=("train_loss", "test_error"),
)


@cache
def load() -> dict[tuple[str, int, float], dict]:
    """Load the committed result with He initialisation, as ``training_curves.load``."""
    return EXPERIMENT.load("quick")


def grid() -> dict[tuple[str, int, float], dict]:
    """Return the cells of both initialisations, keyed by ("NORM, INITIALISATION", batch size, learning rate)."""
    return {
        (f"{norm}, {init}", *setting): row
        for norm, (init, rows) in itertools.product(NORMS, zip(INITS, (training_curves.load(), load()), strict=True))
        for (each, *setting), row in rows.items()
        if each == norm
    }


def final_test_errors(init: str, norm: str, batch_size: int, lr: float) -> np.ndarray:
    """Return the test error of each seed after the last epoch, between 0 and 1, shape (5,)."""
    return np.array([run[-1] for run in grid()[f"{norm}, {init}", batch_size, lr]["test_error"]])


def best_learning_rate(init: str, norm: str, batch_size: int) -> float:
    """Return the learning rate with the lowest median test error, the smallest of several."""
    return min(LEARNING_RATES, key=lambda lr: float(np.median(final_test_errors(init, norm, batch_size, lr))))


def errors_at_best_rate(init: str, norm: str, batch_size: int) -> np.ndarray:
    """Return the test error of each seed at ``best_learning_rate``, shape (5,)."""
    return final_test_errors(init, norm, batch_size, best_learning_rate(init, norm, batch_size))


def working_learning_rates(init: str, norm: str, batch_size: int = 32) -> list[float]:
    """Return the learning rates at which the median test error is at most ``LARGEST_ERROR``."""
    return [lr for lr in LEARNING_RATES if np.median(final_test_errors(init, norm, batch_size, lr)) <= LARGEST_ERROR]


def lowest_error_rows() -> list[dict]:
    """Return the test errors at the best learning rate in per cent, a row per batch size, a column per network."""
    columns = list(itertools.product(NORMS, INITS))
    return [
        {"batch size": str(size)}
        | {
            (norm, init): None
            if init == "He" and size not in BATCH_SIZES
            else 100 * errors_at_best_rate(init, norm, size)
            for norm, init in columns
        }
        for size in training_curves.BATCH_SIZES
    ]
