"""Batch size and learning rate on digits, with and without BN: the grid behind chapter 1."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache, partial

import numpy as np
import torch

from bnlib import BatchNorm
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.models import mlp
from bnlib.sweep import Run

SIZES = (64, 100, 100, 10)
NORMS = {"batch norm": BatchNorm, "without normalisation": None}
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LEARNING_RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SEEDS = {"quick": range(5), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """The network with and without BN at each batch size and learning rate."""
    return {
        (norm, batch_size, lr): [
            Run(partial(mlp, SIZES, NORMS[norm]), "digits", batch_size, lr, seed) for seed in SEEDS[scale]
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
    """The committed grid: for (norm, batch size, learning rate) the curves of all seeds.

    Raises:
        FileNotFoundError: the result is not there; the message says how to make it.
    """
    return EXPERIMENT.load("quick")


def lookup(batch_size: int, lr: float) -> dict[str, dict]:
    """The committed curves at one position of the grid, one entry a norm, as ``figures.draw_training`` takes them."""
    return {norm: load()[norm, batch_size, lr] for norm in NORMS}


def errors(norm: str, batch_size: int, lr: float) -> np.ndarray:
    """Test error of each seed after the last epoch, shape (5,)."""
    return np.array([run[-1] for run in load()[norm, batch_size, lr]["test_error"]])


def train(
    batch_size: int, lr: float, device: torch.device | str | None = None
) -> Iterator[tuple[int, int, dict[str, dict]]]:
    """Train the networks of one position for real, to be drawn beside the grid; see ``Experiment.live``."""
    return EXPERIMENT.live({norm: (norm, batch_size, lr) for norm in NORMS}, lookup(batch_size, lr), device)
