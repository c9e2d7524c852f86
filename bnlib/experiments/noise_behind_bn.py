"""Noise behind BN: activations that shift from step to step on purpose, and networks that learn all the same or not.

Santurkar et al. (2018) put noise behind the BN layers of a VGG network on CIFAR-10, with shift 0.5, scale 1.25 and
spread 0.1, and found that it still trains as well as with BN alone, and better than without BN. The same noise in the
network without BN is the control; there it meets activations of another size.
"""

from __future__ import annotations

import itertools
from functools import cache, partial

import numpy as np
from torch import nn

from bnlib import ActivationNoise, BatchNorm, NoisyBatchNorm
from bnlib.experiments.experiment import Experiment, Scale
from bnlib.models import mlp, vgg
from bnlib.sweep import Run

SIZES = {"4 layers": (64, 100, 100, 100, 10), "9 layers": (64, *[100] * 8, 10)}
SHIFTS, SCALES = (0.0, 0.5, 1.0, 2.0), (1.0, 1.25, 2.0, 3.0)
"""Strengths of the noise: the largest mean, and the largest mean factor."""
PUBLISHED = 0.5, 1.25
SEEDS = {"quick": range(5), "paper": range(3)}
BATCH_SIZE, LEARNING_RATE, EPOCHS = 64, 0.1, 20


def noise(channels: int, shift: float, scale: float) -> nn.Module:
    """The control: noise alone, where BN would be."""
    return ActivationNoise(shift, scale)


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Networks with BN and without, with noise behind BN and without BN; at paper scale VGG and the published noise."""
    if scale == "paper":
        return _published()
    norms: dict[tuple, object] = {("BN", 0.0, 1.0): BatchNorm, ("none", 0.0, 1.0): None}
    for strength in itertools.product(SHIFTS, SCALES):
        if strength != (0.0, 1.0):
            shift, factor = strength
            norms["BN, noise", *strength] = partial(NoisyBatchNorm, shift=shift, scale=factor)
            norms["noise", *strength] = partial(noise, shift=shift, scale=factor)
    return {
        (network, *cell): [
            Run(partial(mlp, sizes, norm), "digits", BATCH_SIZE, LEARNING_RATE, seed, epochs=EPOCHS, points=10)
            for seed in SEEDS[scale]
        ]
        for (network, sizes), (cell, norm) in itertools.product(SIZES.items(), norms.items())
    }


def _published() -> dict[tuple, list[Run]]:
    """Those of the source: VGG on CIFAR-10, 15,000 steps of 128 pictures at a learning rate of 0.1."""
    shift, factor = PUBLISHED
    norms: dict[tuple, object] = {("BN", 0.0, 1.0): BatchNorm, ("none", 0.0, 1.0): None}
    norms["BN, noise", shift, factor] = partial(NoisyBatchNorm, shift=shift, scale=factor)
    norms["noise", shift, factor] = partial(noise, shift=shift, scale=factor)
    return {
        ("vgg", *cell): [
            Run(partial(vgg, norm=norm), "cifar10", 128, LEARNING_RATE, seed, epochs=39) for seed in SEEDS["paper"]
        ]
        for cell, norm in norms.items()
    }


EXPERIMENT = Experiment(
    name="noise_behind_bn",
    question="Does a network with BN still learn if noise makes its normalised activations shift from step to step?",
    source="Santurkar et al. 2018, figure 2",
    axes=("network", "norm", "shift", "scale"),
    cells=cells,
    curves=("train_loss", "test_error"),
)


@cache
def load() -> dict[tuple, dict]:
    """The committed result."""
    return EXPERIMENT.load("quick")


def lookup(shift: float, scale: float) -> dict[str, dict[str, dict]]:
    """For each network the committed curves with noise of this strength, between those without noise."""
    rows = load()
    noisy = {"BN, noise", "noise"} if (shift, scale) != (0.0, 1.0) else set()
    return {
        network: {
            name: rows[network, name, *((shift, scale) if name in noisy else (0.0, 1.0))]
            for name in ("BN", "BN, noise", "none", "noise")
            if name in noisy or name in ("BN", "none")
        }
        for network in SIZES
    }


def ends(network: str, norm: str, shift: float = 0.0, scale: float = 1.0, curve: str = "train_loss") -> np.ndarray:
    """The last value of each seed."""
    return np.array([run[-1] for run in load()[network, norm, shift, scale][curve]], dtype=float)
