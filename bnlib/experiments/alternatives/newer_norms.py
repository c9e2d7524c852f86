"""Train the network of ``batch_sizes`` with five more norms, most of them published later.

The settings are those of ``batch_sizes``, on shuffled batches, with five seeds, and with five learning rates that move
with the batch size, so that the best one lies inside. Every run lasts five epochs (equal samples). Ghost Batch Norm has
virtual batches of 16. In batches of up to 16 it is batch norm, so it is trained in larger ones only, and there for as
many epochs as batch norm. FRN and EvoNorm-S0 contain their activation, and no ReLU follows them.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from bnlib import GhostBatchNorm
from bnlib.experiments.alternatives import batch_sizes
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.models import mlp
from bnlib.sweep import Run

VIRTUAL_BATCH_SIZE = 16
NORMS = {
    "Ghost BN": partial(GhostBatchNorm, virtual_batch_size=VIRTUAL_BATCH_SIZE),
    "RMSNorm": "rms_norm",
    "FRN": "filter_response_norm",
    "EvoNorm-S0": "evonorm_s0",
    "dynamic tanh": "dynamic_tanh",
}
LEARNING_RATES = {
    1: (0.001, 0.003, 0.01, 0.03, 0.1),
    4: (0.003, 0.01, 0.03, 0.1, 0.3),
    16: (0.01, 0.03, 0.1, 0.3, 1.0),
    64: (0.03, 0.1, 0.3, 1.0, 3.0),
    256: (0.03, 0.1, 0.3, 1.0, 3.0),
}
"""Learning rates by batch size."""
MORE_LEARNING_RATES = {("FRN", 64): (0.01,), ("EvoNorm-S0", 16): (3.0,)}
"""Further rates for norms whose best rate would be an end of the grid, by norm and batch size."""
SEEDS = {"quick": range(5), "paper": range(10)}


def model(norm: str, *, seed: int) -> nn.Sequential:
    """Build the network with one of ``NORMS``."""
    return mlp(batch_sizes.SIZES, NORMS[norm], init=nn.init.kaiming_normal_, seed=seed)


def learning_rates(norm: str, batch_size: int) -> tuple[float, ...]:
    """Return the learning rates of a norm in rising order."""
    return tuple(sorted(LEARNING_RATES[batch_size] + MORE_LEARNING_RATES.get((norm, batch_size), ())))


def epochs(norm: str, batch_size: int) -> int:
    """Return the epochs of a run; 0 for Ghost Batch Norm where it is batch norm."""
    if norm == "Ghost BN":
        return batch_sizes.EPOCHS[batch_size] if batch_size > VIRTUAL_BATCH_SIZE else 0
    return 5


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return each norm on shuffled batches at each batch size and learning rate."""
    return {
        (norm, batch_size, lr): [
            Run(
                partial(model, norm), "digits", batch_size, lr, seed,
                epochs=epochs(norm, batch_size), checkpoints=points(norm, batch_size),
            )
            for seed in SEEDS[scale]
        ]
        for norm in NORMS
        for batch_size in LEARNING_RATES
        for lr in learning_rates(norm, batch_size)
        if epochs(norm, batch_size)
    }  # fmt: skip


def points(norm: str, batch_size: int) -> int:
    """Return the checkpoints of a run: as many per epoch as in ``batch_sizes``."""
    per_epoch = batch_sizes.POINTS[batch_size] / batch_sizes.EPOCHS[batch_size]
    return round(epochs(norm, batch_size) * per_epoch)


EXPERIMENT = Experiment(
    name="alternatives.newer_norms",
    question="How do Ghost BN, RMSNorm, FRN, EvoNorm-S0 and dynamic tanh train at which batch size?",
    source="the settings of alternatives.batch_sizes",
    axes=("norm", "batch_size", "lr"),
    cells=cells,
    curves=("test_error",),
)
