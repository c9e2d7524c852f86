"""Train BN and Full Normalization on digits in batches with one to ten different labels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache, partial

import numpy as np
import torch

from bnlib import BatchNorm, FullNorm
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.models import mlp
from bnlib.samplers import MaxLabelsPerBatch
from bnlib.sweep import Run

SIZES = (64, 100, 100, 10)
NORMS = {"batch norm": BatchNorm, "FN, same batch": partial(FullNorm, oracle="batch"), "FN, running": FullNorm}
LABELS = (1, 2, 3, 5, 10)
EPOCHS = {4: 5, 16: 10, 64: 30}
"""Passes over the training set for each batch size: more where a pass has fewer steps."""
BATCH_SIZES = tuple(EPOCHS)
LEARNING_RATES = (0.03, 0.1, 0.3)
SEEDS = {"quick": range(3), "paper": range(10)}


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return the runs of each norm at each number of labels, batch size and learning rate."""
    return {
        (norm, labels, batch_size, lr): [
            Run(
                partial(mlp, SIZES, NORMS[norm]), "digits", batch_size, lr, seed,
                epochs=EPOCHS[batch_size], checkpoints=10, batches=MaxLabelsPerBatch(labels),
            )
            for seed in SEEDS[scale]
        ]
        for norm, labels, batch_size, lr in itertools.product(NORMS, LABELS, BATCH_SIZES, LEARNING_RATES)
    }  # fmt: skip


EXPERIMENT = Experiment(
    name="full_normalization.labels_per_batch",
    question="How many labels must a batch have for BN to learn, and for Full Normalization?",
    source="Lian and Liu 2019, section 6.2, between the extremes",
    axes=("norm", "labels", "batch_size", "lr"),
    cells=cells,
    curves=("train_loss", "test_error"),
)


@cache
def load() -> dict[tuple, dict]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def lookup(labels: int, batch_size: int, lr: float) -> dict[str, dict]:
    """Return the committed curves of each norm in one setting."""
    return {norm: load()[norm, labels, batch_size, lr] for norm in NORMS}


def train(
    labels: int, batch_size: int, lr: float, device: torch.device | str | None = None
) -> Iterator[tuple[int, int, dict[str, dict]]]:
    """Train the networks of one setting now and add their curves to the committed ones; see ``Experiment.live``."""
    return EXPERIMENT.live(
        {norm: (norm, labels, batch_size, lr) for norm in NORMS}, lookup(labels, batch_size, lr), device
    )


def error_rows(batch_size: int, lr: float) -> list[dict]:
    """Return the final test errors (%) of all seeds, a row per number of labels, a column per norm."""
    return [
        {"labels per batch": labels}
        | {norm: np.array([100 * run[-1] for run in row["test_error"]]) for norm, row in found.items()}
        for labels, found in ((labels, lookup(labels, batch_size, lr)) for labels in LABELS)
    ]
