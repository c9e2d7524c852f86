"""Measure how the loss and its gradient change along the gradient while a network trains, with and without BN.

The network is a small one on digits, at paper scale the VGG network of Santurkar et al. (2018) on CIFAR-10.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from bnlib import tables
from bnlib.experiments.covariate_shift import probed_training
from bnlib.experiments.covariate_shift.probed_training import AXES, INITS, LEARNING_RATES, NORMS, SIZES
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.probes import landscape_along_gradient, step_sizes
from bnlib.probes.stateless import loss_and_gradients_at
from bnlib.probes.tensors import flattened
from bnlib.training import best_device

__all__ = [
    "BATCH_SIZES",
    "EARLY",
    "EXPERIMENT",
    "INITS",
    "LATE",
    "LEARNING_RATES",
    "NORMS",
    "SIZES",
    "load",
    "lookup",
    "measure",
    "median_over_probes",
    "relative_beta_at_equal_loss",
    "relative_beta_rows",
    "train",
]

BATCH_SIZES = (16, 64, 256)
STEPS = {"mlp": 200, "vgg": 15_000}
PROBES, STEP_SIZES, RELATIVE_STEP = 20, 5, 0.03
EARLY, LATE = slice(1, 6), slice(12, 20)
"""Select the probes of the small network at the training steps 10 to 50, and 120 to 190."""


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return initialisation, norm, batch size and learning rate in all combinations; at paper scale VGG only."""
    return probed_training.cells(scale, BATCH_SIZES)


def measure(
    network: str, init: str, norm: str, batch_size: int, lr: float, *, seed: int, device: str
) -> dict[str, Any]:
    """Train with SGD, and measure along the gradient of the mini-batch at ``PROBES`` evenly spaced training steps.

    Returns:
        one number per probe of each of these: ``loss`` of the mini-batch, in nats; ``lowest_loss`` and
        ``highest_loss`` at ``STEP_SIZES`` step sizes from 1/2 to 4 learning rates; ``smallest_change`` and
        ``largest_change``, the norm of the change of the gradient at these step sizes; ``beta``, the effective
        smoothness constant M; ``cosine`` of the gradients before and after a step at the learning rate;
        ``relative_beta``, the relative M, with each weight matrix in units of its norm, over a step of length
        ``RELATIVE_STEP``.
    """
    return _columns(list(_probes(network, init, norm, batch_size, lr, seed, device)))


