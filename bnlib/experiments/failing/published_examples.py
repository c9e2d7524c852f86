"""Run the code examples of an answer on failing BN as printed, and with the controls that they lack.

A network 10-20-1 learns 100 samples with Adam and squared error, in batches that are cut once and never reshuffled.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from bnlib import BatchNorm
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp
from bnlib.stacked import stack

NETWORKS = {
    "BN, ReLU": partial(mlp, (10, 20, 1), BatchNorm),
    "ReLU, BN": partial(mlp, (10, 20, 1), BatchNorm, placement="after"),
    "without normalisation": partial(mlp, (10, 20, 1)),
}
SAMPLES, TEST_SAMPLES, EPOCHS, LEARNING_RATE, NETWORKS_PER_SEED = 100, 1000, 200, 1e-3, 10
NOISE = (0.0, 0.5, 1.0)
"""Share of the targets' variance that no input explains; 1 in the printed example."""
ORDERS = {"printed": "as printed", "same batches": "same batches", "shuffled": "shuffled"}
"""Orders of the samples, and their names in tables."""
CHECKPOINTS = (1, 2, 5, 10, 20, 50, 100, 150, 200)
LOSSES = ("printed_batches", "reshuffled_batches", "eval_mode", "test")


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return each network as printed, and BN with other orders of the data and with learnable targets."""
    grid = [(net, "printed", size, 1.0) for net in NETWORKS for size in (4, 32)]
    grid += [("BN, ReLU", order, 4, 1.0) for order in ("same batches", "shuffled")]
    grid += [("BN, ReLU", order, 4, noise) for order in ("printed", "shuffled") for noise in NOISE[:-1]]
    grid += [("without normalisation", order, 4, 0.0) for order in ("printed", "shuffled")]
    return {setting: range({"quick": 2, "paper": 6}[scale]) for setting in grid}


def measure(network: str, order: str, batch_size: int, noise: float, *, seed: int, device) -> dict[str, list]:
    """Train ``NETWORKS_PER_SEED`` networks in parallel, each on its own data, and measure four mean squared errors.

    Arguments:
        network: of ``NETWORKS``.
        order: "printed", batches cut once, in the order of the data; "same batches", these in a new order each epoch;
            "shuffled", samples reshuffled each epoch. The last batch of an epoch may be smaller.
        batch_size: samples per batch.
        noise: share of the targets' variance, which is 1, that is noise; the rest is linear in the first four inputs.
        seed: of data, weights and batches.
        device: where to train.

    Returns:
        losses of shape (checkpoints, ``NETWORKS_PER_SEED``): on the training set in train mode, in the
        ``printed_batches`` and in ``reshuffled_batches`` (mean of ten shuffles), and in ``eval_mode``; ``test``, on new
        samples in eval mode. For each network ``last_epoch_mean`` and ``last_epoch_deviation``: mean and standard
        deviation of the losses of the last epoch's steps.
    """
    generator = torch.Generator().manual_seed(seed)
    x, y = (each.to(device) for each in _samples(SAMPLES, noise, generator))
    new = [each.to(device) for each in _samples(TEST_SAMPLES, noise, generator)]
    model = stack(
        [NETWORKS[network](seed=NETWORKS_PER_SEED * seed + number) for number in range(NETWORKS_PER_SEED)]
    ).to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    printed = torch.arange(SAMPLES).split(batch_size)
    found: dict[str, list] = {name: [] for name in LOSSES}
    step_losses: list[Tensor] = []
    for epoch in range(1, EPOCHS + 1):
        step_losses = []
        for index in _batches_of_epoch(order, printed, generator):
            optimiser.zero_grad()
            losses = _losses(model, x[:, index], y[:, index])
            losses.sum().backward()
            optimiser.step()
            step_losses.append(losses.detach())
        if epoch in CHECKPOINTS:
            for name, values in _losses_by_mode(model, x, y, new, printed, generator).items():
                found[name].append(values.tolist())
    table = torch.stack(step_losses)
    return found | {"last_epoch_mean": table.mean(0).tolist(), "last_epoch_deviation": table.std(0).tolist()}


def _samples(count: int, noise: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw inputs (NETWORKS_PER_SEED, count, 10) and targets (NETWORKS_PER_SEED, count, 1)."""
    x = torch.randn(NETWORKS_PER_SEED, count, 10, generator=generator)
    drawn = torch.randn(NETWORKS_PER_SEED, count, 1, generator=generator)
    return x, (1 - noise) ** 0.5 * x[..., :4].sum(-1, keepdim=True) / 2 + noise**0.5 * drawn


