"""What the experiments that repeat figures of Lian and Liu (2019) share: norms, networks and data at both scales.

Where the paper is silent a choice had to be made. Its figure 6 was not available: ``models.lian_figure_6_cnn`` is one reading of
it, a fully connected network another, and both are trained. Neither the number of epochs nor that of seeds is given.
The loss is the mean over a batch, norms have gamma and beta, eps is 1e-5.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from torch import nn
from torch.optim import SGD

from bnlib import BatchNorm, FullNorm
from bnlib.experiments.framework.experiment import Scale
from bnlib.models import lian_figure_6_cnn, mlp
from bnlib.reference import ORACLES
from bnlib.schedules import Schedule
from bnlib.sweep import Run

SEEDS = range(3)
MOMENTUM = {momentum: partial(SGD, momentum=momentum) for momentum in (0.5, 0.9)}
"""Optimisers of the MNIST and of the CIFAR-10 figures."""


def norms(alpha: Schedule, oracles: Iterable[str] = ORACLES) -> dict[str, Callable[[int], nn.Module]]:
    """BN, Full Normalization with the alpha of the figure and each oracle, and as it comes."""
    full = {f"FN, {oracle}": partial(FullNorm, oracle=oracle, alpha=alpha) for oracle in oracles}
    return {"BN": BatchNorm, **full, "FN, default": FullNorm}


def mnist(scale: Scale) -> tuple[str, dict[str, Callable]]:
    """Name of the data set, digits or MNIST, and networks for it that take ``norm=``."""
    name, side = {"quick": ("digits", 8), "paper": ("mnist", 28)}[scale]
    return name, {
        "convolutional": partial(lian_figure_6_cnn, (1, side, side)),
        "fully connected": partial(mlp, (side * side, 100, 100, 10)),
    }


def cifar(scale: Scale) -> tuple[str, dict[str, Callable]]:
    """Name of the data set, digits or CIFAR-10, and the network for it."""
    name, shape = {"quick": ("digits", (1, 8, 8)), "paper": ("cifar10", (3, 32, 32))}[scale]
    return name, {"convolutional": partial(lian_figure_6_cnn, shape)}


def cells(
    data, networks: Mapping[str, Callable], norms: Mapping[str, Callable], seeds: Iterable[int] = SEEDS, **settings
) -> dict[tuple, list[Run]]:
    """Runs of all networks with all norms, by names of both; ``settings`` are those of ``sweep.Run``."""
    return {
        (network, norm): [
            Run(partial(networks[network], norm=norms[norm]), data, seed=seed, **settings) for seed in seeds
        ]
        for network, norm in itertools.product(networks, norms)
    }