def _probes(network, init, norm, batch_size: int, lr: float, seed: int, device) -> Iterator[tuple[float, ...]]:
    steps = STEPS[network]
    settings = network, init, norm, batch_size, lr, steps, seed, device
    for step, model, _, loss in probed_training.training_steps(*settings, losses=[]):
        if step % (steps // PROBES) == 0:
            matrices = [name for name, value in model.named_parameters() if value.dim() > 1]
            yield _probe(model, loss, lr, matrices)


def _columns(rows: Sequence[tuple[float, ...]]) -> dict[str, list[float]]:
    names = (
        "loss",
        "lowest_loss",
        "highest_loss",
        "smallest_change",
        "largest_change",
        "beta",
        "cosine",
        "relative_beta",
    )
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def _probe(model: nn.Module, loss, lr: float, matrices: list[str]) -> tuple[float, ...]:
    found = landscape_along_gradient(model, loss, step_sizes(lr, count=STEP_SIZES))
    losses, changes = found.loss_range.tolist(), torch.stack(found.gradient_change.aminmax()).tolist()
    cosine_and_relative_beta = _cosine_and_relative_beta(model, loss, lr, matrices)
    return found.loss.item(), *losses, *changes, found.smoothness.item(), *cosine_and_relative_beta


def _cosine_and_relative_beta(model: nn.Module, loss, lr: float, matrices: list[str]) -> tuple[float, float]:
    r"""Return the cosine of the gradients before and after a step at ``lr``, and the relative smoothness constant M.

    The relative M uses the coordinates $W_l / \|W_l\|$, with the current norms as constants, so that the
    gradient is $\|W_l\|\,g_l$. Multiplying a layer that a norm follows does not change it, nor does multiplying
    one ReLU layer and dividing the next by the same number.
    """
    old = dict(model.named_parameters())
    _, gradients = loss_and_gradients_at(model, loss, old, list(old))
    moved = {name: value.detach() - lr * gradients[name] for name, value in old.items()}
    _, after = loss_and_gradients_at(model, loss, moved, list(old))
    both = [flattened(each[name] for name in old) for each in (gradients, after)]
    norms = {name: old[name].detach().norm() for name in matrices}
    unit = flattened(norms[name] * gradients[name] for name in matrices).norm()
    step = RELATIVE_STEP / unit
    near = {name: old[name].detach() - step * norms[name] ** 2 * gradients[name] for name in matrices}
    _, there = loss_and_gradients_at(model, loss, old | near, matrices)
    change = flattened(norms[name] * (there[name] - gradients[name]) for name in matrices).norm()
    return torch.cosine_similarity(*both, dim=0).item(), (change / RELATIVE_STEP).item()


EXPERIMENT = Measurement(
    name="smoothness.landscape_over_training",
    question="How much do the loss and its gradient change along the gradient while a network trains?",
    source="Santurkar et al. 2018, figure 4",
    axes=AXES,
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result: numbers of shape (seeds, probes) for each setting."""
    return EXPERIMENT.load("quick")


def lookup(init: str, batch_size: int, lr: float) -> dict[str, dict[str, np.ndarray]]:
    """Return the committed numbers of the networks with and without BN for one setting."""
    return {norm: load()["mlp", init, norm, batch_size, lr] for norm in NORMS}


def median_over_probes(values: np.ndarray, probes: slice) -> np.ndarray:
    """Return for each seed the median over some of the probes, of values (seeds, probes); NaN counts as infinite."""
    return np.median(np.nan_to_num(values[:, probes], nan=np.inf), axis=1)


def relative_beta_at_equal_loss(row: dict[str, np.ndarray], low: float = 0.3, high: float = 0.6) -> np.ndarray:
    """Return for each seed the median relative M over the probes whose loss is between two values.

    Seeds without such a probe are left out.

    Arguments:
        row: numbers of one setting, as in ``load``.
        low, high: limits of the loss, in nats.
    """
    inside = (row["loss"] > low) & (row["loss"] < high)
    return np.array([np.median(v[i]) for v, i in zip(row["relative_beta"], inside, strict=True) if i.any()])


def relative_beta_rows() -> list[dict]:
    """Return table rows, one per setting: relative M at equal loss per seed, and the ratio of the medians."""
    rows = []
    for init, batch_size, lr in [
        ("He", 256, 0.1),
        ("He", 64, 0.1),
        ("He", 16, 0.1),
        ("He", 16, 0.3),
        ("PyTorch default", 16, 0.3),
    ]:
        betas = {norm: relative_beta_at_equal_loss(load()["mlp", init, norm, batch_size, lr]) for norm in NORMS}
        plain, bn = (np.median(betas[norm]) for norm in NORMS)
        setting = {"initialisation": init, "batch size": batch_size, "learning rate": f"{lr:g}"}
        rows.append(setting | betas | {"without / with BN": tables.significant(plain / bn)})
    return rows


_live_seed = itertools.count(100)


def train(
    init: str, batch_size: int, lr: float, device: torch.device | str | None = None
) -> Iterator[tuple[int, int, dict[str, dict[str, np.ndarray]]]]:
    """Train both networks now, with a new seed in each call; yield probes done, all probes and the numbers so far.

    The numbers have the form of ``lookup``, with one seed.
    """
    seed, device = next(_live_seed), device or best_device()
    runs = [_probes("mlp", init, norm, batch_size, lr, seed, device) for norm in NORMS]
    rows: list[tuple] = []
    for pair in zip(*runs, strict=True):
        rows.append(pair)
        data = {
            norm: {name: np.array([values]) for name, values in _columns(each).items()}
            for norm, each in zip(NORMS, zip(*rows, strict=True), strict=True)
        }
        yield len(rows), PROBES, data
