"""Use a trained network in train mode: which batches give correct predictions, and what it does to the statistics.

In train mode each prediction depends on the batch, and each batch updates the running statistics.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from bnlib import BatchNorm, datasets
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp, small_cnn
from bnlib.training import error_rate, iterate

NETWORKS, ORDERS = ("fully connected", "convolutional"), ("shuffled", "sorted")
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
BATCHES_SERVED = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Numbers of batches predicted in train mode before the network is evaluated in eval mode."""
TRAINING = {"batch_size": 32, "lr": 0.1, "epochs": 10}
SEEDS = {"quick": range(5), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return one cell per network and order of the test set: shuffled or sorted by class."""
    return {cell: SEEDS[scale] for cell in itertools.product(NETWORKS, ORDERS)}


def network(name: str, seed: int) -> nn.Module:
    """Build a network of ``NETWORKS`` with BN for digits, untrained."""
    return (
        mlp((64, 100, 100, 10), BatchNorm, seed=seed) if name == NETWORKS[0] else small_cnn(norm=BatchNorm, seed=seed)
    )


def trained(name: str, seed: int, device="cpu") -> nn.Module:
    """Train the network for ten epochs of SGD in shuffled batches of 32."""
    *_, (_, _, model) = _training(name, seed, 1, device)
    return model


def _training(name: str, seed: int, checkpoints: int, device="cpu") -> Iterator[tuple[int, int, nn.Module]]:
    """Yield the number of steps so far, the total number of steps, and the network at each checkpoint."""
    model, settings = network(name, seed), {"checkpoints": checkpoints, "seed": seed, "device": device}
    for step, steps, _ in iterate(model, "digits", **TRAINING, **settings):
        yield step, steps, model


def measure(name: str, order: str, *, seed: int, device) -> dict[str, object]:
    """Train, then predict the test set in train mode and in eval mode.

    Returns:
        test accuracies: ``eval_mode``; ``train_mode`` at each of ``BATCH_SIZES``; ``eval_mode_afterwards``: in eval
        mode, after each of ``BATCHES_SERVED`` batches of each of these sizes have been predicted in train mode.
    """
    data = datasets.load("digits").to(device)
    model = trained(name, seed, device)
    return accuracies(model, data, order, seed) | {
        "eval_mode_afterwards": [
            _eval_accuracy_after_serving(copy.deepcopy(model), data, order, size, seed) for size in BATCH_SIZES
        ],
    }


def accuracies(model: nn.Module, data: datasets.Dataset, order: str, seed: int) -> dict[str, float | list[float]]:
    """Measure test accuracies in eval mode and in train mode at each of ``BATCH_SIZES``; the model stays as it is."""
    return {
        "eval_mode": 1 - error_rate(model, data.test_x, data.test_y),
        "train_mode": [
            train_mode_accuracy(copy.deepcopy(model), data.test_x, data.test_y, batches(data.test_y, order, size, seed))
            for size in BATCH_SIZES
        ],
    }


def batches(labels: Tensor, order: str, batch_size: int, seed: int) -> list[Tensor]:
    """Return the indices of all samples in batches, shuffled or sorted by class; the first ones fill up the last."""
    index = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    if order == "sorted":
        index = index[labels.cpu()[index].argsort(stable=True)]
    return list(torch.cat((index, index[: -len(index) % batch_size])).split(batch_size))


@torch.no_grad()
def train_mode_accuracy(model: nn.Module, x: Tensor, y: Tensor, batches: Sequence[Tensor]) -> float:
    """Measure the accuracy of ``model`` in train mode, which updates its running statistics."""
    model.train()
    return torch.cat([model(x[index]).argmax(1) == y[index] for index in batches]).float().mean().item()


def _eval_accuracy_after_serving(
    model: nn.Module, data: datasets.Dataset, order: str, batch_size: int, seed: int
) -> list[float]:
    endless = itertools.cycle(batches(data.test_y, order, batch_size, seed))
    found = []
    for before, after in itertools.pairwise((0, *BATCHES_SERVED)):
        if after > before:
            train_mode_accuracy(model, data.test_x, data.test_y, list(itertools.islice(endless, after - before)))
        found.append(1 - error_rate(model, data.test_x, data.test_y))
    return found


EXPERIMENT = Measurement(
    name="perils.train_mode_at_inference",
    question="How accurate is a trained network with BN in train mode, and how accurate is it in eval mode afterwards?",
    source="Irpan 2017",
    axes=("network", "order"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def lookup(network: str, batch_size: int) -> dict[str, dict[str, np.ndarray]]:
    """Return the committed numbers of a network by order; ``eval_mode_afterwards`` is that of this batch size."""
    place, found = BATCH_SIZES.index(batch_size), {order: load()[network, order] for order in ORDERS}
    return {
        order: row | {"eval_mode_afterwards": row["eval_mode_afterwards"][:, place]} for order, row in found.items()
    }


_live_seed = itertools.count(100)


def train(network: str, batch_size: int, points: int = 5) -> Iterator[tuple[int, int, dict]]:
    """Train the network now, with a seed that no result has used; ``run`` holds the accuracies of that run by order."""
    seed, shown, data = next(_live_seed), lookup(network, batch_size), datasets.load("digits")
    for step, steps, model in _training(network, seed, points):
        run = {order: accuracies(model, data, order, seed) for order in ORDERS}
        for order, found in run.items():
            served = copy.deepcopy(model)
            found["eval_mode_afterwards"] = _eval_accuracy_after_serving(served, data, order, batch_size, seed)
        yield step, steps, shown | {"run": run}


def train_mode_accuracy_rows(batch_sizes: Sequence[int]) -> list[dict]:
    """Return test accuracies (%) for ``tables.Table``: in eval mode and in train mode at these batch sizes."""
    return [
        {"network, order of the test set": f"{network}, {order}", "eval mode": 100 * found["eval_mode"]}
        | {
            ("train mode, batch size", str(size)): 100 * found["train_mode"][:, BATCH_SIZES.index(size)]
            for size in batch_sizes
        }
        for (network, order), found in load().items()
    ]


def eval_mode_afterwards_rows(
    network: str, order: str, batch_sizes: Sequence[int], served: Sequence[int]
) -> list[dict]:
    """Return test accuracies (%) in eval mode after these numbers of batches were predicted in train mode."""
    accuracies = 100 * load()[network, order]["eval_mode_afterwards"]
    return [
        {"batches predicted": number}
        | {
            ("batch size", str(size)): accuracies[:, BATCH_SIZES.index(size), BATCHES_SERVED.index(number)]
            for size in batch_sizes
        }
        for number in served
    ]
