"""Digits in other units: all inputs multiplied by one number, with BN of the usual eps, of a tiny one, and without."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache, partial

import numpy as np

from bnlib import BatchNorm, datasets
from bnlib.datasets import Dataset
from bnlib.experiments.experiment import Experiment, Scale
from bnlib.figures import as_array
from bnlib.models import mlp
from bnlib.sweep import Run

NORMS = {"eps 1e-5": BatchNorm, "eps 1e-14": partial(BatchNorm, eps=1e-14), "no norm": None}
FACTORS = (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5)
SEEDS = {"quick": range(5), "paper": range(20)}


def multiplied(factor: float) -> Dataset:
    """The digits, each pixel times ``factor``."""
    data = datasets.load("digits")
    return replace(data, train_x=factor * data.train_x, test_x=factor * data.test_x)


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Each norm in each unit."""
    return {
        (norm, factor): [
            Run(
                partial(mlp, (64, 100, 100, 10), NORMS[norm]), partial(multiplied, factor), 32, 0.1, seed,
                epochs=10, points=5,
            )
            for seed in SEEDS[scale]
        ]
        for norm, factor in itertools.product(NORMS, FACTORS)
    }  # fmt: skip


EXPERIMENT = Experiment(
    name="units",
    question="From which unit of the inputs on is their variation taken for nothing?",
    source="'Why is my BN failing?', the chapter",
    axes=("norm", "factor"),
    cells=cells,
    curves=("train_loss", "test_error"),
)


@cache
def errors() -> dict[tuple, np.ndarray]:
    """The test error at the end for each seed, by norm and factor."""
    return {cell: as_array(row["test_error"])[:, -1] for cell, row in EXPERIMENT.load("quick").items()}
