"""Train the network of ``batch_sizes`` with five more norms, most of them published later.

The settings are those of ``batch_sizes``, with five seeds, and with five learning rates that move with the batch size,
so that the best one lies inside. The norms are trained on shuffled batches of all sizes and on 64 images of one label.
Ghost Batch Norm has virtual batches of 16. In batches of up to 16 it is batch norm, so only larger ones are trained.
FRN and EvoNorm-S0 contain their activation, and no ReLU follows them.
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
SEEDS = {"quick": range(5), "paper": range(10)}


def model(norm: str, *, seed: int) -> nn.Sequential:
    """Build the network with one of ``NORMS``."""
    return mlp(batch_sizes.SIZES, NORMS[norm], init=nn.init.kaiming_normal_, seed=seed)


def trained(norm: str, construction: str, batch_size: int) -> bool:
    """Tell whether the cell was trained."""
    larger = norm != "Ghost BN" or batch_size > VIRTUAL_BATCH_SIZE
    return larger and (construction == "shuffled" or (construction == "one label" and batch_size == 64))


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return each norm with the constructions of batches at each batch size and learning rate."""
    chosen = [
        (norm, construction, batch_size, lr)
        for norm in NORMS
        for construction in batch_sizes.CONSTRUCTIONS
        for batch_size, rates in LEARNING_RATES.items()
        for lr in rates
        if trained(norm, construction, batch_size)
    ]
    settings = batch_sizes.CONSTRUCTIONS, batch_sizes.EPOCHS, batch_sizes.POINTS, SEEDS[scale]
    return batch_sizes.runs(chosen, model, *settings)


EXPERIMENT = Experiment(
    name="alternatives.newer_norms",
    question="How do Ghost BN, RMSNorm, FRN, EvoNorm-S0 and dynamic tanh train at which batch size?",
    source="the settings of alternatives.batch_sizes",
    axes=("norm", "construction", "batch_size", "lr"),
    cells=cells,
    curves=("test_error",),
)
