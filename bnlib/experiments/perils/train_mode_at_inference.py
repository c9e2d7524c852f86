"""A trained network that answers in train mode: what batch it needs to be right, and what it does to itself.

In train mode each answer depends on the batch, and each batch moves the running statistics: asking is training.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from bnlib import BatchNorm, datasets
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp, small_cnn
from bnlib.training import error_rate, fit

NETWORKS, ORDERS = ("fully connected", "convolutional"), ("shuffled", "sorted")
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
SERVED = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Batches answered in train mode, after which the network is looked at in eval mode."""
SEEDS = {"quick": range(5), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Each network, asked about the test set in random order and sorted by class."""
    return {cell: SEEDS[scale] for cell in itertools.product(NETWORKS, ORDERS)}


def network(name: str, seed: int) -> nn.Module:
    """A network of ``NETWORKS`` with BN, ready to be trained on digits."""
    return (
        mlp((64, 100, 100, 10), BatchNorm, seed=seed) if name == NETWORKS[0] else small_cnn(norm=BatchNorm, seed=seed)
    )


def trained(name: str, seed: int, device="cpu") -> nn.Module:
    """The network after ten epochs of SGD in shuffled batches of 32."""
    model = network(name, seed)
    settings = {"batch_size": 32, "lr": 0.1, "epochs": 10, "points": 1, "seed": seed, "device": device}
    fit(model, datasets.load("digits"), progress=False, **settings)
    return model


def measure(name: str, order: str, *, seed: int, device) -> dict[str, object]:
    """Train, then ask.

    Returns:
        test accuracies: ``eval_mode``; ``train_mode`` at each of ``BATCH_SIZES``; ``afterwards``: in eval mode, when
        ``SERVED`` batches of each of them have been answered in train mode.
    """
    data = datasets.load("digits").to(device)
    model = trained(name, seed, device)
    asked = {size: copy.deepcopy(model) for size in BATCH_SIZES}
    return {
        "eval_mode": 1 - error_rate(model, data.test_x, data.test_y),
        "train_mode": [
            answered(copy.deepcopy(model), data.test_x, data.test_y, batches(data.test_y, order, size, seed))
            for size in BATCH_SIZES
        ],
        "afterwards": [_afterwards(asked[size], data, order, size, seed) for size in BATCH_SIZES],
    }


def batches(labels: Tensor, order: str, batch_size: int, seed: int) -> list[Tensor]:
    """Indices of all samples in batches, random or sorted by class; the last one is filled up from the first."""
    index = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    if order == "sorted":
        index = index[labels.cpu()[index].argsort(stable=True)]
    return list(torch.cat((index, index[: -len(index) % batch_size])).split(batch_size))


@torch.no_grad()
def answered(model: nn.Module, x: Tensor, y: Tensor, batches: Sequence[Tensor]) -> float:
    """Share of right answers of ``model`` in train mode, which moves its running statistics."""
    model.train()
    return torch.cat([model(x[index]).argmax(1) == y[index] for index in batches]).float().mean().item()


def _afterwards(model: nn.Module, data: datasets.Dataset, order: str, batch_size: int, seed: int) -> list[float]:
    endless = itertools.cycle(batches(data.test_y, order, batch_size, seed))
    found = []
    for before, after in itertools.pairwise((0, *SERVED)):
        if after > before:
            answered(model, data.test_x, data.test_y, list(itertools.islice(endless, after - before)))
        found.append(1 - error_rate(model, data.test_x, data.test_y))
    return found


EXPERIMENT = Measurement(
    name="perils.train_mode_at_inference",
    question="What does a trained network with BN answer in train mode, and what is left of it afterwards?",
    source="Irpan 2017",
    axes=("network", "order"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """The committed result."""
    return EXPERIMENT.load("quick")


def lookup(network: str, batch_size: int) -> dict[str, dict[str, np.ndarray]]:
    """The committed numbers of a network, by order of the samples; ``afterwards`` is that of this batch size."""
    place = BATCH_SIZES.index(batch_size)
    return {
        each: load()[network, each] | {"afterwards": load()[network, each]["afterwards"][:, place]} for each in ORDERS
    }
