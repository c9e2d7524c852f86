"""Train deep residual networks on digits with BN, with tricks that replace it, and with nothing in its place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import BatchNorm, datasets, tables
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.gradient_clipping import clipped
from bnlib.models import normaliser_free_stack, residual_stack
from bnlib.samplers import shuffled
from bnlib.stacked import Stack, stack

DEPTH, WIDTH, STEPS = 20, 64, 100
BATCH_SIZES = (4, 64)
LEARNING_RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
CLIPPING = 0.1
"""The gradient of a unit is at most this long, compared with the unit's weights."""

SEEDS = {"quick": range(3), "paper": range(20)}

_PRE_ACTIVATION = partial(residual_stack, block="pre-activation", in_features=64, num_classes=10)


@dataclass(frozen=True)
class Network:
    """A network and whether adaptive gradient clipping is used.

    Attributes:
        build: builds the network from ``depth``, ``width`` and ``seed``.
        clip: clip the gradients of all layers except the last.
    """

    build: Callable[..., nn.Sequential]
    clip: bool = False


NETWORKS: dict[str, Network] = {
    "batch norm": Network(partial(_PRE_ACTIVATION, norm=BatchNorm)),
    "without normalisation": Network(_PRE_ACTIVATION),
    "weight standardisation": Network(normaliser_free_stack),
    "weight standardisation, AGC": Network(normaliser_free_stack, clip=True),
}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return each network at each batch size; a cell trains at all learning rates at once."""
    return {(network, batch_size): SEEDS[scale] for network in NETWORKS for batch_size in BATCH_SIZES}


def measure(network: str, batch_size: int, *, seed: int, device: str) -> dict[str, Any]:
    """Train one of ``NETWORKS``; see ``train``."""
    return train(NETWORKS[network], batch_size, seed=seed, device=device)


def train(network: Network, batch_size: int, *, seed: int, device: str) -> dict[str, Any]:
    """Train by SGD without momentum on standardised digits, at each of ``LEARNING_RATES``.

    Returns:
        ``train_loss`` (nats) of the whole training set in eval mode, and ``test_error``, both after ``STEPS`` steps and
        for each learning rate; nan where the loss became infinite or nan.
    """
    data = datasets.load("digits").to(device)
    mean, deviation = data.train_x.mean(), data.train_x.std()
    train_x, test_x = ((each - mean) / deviation for each in (data.train_x, data.test_x))
    models = stack([network.build(depth=DEPTH, width=WIDTH, seed=seed)] * len(LEARNING_RATES)).to(device)
    rates = models.broadcast_to_parameters(torch.tensor(LEARNING_RATES, device=device))
    batches = shuffled(data.train_y.cpu(), batch_size, seed)
    for _ in range(STEPS):
        index = next(batches).to(device)
        models.zero_grad(set_to_none=False)
        _losses(models, train_x[index], data.train_y[index]).sum().backward()
        descend(list(models.parameters()), rates, network.clip)
    models.eval()
    with torch.no_grad():
        logits = models(_repeated(test_x, models))
        error = (logits.argmax(-1) != data.test_y).double().mean(1)
        loss = _losses(models, train_x, data.train_y).double()
    lost = ~loss.isfinite()
    return {
        "train_loss": loss.masked_fill(lost, math.nan).tolist(),
        "test_error": error.masked_fill(lost, math.nan).tolist(),
    }


@torch.no_grad()
def descend(parameters: Sequence[Tensor], rates: Sequence[Tensor], clip: bool) -> None:
    """Do one step for all stacked networks, whose parameters have the networks as their first dimension.

    Arguments:
        parameters: weights (networks, units, inputs) and biases (networks, units), with gradients; the last two are
            those of the last layer, which is not clipped.
        rates: learning rate of each network, in shapes that broadcast against the parameters.
        clip: clip the gradients adaptively.
    """
    for number, (parameter, rate) in enumerate(zip(parameters, rates, strict=True)):
        gradient = parameter.grad
        if clip and number < len(parameters) - 2:
            # One row per unit of a weight, and one row per bias.
            rows = (each.reshape(-1, each.shape[-1]) for each in (parameter, gradient))
            gradient = clipped(*rows, clipping=CLIPPING).view_as(parameter)
        parameter.sub_(rate * gradient)


def _repeated(x: Tensor, models: Stack) -> Tensor:
    return x.expand(models.size, *x.shape)


def _losses(models: Stack, x: Tensor, y: Tensor) -> Tensor:
    """Return the mean cross-entropy of each network."""
    logits = models(_repeated(x, models))
    return F.cross_entropy(logits.flatten(0, 1), y.repeat(models.size), reduction="none").view(models.size, -1).mean(1)


EXPERIMENT = Measurement(
    name="depth.without_norms",
    question="Can a deep residual network without any norm train as well as one with BN?",
    source="Brock et al. 2021, sections 2 and 4",
    axes=("network", "batch_size"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def best(network: str, batch_size: int) -> int:
    """Return the place in ``LEARNING_RATES`` with the lowest median test error; ties go to the lower mean loss."""
    return best_place(load()[network, batch_size])


def best_place(measured: Mapping[str, np.ndarray]) -> int:
    """Return ``best`` of what ``train`` measured, one row per seed."""
    row = {name: np.nan_to_num(values, nan=np.inf) for name, values in measured.items()}
    order = zip(np.median(row["test_error"], 0), row["train_loss"].mean(0), strict=True)
    return min(enumerate(order), key=lambda each: each[1])[0]


def error_rows() -> list[dict]:
    """Return table rows, one per network: test error and training loss at the best rate, for each batch size."""
    titles = {
        "batch norm": "BN",
        "without normalisation": "nothing",
        "weight standardisation": "scaled weight standardisation",
        "weight standardisation, AGC": "scaled weight standardisation, AGC",
    }
    return [error_row("yes", title, network, load()) for network, title in titles.items()]


def error_row(skip_connections: str, title: str, network: str, results: Mapping[tuple, Mapping]) -> dict:
    """Return the table row of one network of a result whose cells are named by network and batch size."""
    row: dict = {"in each layer": title, "skip connections": skip_connections}
    for size in BATCH_SIZES:
        measured = results[network, size]
        place = best_place(measured)
        row[f"batch size {size}", "best rate"] = f"{LEARNING_RATES[place]:g}"
        row[f"batch size {size}", "test error (%)"] = 100 * measured["test_error"][:, place]
        row[f"batch size {size}", "training loss (nats)"] = tables.spread(measured["train_loss"][:, place], 2)
    return row
