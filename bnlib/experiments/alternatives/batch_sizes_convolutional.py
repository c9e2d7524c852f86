"""Train a small convolutional network on digits with each norm of activations, instance norm among them.

Even in a batch of one image, a channel has as many values as there are positions: 64, 16 and 4 here. All runs are
compared after equal numbers of steps. The initial weights (He et al.) are the same for all norms.
"""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import torch
from torch import nn

from bnlib.experiments.alternatives import batch_sizes
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.models import small_cnn
from bnlib.samplers import shuffled, single_label
from bnlib.sweep import Run

WIDTH = 8
"""Channels of the first convolution; the next two have 2 and 4 times as many."""
NORMS = {
    name: batch_sizes.NORMS[name]
    for name in (
        "without normalisation",
        "batch norm",
        "Full Norm",
        "Batch Renorm",
        "layer norm",
        "group norm",
    )
} | {"instance norm": "instance_norm"}
NEWER_NORMS = {"FRN": "filter_response_norm", "EvoNorm-S0": "evonorm_s0"}
"""The norms of ``newer_norms_convolutional``."""
CONSTRUCTIONS = {"shuffled": shuffled, "one label": single_label}
EPOCHS = {1: 1, 16: 4}
POINTS = {1: 4, 16: 4}
BATCH_SIZES = tuple(EPOCHS)
COMPARED_EPOCHS = {1: 0.25, 16: 4.0}
"""Epochs after which runs are compared; all have then made 356 or 359 steps."""
LEARNING_RATES = (0.03, 0.1, 0.3)
SEEDS = {"quick": range(3), "paper": range(10)}


def model(norm: str, *, seed: int) -> nn.Sequential:
    """Build the network with one of ``NORMS`` or ``NEWER_NORMS``."""
    network = small_cnn(norm=(NORMS | NEWER_NORMS)[norm], width=WIDTH, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in network:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                weight = nn.init.kaiming_normal_(torch.empty_like(layer.weight))
                # A parametrised weight is set through its parametrisation.
                layer.weight = nn.Parameter(weight) if "weight" in layer._parameters else weight
    return network


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return each norm with both constructions of batches at each batch size and learning rate."""
    grid = itertools.product(NORMS, CONSTRUCTIONS, BATCH_SIZES, LEARNING_RATES)
    chosen = [cell for cell in grid if cell[2] > 1 or cell[1] == "shuffled"]
    return batch_sizes.runs(chosen, model, CONSTRUCTIONS, EPOCHS, POINTS, SEEDS[scale])


EXPERIMENT = Experiment(
    name="alternatives.batch_sizes_convolutional",
    question="Which normalisation trains a convolutional network at which batch size, and on batches of one label?",
    source="Wu and He 2018, Group Normalization, figure 1, at the scale of digits",
    axes=("norm", "construction", "batch_size", "lr"),
    cells=cells,
    curves=("test_error",),
)


@cache
def load() -> dict[tuple, dict]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def compared_checkpoint(batch_size: int, *, end: bool = False) -> int:
    """Return the number of the checkpoint at which runs are compared: after equal steps, or at the ``end``."""
    when = EPOCHS[batch_size] if end else COMPARED_EPOCHS[batch_size]
    return round(when * POINTS[batch_size] / EPOCHS[batch_size])


def errors(norm: str, construction: str, batch_size: int, *, end: bool = False) -> np.ndarray:
    """Return test errors (shares) of shape (learning rates, seeds), after equal steps or at the ``end`` of the runs.

    Choose a row with ``batch_sizes.best_learning_rate``. At batch size 1 the end is after one epoch, 1437 steps.
    """
    point = compared_checkpoint(batch_size, end=end)
    rows = [load()[norm, construction, batch_size, lr]["test_error"] for lr in LEARNING_RATES]
    return np.array([[batch_sizes.error_at(run, point) for run in row] for row in rows])


def best_errors(norm: str, construction: str, batch_size: int, *, end: bool = False) -> np.ndarray:
    """Return the test errors at the best learning rate in per cent, one number per seed; see ``errors``."""
    table = errors(norm, construction, batch_size, end=end)
    return 100 * table[batch_sizes.best_learning_rate(table)]


def error_rows() -> list[dict]:
    """Return the test errors at the best learning rate (%), one number per seed, by norm and batches."""
    columns = {
        ("1 image", "359 steps"): ("shuffled", 1, False),
        ("1 image", "an epoch"): ("shuffled", 1, True),
        ("16 images, 356 steps", "shuffled"): ("shuffled", 16, False),
        ("16 images, 356 steps", "one label"): ("one label", 16, False),
    }
    return [
        {"norm": norm}
        | {
            header: best_errors(norm, construction, size, end=end)
            for header, (construction, size, end) in columns.items()
        }
        for norm in NORMS
    ]
