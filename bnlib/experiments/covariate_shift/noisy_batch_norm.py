"""Train networks with noisy BN, whose outputs shift at random in every step, and compare them with three controls.

Santurkar et al. (2018) add noise after the BN layers of a VGG network on CIFAR-10, with shift 0.5, scale 1.25 and
spread 0.1. In their experiment noisy BN trains about as well as BN, and better than no normalisation. The controls are
BN, no normalisation, and the same noise without BN, where the activations have another scale.
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
from bnlib.experiments.formula.batch_noise import channel_values
from bnlib.experiments.framework.experiment import Experiment, Scale, rounded
from bnlib.models import mlp, vgg
from bnlib.sweep import Run
from bnlib.training import best_device

SIZES = {"4 layers": (64, 100, 100, 100, 10), "9 layers": (64, *[100] * 8, 10)}
INITS = {"PyTorch default": None, "He": nn.init.kaiming_normal_}
"""Initialisations of the weights. With PyTorch's default, nine layers without BN do not train."""
LEARNING_RATES = (0.1, 0.3)
SHIFTS, SCALES = (0.0, 0.5, 1.0, 2.0), (1.0, 1.25, 2.0)
"""Strengths of the noise: the largest mean shift and the largest mean factor of a unit."""
PUBLISHED, NO_NOISE = (0.5, 1.25), (0.0, 1.0)
"""Shift and scale of the source, and those of a network without noise."""
WITH_NOISE = ("noisy BN", "noise without BN")
SEEDS = {"quick": range(5), "paper": range(3)}
BATCH_SIZE, EPOCHS = 64, 20


def noise_layer(channels: int, shift: float, scale: float) -> nn.Module:
    """Build the layer of the control "noise without BN"; it has the signature of a norm layer."""
    return ActivationNoise(shift, scale)


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return one cell per network, initialisation, rate, norm and strength; at paper scale, those of the source."""
    if scale == "paper":
        return _published()
    strengths = [each for each in itertools.product(SHIFTS, SCALES) if each != NO_NOISE]
    return {
        (network, init, lr, *cell): [
            Run(
                partial(mlp, sizes, norm, init=INITS[init]),
                "digits",
                BATCH_SIZE,
                lr,
                seed,
                epochs=EPOCHS,
                checkpoints=10,
            )
            for seed in SEEDS[scale]
        ]
        for (network, sizes), init, lr in itertools.product(SIZES.items(), INITS, LEARNING_RATES)
        for cell, norm in _norms(strengths).items()
    }


def _norms(strengths: Iterable[tuple[float, float]]) -> dict[tuple[str, float, float], Callable | None]:
    """Return the norm layers by (norm, shift, scale): BN, none, and for each strength noisy BN and noise without BN."""
    norms: dict[tuple, Callable | None] = {
        ("batch norm", *NO_NOISE): BatchNorm,
        ("without normalisation", *NO_NOISE): None,
    }
    for shift, factor in strengths:
        norms["noisy BN", shift, factor] = partial(NoisyBatchNorm, shift=shift, scale=factor)
        norms["noise without BN", shift, factor] = partial(noise_layer, shift=shift, scale=factor)
    return norms


def _published() -> dict[tuple, list[Run]]:
    """Return the cells of the source: VGG on CIFAR-10, 15,000 steps of 128 images at a learning rate of 0.1."""
    return {
        ("vgg", "Glorot", 0.1, *cell): [
            Run(partial(vgg, norm=norm), "cifar10", 128, 0.1, seed, epochs=39) for seed in SEEDS["paper"]
        ]
        for cell, norm in _norms([PUBLISHED]).items()
    }


EXPERIMENT = Experiment(
    name="covariate_shift.noisy_batch_norm",
    question="Does a network with BN still train if noise shifts its normalised activations in every step?",
    source="Santurkar et al. 2018, figure 2",
    axes=("network", "init", "lr", "norm", "shift", "scale"),
    cells=cells,
    curves=("train_loss", "test_error"),
)


@cache
def load() -> dict[tuple, dict]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def strength_of(norm: str, strength: tuple[float, float] = PUBLISHED) -> tuple[float, float]:
    """Return ``strength`` for a norm with noise, and ``NO_NOISE`` for one without."""
    return strength if norm in WITH_NOISE else NO_NOISE


def curves_by_initialisation(
    lr: float, shift: float, scale: float, network: str = "9 layers"
) -> dict[str, dict[str, dict]]:
    """Return the committed curves for noise of one strength, by initialisation and norm."""
    rows, wanted = load(), ("batch norm", "noisy BN", "without normalisation", "noise without BN")
    keys = {norm: (norm, *strength_of(norm, (shift, scale))) for norm in wanted}
    return {
        init: {norm: rows[network, init, lr, *key] for norm, key in keys.items() if (network, init, lr, *key) in rows}
        for init in INITS
    }


def final_losses(
    norm: str,
    init: str,
    lr: float,
    *,
    strength: tuple[float, float] = PUBLISHED,
    network: str = "9 layers",
) -> np.ndarray:
    """Return the training loss in nats at the end, one per seed; infinite where a run diverged.

    ``strength`` is shift and scale of the noise, and has no effect for a norm without noise.
    """
    curves = load()[network, init, lr, norm, *strength_of(norm, strength)]["train_loss"]
    return np.nan_to_num(np.array([curve[-1] for curve in curves], dtype=float), nan=np.inf)


def one_channel(steps: int = 6, images: int = 32) -> dict[str, np.ndarray]:
    """Normalise the same batch in several steps with BN and with noisy BN, whose weights do not change.

    Returns:
        by norm, the outputs of one channel, shape (steps, images). The input is a unit of an untrained first layer.
    """
    x = torch.tensor(channel_values()[:images, None])
    layers = {"batch norm": BatchNorm(1).double(), "noisy BN": NoisyBatchNorm(1, seed=0).double()}
    with torch.no_grad():
        return {name: np.array([layer(x)[:, 0].numpy() for _ in range(steps)]) for name, layer in layers.items()}


_live_seed = itertools.count(100)


def train(
    lr: float, shift: float, scale: float, device: torch.device | str | None = None
) -> Iterator[tuple[int, int, dict[str, dict[str, dict]]]]:
    """Train the nine-layer networks of one setting now, with a new seed; see ``widgets.Explorer``.

    Yields:
        steps done, steps in all, and what ``curves_by_initialisation`` returns with a "your run" for each curve.
    """
    seed, device, grid = next(_live_seed), device or best_device(), cells("quick")
    shown = curves_by_initialisation(lr, shift, scale)
    runs = {}
    for init, rows in shown.items():
        for name in rows:
            run = replace(grid["9 layers", init, lr, name, *strength_of(name, (shift, scale))][0], seed=seed)
            runs[init, name] = run.iterate(device)
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
