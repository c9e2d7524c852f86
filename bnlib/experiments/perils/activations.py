"""Train deep networks with activations that are flat nowhere, with and without BN, on digits."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial

from torch import nn

from bnlib import BatchNorm, datasets
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.smoothness.lp_norms import train
from bnlib.models import mlp

ACTIVATIONS = {"ReLU": nn.ReLU, "LeakyReLU": nn.LeakyReLU, "SELU": nn.SELU}
INITIALISATIONS = {
    "ReLU": nn.init.kaiming_normal_,
    "LeakyReLU": partial(nn.init.kaiming_normal_, a=0.01),
    "SELU": partial(nn.init.kaiming_normal_, nonlinearity="linear"),
}
"""The initialisation that each activation was made for."""
NORMS = {"batch norm": BatchNorm, "without normalisation": None}
LEARNING_RATES = (0.01, 0.03, 0.1, 0.3)
SIZES, BATCH_SIZE, EPOCHS = (64, *[64] * 8, 10), 32, 10
SEEDS = {"quick": range(3), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return each activation with and without BN at each learning rate."""
    return {cell: SEEDS[scale] for cell in itertools.product(ACTIVATIONS, NORMS, LEARNING_RATES)}


def measure(activation: str, norm: str, lr: float, *, seed: int, device: str) -> dict[str, float]:
    """Train eight hidden layers by SGD.

    Returns:
        ``train_loss``, in nats, and ``test_error``, both in eval mode at the end; nan and 1 if the run diverged.
    """
    data = datasets.load("digits").to(device)
    made = {"activation": ACTIVATIONS[activation], "init": INITIALISATIONS[activation]}
    return train(mlp(SIZES, NORMS[norm], seed=seed, **made).to(device), data, BATCH_SIZE, lr, EPOCHS, seed)


EXPERIMENT = Measurement(
    name="perils.activations",
    question="Is BN of use in a deep network whose activation is flat nowhere?",
    source="Irpan 2017, comment of M. Görner",
    axes=("activation", "norm", "lr"),
    cells=cells,
    measure=measure,
)
