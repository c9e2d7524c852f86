"""Share norms, networks and data among the experiments that repeat figures of Lian and Liu (2019), at both scales.

The paper leaves some settings open. Its figure 6, which shows the network, was not available:
``models.lian_figure_6_cnn`` is one interpretation, a fully connected network is another, and both are trained. The
numbers of epochs and seeds are not stated. Here the loss is the mean over a batch, norms have gamma and beta, and eps
is 1e-5.
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
"""SGD by momentum: 0.5 for the figures on MNIST, 0.9 for those on CIFAR-10."""


def norms(alpha: Schedule, oracles: Iterable[str] = ORACLES) -> dict[str, Callable[[int], nn.Module]]:
    """Return BN, Full Normalization with each oracle and the figure's ``alpha``, and with bnlib's defaults."""
    full = {f"FN, {oracle}": partial(FullNorm, oracle=oracle, alpha=alpha) for oracle in oracles}
    return {"BN": BatchNorm, **full, "FN, default": FullNorm}


def mnist(scale: Scale) -> tuple[str, dict[str, Callable]]:
    """Return the name of the data set, digits or MNIST, and networks for it that take ``norm=``."""
    name, side = {"quick": ("digits", 8), "paper": ("mnist", 28)}[scale]
    return name, {
        "convolutional": partial(lian_figure_6_cnn, (1, side, side)),
        "fully connected": partial(mlp, (side * side, 100, 100, 10)),
    }


def cifar(scale: Scale) -> tuple[str, dict[str, Callable]]:
    """Return the name of the data set, digits or CIFAR-10, and the network for it, which takes ``norm=``."""
    name, shape = {"quick": ("digits", (1, 8, 8)), "paper": ("cifar10", (3, 32, 32))}[scale]
    return name, {"convolutional": partial(lian_figure_6_cnn, shape)}


def cells(
    data, networks: Mapping[str, Callable], norms: Mapping[str, Callable], seeds: Iterable[int] = SEEDS, **settings
) -> dict[tuple, list[Run]]:
    """Return the runs of all networks with all norms, by both names; ``settings`` are those of ``sweep.Run``."""
    return {
        (network, norm): [
            Run(partial(networks[network], norm=norms[norm]), data, seed=seed, **settings) for seed in seeds
        ]
        for network, norm in itertools.product(networks, norms)
    }
