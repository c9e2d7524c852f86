"""Train a small network on digits with and without BN, over a grid of batch sizes and learning rates."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from functools import cache, partial

import numpy as np
import torch

from bnlib import BatchNorm
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.models import mlp
from bnlib.sweep import Run

LAYER_SIZES = (64, 100, 100, 10)
NORMS = {"batch norm": BatchNorm, "without normalisation": None}
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LEARNING_RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SEEDS = {"quick": range(5), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return the runs with and without BN at each batch size and learning rate."""
    return {
        (norm, batch_size, lr): [
            Run(partial(mlp, LAYER_SIZES, NORMS[norm]), "digits", batch_size, lr, seed) for seed in SEEDS[scale]
        ]
        for norm, batch_size, lr in itertools.product(NORMS, BATCH_SIZES, LEARNING_RATES)
    }


EXPERIMENT = Experiment(
    name="formula.training_curves",
    question="At which batch sizes and learning rates does a small network learn, with BN and without?",
    source="chapter 1",
    axes=("norm", "batch_size", "lr"),
    cells=cells,
    curves=("train_loss", "test_error"),
)


@cache
def load() -> dict[tuple[str, int, float], dict]:
    """Load the committed result: the curves of all seeds by (norm, batch size, learning rate).

    Raises:
        FileNotFoundError: the result is missing; the message says how to make it.
    """
    return EXPERIMENT.load("quick")


def lookup(batch_size: int, lr: float) -> dict[str, dict]:
    """Return the committed curves at one batch size and learning rate by norm, for ``figures.draw_training_curves``."""
    return {norm: load()[norm, batch_size, lr] for norm in NORMS}


def final_test_errors(norm: str, batch_size: int, lr: float) -> np.ndarray:
    """Return the test error of each seed after the last epoch, between 0 and 1, shape (5,)."""
    return np.array([run[-1] for run in load()[norm, batch_size, lr]["test_error"]])


def working_learning_rates(norm: str, batch_size: int = 32, largest_error: float = 0.06) -> list[float]:
    """Return the learning rates at which the median test error after ten epochs is at most ``largest_error``."""
    return [lr for lr in LEARNING_RATES if np.median(final_test_errors(norm, batch_size, lr)) <= largest_error]


def lowest_median_error(norm: str, batch_sizes: Iterable[int]) -> float:
    """Return the lowest median test error over these batch sizes and all learning rates."""
    return min(
        float(np.median(final_test_errors(norm, *cell))) for cell in itertools.product(batch_sizes, LEARNING_RATES)
    )


def train(
    batch_size: int, lr: float, device: torch.device | str | None = None
) -> Iterator[tuple[int, int, dict[str, dict]]]:
    """Train both networks now at one batch size and learning rate, with a new seed; see ``Experiment.live``."""
    return EXPERIMENT.live({norm: (norm, batch_size, lr) for norm in NORMS}, lookup(batch_size, lr), device)