def _batches_of_epoch(order: str, printed: Sequence[Tensor], generator: torch.Generator) -> Sequence[Tensor]:
    if order == "printed":
        return printed
    if order == "same batches":
        return [printed[place] for place in torch.randperm(len(printed), generator=generator)]
    return torch.randperm(SAMPLES, generator=generator).split(len(printed[0]))


def _losses(model, x: Tensor, y: Tensor) -> Tensor:
    """Return the mean squared error of each network, shape (NETWORKS_PER_SEED,)."""
    return (model(x) - y).square().mean((1, 2))


@torch.no_grad()
def _losses_by_mode(model, x: Tensor, y: Tensor, new: Sequence[Tensor], printed, generator) -> dict[str, Tensor]:
    """Return the losses by name; the running statistics are restored afterwards."""
    before = {name: value.clone() for name, value in model.named_buffers()}
    shuffles = [each for _ in range(10) for each in torch.randperm(SAMPLES, generator=generator).split(len(printed[0]))]
    found = {
        "printed_batches": _mean_loss(model, x, y, printed),
        "reshuffled_batches": _mean_loss(model, x, y, shuffles),
    }
    for name, value in model.named_buffers():
        value.copy_(before[name])
    model.eval()
    found |= {"eval_mode": _losses(model, x, y), "test": _losses(model, *new)}
    model.train()
    return found


def _mean_loss(model, x: Tensor, y: Tensor, batches: Sequence[Tensor]) -> Tensor:
    total = sum(len(index) * _losses(model, x[:, index], y[:, index]) for index in batches)
    return total / sum(map(len, batches))


EXPERIMENT = Measurement(
    name="failing.published_examples",
    question="Do the code examples of an answer on failing BN support its claims?",
    source="'Why is the batch normalization layer failing?', 2025, code examples 1 and 2",
    axes=("network", "order", "batch_size", "noise"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result; the last dimension holds the networks of all seeds."""
    return {
        cell: {name: np.moveaxis(value, 0, -2).reshape(*value.shape[1:-1], -1) for name, value in row.items()}
        for cell, row in EXPERIMENT.load("quick").items()
    }


def final_losses(
    loss: str, network: str, order: str = "printed", batch_size: int = 4, noise: float = 1.0
) -> np.ndarray:
    """Return one of ``LOSSES`` after the last epoch, one value per network."""
    return load()[network, order, batch_size, noise][loss][-1]


def final_loss_rows() -> list[dict]:
    """Return the final losses on the training set of the programs as printed, a row per network and batch size."""
    headers = {
        "printed_batches": "train mode, training batches",
        "reshuffled_batches": "train mode, reshuffled batches",
        "eval_mode": "eval mode",
    }
    return [
        {"network": network, "batch size": batch_size}
        | {header: final_losses(loss, network, batch_size=batch_size) for loss, header in headers.items()}
        for network, batch_size in itertools.product(("BN, ReLU", "without normalisation"), (4, 32))
    ]


def order_rows() -> list[dict]:
    """Return the median final losses in batches of 4, a row per network, noise and order of the samples."""
    settings = [("BN, ReLU", 1.0, order) for order in ("printed", "same batches", "shuffled")]
    settings += [("BN, ReLU", noise, order) for noise in (0.5, 0.0) for order in ("printed", "shuffled")]
    settings += [("without normalisation", 0.0, order) for order in ("printed", "shuffled")]
    headers = {
        "printed_batches": ("train mode", "training batches"),
        "reshuffled_batches": ("train mode", "reshuffled batches"),
        "eval_mode": ("eval mode", "training samples"),
        "test": ("eval mode", "test samples"),
    }
    return [
        {"network": network, "noise in the targets": f"{noise:.0%}", "order of the samples": ORDERS[order]}
        | {
            header: float(np.median(final_losses(loss, network, order, noise=noise)))
            for loss, header in headers.items()
        }
        for network, noise, order in settings
    ]


def last_epoch_rows() -> list[dict]:
    """Return mean and standard deviation of the losses of the last epoch's steps, a row per network and batch size."""
    rows = itertools.product(("BN, ReLU", "without normalisation"), (4, 32))
    return [
        {
            "network": network,
            "batch size": batch_size,
            "mean": load()[network, "printed", batch_size, 1.0]["last_epoch_mean"],
            "standard deviation": load()[network, "printed", batch_size, 1.0]["last_epoch_deviation"],
        }
        for network, batch_size in rows
    ]
