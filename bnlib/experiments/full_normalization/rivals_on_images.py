"""The contest on Fashion-MNIST, and on CIFAR-10 with ResNet-18: images, networks, places, and the rule.

This file was written, and committed, before the first run of this part of the contest. Its rule:

1. *Images and networks.* ``quick``: Fashion-MNIST at 7 x 7 pixels (means over 4 x 4), about the size of the digits, and
   the network of ``rivals``. ``paper``: CIFAR-10, and ResNet-18 for 32 x 32 images. This scale needs a GPU, and has not
   been run.
2. *Places.* Plain SGD; batches of 4 and of 16, shuffled and of one label.
3. *Selection and test* are those of ``rivals``: the same norms with the same two settings each, the same five learning
   rates, two seeds for the selection and five other ones for the test, the smallest mean error, and the same initial
   weights and batches for all norms. The training files have many images, so selection and test train on the same ones,
   and the images kept apart are others: in the order of the file, the first of each label train the network, the next
   ones are kept apart. The test images are the first of each label in the test file.
4. *Numbers.* Fashion-MNIST: 1,000 training images, 1,000 kept apart, 2,000 test images, and five epochs. CIFAR-10:
   40,000 training images, 2,000 kept apart, 2,000 test images, and two epochs.
5. *Verdict and edges* are those of ``rivals``. Where the smallest mean error of all norms is 80 % or more, no norm
   learns, and the verdict says nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import datasets
from bnlib.datasets import Dataset
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.full_normalization import rivals
from bnlib.models import BasicBlock, resnet18
from bnlib.sweep import Run


class Images(NamedTuple):
    """Which images of a data set are used, and how long they train.

    Attributes:
        data: name of the data set.
        trained, kept_apart, tested: images of each label to train on, to select with, and to test with.
        epochs: of the selection and of the test.
    """

    data: str
    trained: int
    kept_apart: int
    tested: int
    epochs: int


IMAGES: dict[Scale, Images] = {
    "quick": Images("fashion_mnist", 100, 100, 200, epochs=5),
    "paper": Images("cifar10", 4000, 200, 200, epochs=2),
}
LABELS = 10
PLACES = tuple(itertools.product(("shuffled", "one label"), (4, 16)))
"""A construction of the batches, a key of ``rivals.CONSTRUCTIONS``, and a batch size each."""


def of_each_label(labels: Tensor, first: int, count: int) -> Tensor:
    """Return the indices of ``count`` samples of each label, from number ``first`` of the label on, in rising order.

    Example:
        >>> from bnlib.experiments.full_normalization.rivals_on_images import of_each_label
        >>> of_each_label(torch.tensor([0, 0, 1, 0, 1, 1]), first=1, count=2)
        tensor([1, 3, 4, 5])
    """
    found = [torch.nonzero(labels == label).flatten()[first : first + count] for label in labels.unique()]
    return torch.cat(found).sort().values


def load(scale: Scale, selection: bool) -> Dataset:
    """Load the images to train on, with the images kept apart for the selection, or with the test images."""
    name, trained, kept_apart, tested, _ = IMAGES[scale]
    data = datasets.load(name)
    train = of_each_label(data.train_y, 0, trained)
    x, y = (data.train_x, data.train_y) if selection else (data.test_x, data.test_y)
    other = of_each_label(y, trained, kept_apart) if selection else of_each_label(y, 0, tested)
    pooled = partial(F.avg_pool2d, kernel_size=4) if scale == "quick" else Tensor.clone
    return replace(
        data,
        train_x=pooled(data.train_x[train]),
        train_y=data.train_y[train],
        test_x=pooled(x[other]),
        test_y=y[other],
    )


_LOADERS: dict[tuple[Scale, bool], Callable[[], Dataset]] = {
    (scale, selection): partial(load, scale, selection) for scale in IMAGES for selection in (True, False)
}
"""One function for all runs with the same images, so that a sweep reads the files once."""


def model(scale: Scale, norm: str, setting: str, *, seed: int) -> nn.Sequential:
    """Build the network of a scale with a norm; the initial weights depend on ``seed`` as in ``rivals.model``."""
    if scale == "quick":
        return rivals.model(norm, setting, seed=seed)
    made = resnet18(norm=rivals.NORMS[norm][setting], seed=seed)
    if setting == rivals.BRANCHES_OF_0:
        for block in filter(lambda layer: isinstance(layer, BasicBlock), made):
            for value in block.residual[-1].parameters():
                nn.init.zeros_(value)
    return made


def runs(
    scale: Scale, norm: str, setting: str, construction: str, batch_size: int, lr: float, *, selection: bool
) -> list[Run]:
    """Return the runs of one pair of setting and rate, one per seed: those of the selection, or those of the test."""
    return [
        Run(
            partial(model, scale, norm, setting),
            _LOADERS[scale, selection],
            batch_size,
            lr,
            seed,
            epochs=IMAGES[scale].epochs,
            checkpoints=1,
            batches=rivals.CONSTRUCTIONS[construction],
        )
        for seed in (rivals.SELECTION_SEEDS if selection else rivals.SEEDS)
    ]


def selection_cells(scale: Scale, norms: Sequence[str] = tuple(rivals.NORMS)) -> dict[tuple, list[Run]]:
    """Return the runs of the selection, by norm, setting, construction, batch size and learning rate."""
    return {
        (norm, setting, construction, batch_size, lr): runs(
            scale, norm, setting, construction, batch_size, lr, selection=True
        )
        for construction, batch_size in PLACES
        for norm in norms
        for setting in rivals.NORMS[norm]
        for lr in rivals.learning_rates("SGD", batch_size)
    }
