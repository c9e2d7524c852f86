"""Train deep networks of sigmoid units, which saturate, with and without BN, on digits."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np
from torch import nn

from bnlib import BatchNorm, datasets
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.smoothness.lp_norms import train
from bnlib.models import mlp

NORMS = {"batch norm": BatchNorm, "without normalisation": None}
INITS = {"PyTorch default": None, "Xavier": nn.init.xavier_normal_}
DEPTHS = (3, 6)
LEARNING_RATES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
WIDTH, BATCH_SIZE, EPOCHS = 50, 32, 10
SEEDS = {"quick": range(3), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return each depth and initialisation with and without BN at each learning rate."""
    return {cell: SEEDS[scale] for cell in itertools.product(DEPTHS, INITS, NORMS, LEARNING_RATES)}


def measure(depth: int, init: str, norm: str, lr: float, *, seed: int, device: str) -> dict[str, float]:
    """Train ``depth`` hidden layers of sigmoid units by SGD.

    Returns:
        ``train_loss``, in nats, and ``test_error``, both in eval mode at the end; nan and 1 if the run diverged.
    """
    data = datasets.load("digits").to(device)
    sizes = (64, *[WIDTH] * depth, 10)
    model = mlp(sizes, NORMS[norm], activation=nn.Sigmoid, init=INITS[init], seed=seed).to(device)
    return train(model, data, BATCH_SIZE, lr, EPOCHS, seed)


EXPERIMENT = Measurement(
    name="formula.sigmoid_networks",
    question="Does BN make deep networks of sigmoid units trainable?",
    source="Ioffe and Szegedy 2015, abstract",
    axes=("depth", "init", "norm", "lr"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def best_test_errors(depth: int, norm: str) -> tuple[str, float, np.ndarray]:
    """Return initialisation and learning rate with the lowest median test error, and the errors (%), one per seed."""
    errors = {
        (init, lr): 100 * load()[depth, init, norm, lr]["test_error"]
        for init, lr in itertools.product(INITS, LEARNING_RATES)
    }
    init, lr = min(errors, key=lambda setting: np.median(errors[setting]))
    return init, lr, errors[init, lr]
