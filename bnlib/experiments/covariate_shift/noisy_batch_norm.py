"""Noise behind BN: activations that shift from step to step on purpose, and networks that learn all the same or not.

Santurkar et al. (2018) put noise behind the BN layers of a VGG network on CIFAR-10, with shift 0.5, scale 1.25 and
spread 0.1, and found that it still trains as well as with BN alone, and better than without BN. The same noise in the
network without BN is the control; there it meets activations of another size.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache, partial

import numpy as np
import torch
from torch import nn

from bnlib import ActivationNoise, BatchNorm, NoisyBatchNorm
from bnlib.experiments.framework.experiment import Experiment, Scale, rounded
from bnlib.models import mlp, vgg
from bnlib.sweep import Run
from bnlib.training import best_device

SIZES = {"4 layers": (64, 100, 100, 100, 10), "9 layers": (64, *[100] * 8, 10)}
INITS = {"PyTorch default": None, "He": nn.init.kaiming_normal_}
"""Weights: torch's own for linear layers, with which a deep plain network does not get going, and He's."""
LEARNING_RATES = (0.1, 0.3)
SHIFTS, SCALES = (0.0, 0.5, 1.0, 2.0), (1.0, 1.25, 2.0)
"""Strengths of the noise: the largest mean, and the largest mean factor."""
PUBLISHED = 0.5, 1.25
SEEDS = {"quick": range(5), "paper": range(3)}
BATCH_SIZE, EPOCHS = 64, 20


def noise(channels: int, shift: float, scale: float) -> nn.Module:
    """The control: noise alone, where BN would be."""
    return ActivationNoise(shift, scale)


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Networks with BN and without, with noise behind BN and without BN; at paper scale VGG and the published noise."""
    if scale == "paper":
        return _published()
    strengths = [each for each in itertools.product(SHIFTS, SCALES) if each != (0.0, 1.0)]
    return {
        (network, init, lr, *cell): [
            Run(partial(mlp, sizes, norm, init=INITS[init]), "digits", BATCH_SIZE, lr, seed, epochs=EPOCHS, points=10)
            for seed in SEEDS[scale]
        ]
        for (network, sizes), init, lr in itertools.product(SIZES.items(), INITS, LEARNING_RATES)
        for cell, norm in _norms(strengths).items()
    }


def _norms(strengths: Iterable[tuple[float, float]]) -> dict[tuple[str, float, float], Callable | None]:
    """With BN and without, and of each strength noise behind BN and without BN."""
    norms: dict[tuple, Callable | None] = {("BN", 0.0, 1.0): BatchNorm, ("without normalisation", 0.0, 1.0): None}
    for shift, factor in strengths:
        norms["noisy BN", shift, factor] = partial(NoisyBatchNorm, shift=shift, scale=factor)
        norms["noise without BN", shift, factor] = partial(noise, shift=shift, scale=factor)
    return norms


def _published() -> dict[tuple, list[Run]]:
    """Those of the source: VGG on CIFAR-10, 15,000 steps of 128 pictures at a learning rate of 0.1."""
    return {
        ("vgg", "Glorot", 0.1, *cell): [
            Run(partial(vgg, norm=norm), "cifar10", 128, 0.1, seed, epochs=39) for seed in SEEDS["paper"]
        ]
        for cell, norm in _norms([PUBLISHED]).items()
    }


EXPERIMENT = Experiment(
    name="covariate_shift.noisy_batch_norm",
    question="Does a network with BN still learn if noise makes its normalised activations shift from step to step?",
    source="Santurkar et al. 2018, figure 2",
    axes=("network", "init", "lr", "norm", "shift", "scale"),
    cells=cells,
    curves=("train_loss", "test_error"),
)


@cache
def load() -> dict[tuple, dict]:
    """The committed result."""
    return EXPERIMENT.load("quick")


def lookup(lr: float, shift: float, scale: float, network: str = "9 layers") -> dict[str, dict[str, dict]]:
    """For each initialisation the committed curves with noise of this strength, between those without noise."""
    rows, strength = load(), (shift, scale)
    wanted = {("BN", 0.0, 1.0): "BN", ("noisy BN", *strength): "noisy BN"}
    wanted |= {
        ("without normalisation", 0.0, 1.0): "without normalisation",
        ("noise without BN", *strength): "noise without BN",
    }
    return {
        init: {
            name: rows[network, init, lr, *cell] for cell, name in wanted.items() if (network, init, lr, *cell) in rows
        }
        for init in INITS
    }


def ends(network: str, init: str, lr: float, norm: str, strength=(0.0, 1.0), curve: str = "train_loss") -> np.ndarray:
    """The last value of each seed; nan where a run diverged."""
    return np.array([run[-1] for run in load()[network, init, lr, norm, *strength][curve]], dtype=float)


_live_seed = itertools.count(100)


def train(
    lr: float, shift: float, scale: float, device: torch.device | str | None = None
) -> Iterator[tuple[int, int, dict[str, dict[str, dict]]]]:
    """Train the nine-layer networks of a setting for real, with a seed that the grid has not used.

    Yields (steps done, steps in all, what ``lookup`` returns with a "your run" for each series), as
    ``digits_grid.train`` does.
    """
    seed, device, shown, grid = next(_live_seed), device or best_device(), lookup(lr, shift, scale), cells("quick")
    runs = {}
    for init, rows in shown.items():
        for name in rows:
            strength = (shift, scale) if name in ("noisy BN", "noise without BN") else (0.0, 1.0)
            run = replace(grid["9 layers", init, lr, name, *strength][0], seed=seed)
            runs[init, name] = run.start(device)
    newest = {}
    while True:
        states = {key: each for key, run in runs.items() if (each := next(run, None)) is not None}
        if not states:
            return
        newest |= states
        data = {init: dict(rows) for init, rows in shown.items()}
        for (init, name), (_, _, history) in newest.items():
            curves = {curve: [rounded(getattr(history, curve))] for curve in EXPERIMENT.curves}
            data[init][f"{name}, your run"] = {"epoch": rounded(history.epoch), **curves}
        yield *next(iter(states.values()))[:2], data
