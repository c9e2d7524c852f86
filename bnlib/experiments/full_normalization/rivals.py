"""The contest of Full Normalization and ten alternatives on small batches: networks, batches, grids, and the rule.

This file was written, and committed, before the first run of the contest. Its rule:

1. *Selection.* A norm has two settings of its own and five learning rates. Each of the ten pairs is trained with two
   seeds on 80 % of the training images and tested on the other 20 %. The pair with the smallest mean error is chosen,
   for each optimiser, construction of the batches and batch size; of equal ones the pair that comes first. A run that
   diverges has an error of 90 %. No test image is used for the selection.
2. *Test.* The chosen pair is trained with five other seeds on all training images, for five epochs, and tested once on
   the test images at the end. All norms see the same number of samples, in the same batches, from the same initial
   weights of the convolutions.
3. *Verdict.* Norm A is better than norm B if its mean error is smaller by more than 2.776 standard errors of the
   difference: the 95 % bound of Welch's t-test for four degrees of freedom, the fewest that five seeds each can have.
   The *best* norms of a place (an optimiser, a construction and a batch size) are the norm with the smallest mean error
   and all norms that it is not better than. Full Normalization *wins* if it is the only best norm, it is *among the
   best* if it is one of several, and else it *loses*.
4. *Edges.* If the chosen rate is the smallest or the largest of its grid, the table says so.

The network is a small ResNet for the digits. At batch size 1 a channel has 64 or 16 values, so Batch Normalization can
be trained there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.optim import SGD, Adam

from bnlib import datasets
from bnlib.datasets import Dataset
from bnlib.models.building import NormLike, activation_behind, convolution, seeded
from bnlib.models.residual import BasicBlock
from bnlib.norm import (
    BatchNorm,
    BatchRenorm,
    CrossIterationBatchNorm,
    FilterResponseNorm,
    FullNorm,
    MovingAverageBatchNorm,
    OnlineNorm,
    weight_centralise,
    weight_standardise,
)
from bnlib.norm.registry import Norm
from bnlib.samplers import FixedBatches, MaxLabelsPerBatch, Sampler, shuffled, single_label
from bnlib.schedules import PowerSchedule
from bnlib.sweep import Run
from bnlib.training import OptimiserMaker

WIDTH = 8
"""Channels of the first block; the second has twice as many."""
BATCH_SIZES = (1, 2, 4, 16, 64)
CONSTRUCTIONS: dict[str, Sampler] = {
    "shuffled": shuffled,
    "two labels": MaxLabelsPerBatch(2),
    "one label": single_label,
    "sorted stream": FixedBatches(shuffle_samples=False),
}
"""How batches are built. The stream shows all images of 0, then all of 1, and so on, again and again."""
OPTIMISERS: dict[str, OptimiserMaker] = {"SGD": SGD, "momentum": partial(SGD, momentum=0.9), "Adam": Adam}
BRANCHES_OF_0 = "last layer of a branch 0"
"""The setting without normalisation in which every block begins as its skip connection."""
STANDARD_ERRORS = 2.776
"""How many standard errors of the difference make a norm better than another."""
_RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
EPOCHS, SELECTION_EPOCHS = 5, 6
"""Epochs of the test, and of the selection, whose training set is smaller: about 7,000 samples in both."""
SEEDS, SELECTION_SEEDS = range(5), (100, 101)
WORST = 0.9
"""The error of a run that diverged: that of guessing."""


def learning_rates(optimiser: str, batch_size: int) -> tuple[float, ...]:
    """Return five learning rates in rising order."""
    first = {1: 0, 2: 0, 4: 1, 16: 2, 64: 2}[batch_size]
    rates = _RATES[first : first + 5]
    return tuple(float(f"{rate * {'SGD': 1, 'momentum': 0.1, 'Adam': 0.1}[optimiser]:g}") for rate in rates)


def places() -> list[tuple[str, int]]:
    """Return the constructions of batches and the batch sizes, without those that differ in name only."""
    smallest = {"shuffled": 1, "two labels": 4, "one label": 2, "sorted stream": 1}
    return [each for each in itertools.product(CONSTRUCTIONS, BATCH_SIZES) if each[1] >= smallest[each[0]]]


def _group_norm(size: int, features: int) -> nn.GroupNorm:
    return nn.GroupNorm(features // size, features)


def _before(change: Callable[[nn.Module], nn.Module], make: Callable[[int], nn.Module], layer: nn.Conv2d) -> nn.Module:
    return nn.Sequential(change(layer), make(layer.out_channels))


def _changed(change: Callable[[nn.Module], nn.Module], make: Callable[[int], nn.Module]) -> Norm:
    return Norm("rival", "rival", modify_layer=partial(_before, change, make))


def _activated(**options: bool) -> Norm:
    return Norm("rival", "rival", partial(FilterResponseNorm, **options), includes_activation=True)


NORMS: dict[str, dict[str, NormLike]] = {
    "Full Norm": {
        "alpha floor 0.03": FullNorm,
        "alpha floor 0.1": partial(FullNorm, alpha=PowerSchedule(1, 1, 0.1, 1)),
    },
    "batch norm": {"momentum 0.1": BatchNorm, "momentum 0.01": partial(BatchNorm, momentum=0.01)},
    "Batch Renorm": {
        "r 3, d 5": partial(BatchRenorm, momentum=0.1, r_max=3.0, d_max=5.0),
        "r 1.5, d 0.5": partial(BatchRenorm, momentum=0.1, r_max=1.5, d_max=0.5),
    },
    "Moving Average BN": {
        f"window {window}": _changed(weight_centralise, partial(MovingAverageBatchNorm, window=window))
        for window in (16, 64)
    },
    "Online Norm": {
        "decay 0.999": OnlineNorm,
        "decay 0.99": partial(OnlineNorm, alpha_forward=0.99, alpha_backward=0.9),
    },
    "Cross-Iteration BN": {
        f"window {window}": Norm("rival", "rival", modify_layer=partial(CrossIterationBatchNorm, window=window))
        for window in (8, 16)
    },
    "layer norm": {f"eps {eps:g}": partial(nn.GroupNorm, 1, eps=eps) for eps in (1e-5, 1e-3)},
    "group norm": {f"groups of {size}": partial(_group_norm, size) for size in (4, 2)},
    "weight standardisation + GN": {
        f"groups of {size}": _changed(weight_standardise, partial(_group_norm, size)) for size in (4, 2)
    },
    "FRN": {"fixed eps": _activated(learn_eps=False), "learned eps": _activated(learn_eps=True)},
    "without normalisation": {"PyTorch init": None, BRANCHES_OF_0: None},
}
"""The norms, each with two settings of its own."""


def model(norm: str, setting: str, *, seed: int) -> nn.Sequential:
    """Build the network: a convolution, two residual blocks, average pooling and a linear layer.

    The initial weights of the convolutions and of the linear layer depend on ``seed`` only, except where the last
    convolution of each branch is 0.
    """
    made = NORMS[norm][setting]
    with seeded(seed):
        blocks = [BasicBlock(WIDTH, WIDTH, 1, made), BasicBlock(WIDTH, 2 * WIDTH, 2, made)]
        layers = [*convolution(1, WIDTH, 3, made), activation_behind(made), *blocks]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * WIDTH, 10)]
    if setting == BRANCHES_OF_0:
        for block in blocks:
            for value in block.residual[-1].parameters():
                nn.init.zeros_(value)
    return nn.Sequential(*layers)


def images() -> Dataset:
    """Load the digits for the test."""
    return datasets.digits()


def selection_images() -> Dataset:
    """Load the training images of the digits: 80 % to train on, and 20 % to choose the learning rate with."""
    data = datasets.digits()
    order = torch.randperm(len(data.train_y), generator=torch.Generator().manual_seed(0))
    chosen, rest = order[: len(order) // 5], order[len(order) // 5 :]
    x, y = data.train_x, data.train_y
    return replace(data, train_x=x[rest], train_y=y[rest], test_x=x[chosen], test_y=y[chosen])


def sorted_by_label(load: Callable[[], Dataset]) -> Dataset:
    """Load images with the training images in the order of their labels, for the sorted stream."""
    data = load()
    order = data.train_y.argsort(stable=True)
    return replace(data, train_x=data.train_x[order], train_y=data.train_y[order])


def runs(
    optimiser: str,
    norm: str,
    setting: str,
    construction: str,
    batch_size: int,
    lr: float,
    *,
    selection: bool,
) -> list[Run]:
    """Return the runs of one pair of setting and rate, one per seed: those of the selection, or those of the test."""
    load = selection_images if selection else images
    return [
        Run(
            partial(model, norm, setting),
            partial(sorted_by_label, load) if construction == "sorted stream" else load,
            batch_size,
            lr,
            seed,
            optimiser=OPTIMISERS[optimiser],
            epochs=SELECTION_EPOCHS if selection else EPOCHS,
            checkpoints=1,
            batches=CONSTRUCTIONS[construction],
        )
        for seed in (SELECTION_SEEDS if selection else SEEDS)
    ]


def selection_cells(optimiser: str, norms: Iterable[str] = NORMS) -> dict[tuple, list[Run]]:
    """Return the runs of the selection, by norm, setting, construction, batch size and learning rate."""
    return {
        (norm, setting, construction, batch_size, lr): runs(
            optimiser, norm, setting, construction, batch_size, lr, selection=True
        )
        for norm in norms
        for construction, batch_size in places()
        for setting in NORMS[norm]
        for lr in learning_rates(optimiser, batch_size)
    }


def choose(errors: dict[tuple[str, float], Iterable[float | None]]) -> tuple[str, float]:
    """Return the setting and the learning rate with the smallest mean error over the seeds; None is a divergence.

    Example:
        >>> from bnlib.experiments.full_normalization import rivals
        >>> rivals.choose({("momentum 0.1", 0.1): [0.2, None], ("momentum 0.1", 1.0): [0.3, 0.4]})
        ('momentum 0.1', 1.0)
    """

    def mean(pair: tuple[str, float]) -> float:
        values = [WORST if value is None else value for value in errors[pair]]
        return sum(values) / len(values)

    return min(errors, key=mean)


def best(errors: dict[str, list[float | None]]) -> list[str]:
    """Return the best norms of a place, by their errors over the seeds, in the order of their mean errors.

    Example:
        >>> from bnlib.experiments.full_normalization import rivals
        >>> rivals.best({"A": [0.02, 0.03, 0.02], "B": [0.03, 0.02, 0.04], "C": [0.2, 0.21, 0.2]})
        ['A', 'B']
    """
    values = {
        norm: torch.tensor([WORST if value is None else value for value in each], dtype=torch.float64)
        for norm, each in errors.items()
    }
    order = sorted(values, key=lambda norm: float(values[norm].mean()))
    first = values[order[0]]

    def is_worse(other: torch.Tensor) -> bool:
        error = (first.var() / len(first) + other.var() / len(other)).sqrt()
        return bool(other.mean() - first.mean() > STANDARD_ERRORS * error)

    return [norm for norm in order if norm == order[0] or not is_worse(values[norm])]


def verdict(errors: dict[str, list[float | None]], norm: str = "Full Norm") -> str:
    """Return whether a norm wins, is among the best, or loses at a place.

    Example:
        >>> from bnlib.experiments.full_normalization import rivals
        >>> rivals.verdict({"Full Norm": [0.02, 0.03, 0.02], "batch norm": [0.2, 0.21, 0.2]})
        'wins'
    """
    found = best(errors)
    return "loses" if norm not in found else "wins" if len(found) == 1 else "among the best"
