"""Train the network of ``batch_sizes`` with three norms whose statistics are averages over several batches or samples.

The settings are those of ``batch_sizes``, with five seeds, the learning rates of ``newer_norms``, and shuffled batches
of 1 to 64 or batches of 64 with one label each. The scale ``"paper"`` takes Fashion-MNIST in place of digits. Moving
Average BN and Cross-Iteration BN average over 16 and 8 batches, Online Norm over about 1,000 samples. The three use
their averages from the first steps on: with the longer warm-ups of their authors' code, most runs would end before
them.
"""

from __future__ import annotations

import itertools
from functools import cache, partial

import numpy as np
from torch import nn

from bnlib.experiments.alternatives import batch_sizes, contest, newer_norms
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.models import mlp
from bnlib.sweep import Run

NORMS = {
    "Moving Average BN": "moving_average_batch_norm",
    "Online Norm": "online_norm",
    "Cross-Iteration BN": "cross_iteration_batch_norm",
}
COMPARED = ("batch norm", "Batch Renorm", "Full Norm", "group norm", "weight standardisation + GN")
"""Norms of ``batch_sizes`` that stand beside them."""
BATCHES = (("shuffled", 1), ("shuffled", 4), ("shuffled", 16), ("shuffled", 64), ("one label", 64))
MORE_LEARNING_RATES: dict[tuple[str, str, int], tuple[float, ...]] = {}
"""Further rates for norms whose best rate would be an end of the grid."""
SEEDS = {"quick": range(5), "paper": range(10)}


DATA = {"quick": ("digits", 64), "paper": ("fashion_mnist", 784)}
"""The data set of each scale, and its number of pixels."""


def model(norm: str, pixels: int = 64, *, seed: int) -> nn.Sequential:
    """Build the network with one of ``NORMS``."""
    return mlp((pixels, *batch_sizes.SIZES[1:]), NORMS[norm], init=nn.init.kaiming_normal_, seed=seed)


def learning_rates(norm: str, construction: str, batch_size: int) -> tuple[float, ...]:
    """Return the learning rates of a norm in rising order."""
    more = MORE_LEARNING_RATES.get((norm, construction, batch_size), ())
    return tuple(sorted(newer_norms.LEARNING_RATES[batch_size] + more))


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return each norm on each kind of batches at each learning rate."""
    data, pixels = DATA[scale]
    return {
        (norm, construction, batch_size, lr): [
            Run(
                partial(model, norm, pixels), data, batch_size, lr, seed,
                epochs=batch_sizes.EPOCHS[batch_size], checkpoints=batch_sizes.POINTS[batch_size],
                batches=batch_sizes.CONSTRUCTIONS[construction],
            )
            for seed in SEEDS[scale]
        ]
        for norm, (construction, batch_size) in itertools.product(NORMS, BATCHES)
        for lr in learning_rates(norm, construction, batch_size)
    }  # fmt: skip


EXPERIMENT = Experiment(
    name="alternatives.norms_over_batches",
    question="Do norms with statistics over several batches train on small batches and on batches of one label?",
    source="the settings of alternatives.batch_sizes",
    axes=("norm", "construction", "batch_size", "lr"),
    cells=cells,
    curves=("test_error",),
)


@cache
def load() -> dict[tuple, dict]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def best_errors(norm: str, construction: str, batch_size: int, budget: str = batch_sizes.EQUAL_SAMPLES) -> np.ndarray:
    """Return the test errors at the best learning rate in per cent, one number per seed; also for ``COMPARED``."""
    if norm not in NORMS:
        return contest.best_errors(norm, construction, batch_size, budget)
    point = batch_sizes.checkpoint(budget, batch_size)
    rows = [
        load()[norm, construction, batch_size, lr]["test_error"]
        for lr in learning_rates(norm, construction, batch_size)
    ]
    table = np.array([[batch_sizes.error_at(run, point) for run in row] for row in rows])
    return 100 * table[batch_sizes.best_learning_rate(table)]


def error_rows() -> list[dict]:
    """Return the test errors (%), one number per seed, by norm and batches.

    They are those after five epochs, and for batches of one label those after 352 steps.
    """
    columns = {(f"{construction} batches", f"b = {size}"): (construction, size) for construction, size in BATCHES}
    return [
        {"norm": norm}
        | {
            header: best_errors(
                norm,
                construction,
                size,
                batch_sizes.EQUAL_STEPS if construction == "one label" else batch_sizes.EQUAL_SAMPLES,
            )
            for header, (construction, size) in columns.items()
        }
        for norm in (*NORMS, *COMPARED)
    ]
