r"""Compare the gradient of Full Normalization with that of all data along a training, and with its estimates' errors.

Given its estimates, the oracle "running" has the mean $\partial_w\mathcal L(w,\hat u,\hat\psi)$, which
``lagrangian`` computes over all training images; the bias is its distance from the gradient of the objective. The bias
has two parts: the one with exact adjoints comes from the statistics, and the rest from the adjoints. It leaves out a
third part: a layer moves its statistics with the current batch before it uses them, and here they stay fixed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import FullNorm, datasets
from bnlib.experiments.convergence import lagrangian
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp
from bnlib.samplers import shuffled
from bnlib.schedules import PowerSchedule

SIZES, BATCH_SIZE = (64, 50, 50, 50, 10), 16
LEARNING_RATES, FLOORS = (0.02, 0.2), (0.3, 0.1, 0.03, 0.01, 0.003)
STEPS, EVERY, BATCHES = 1000, 100, 4


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return each learning rate with each floor of alpha."""
    return {cell: range(3) for cell in itertools.product(LEARNING_RATES, FLOORS)}


def measure(lr: float, floor: float, *, seed: int, device: str) -> dict[str, Any]:
    """Train an MLP with FullNorm on digits by SGD and compare every ``EVERY`` steps.

    Returns:
        lists over the comparisons, all of them norms over the parameters or over all layers and channels: ``gradient``
        of the objective, ``bias`` of the oracle, its parts ``bias_of_statistics`` and ``bias_of_adjoints``, ``noise``,
        the root mean square distance of the oracle's gradient in a batch from its mean; ``error_of_statistics`` and
        ``error_of_adjoints``, see ``errors``; ``adjoints``, the size of the exact ones. And ``along``, the component of
        the oracle's mean gradient along the gradient of the objective, over the length of the latter.
    """
    data = datasets.load("digits").to(device)
    alpha = PowerSchedule(scale=1, power=1, floor=floor, start=1)
    network = mlp(SIZES, partial(FullNorm, alpha=alpha), seed=seed).to(device)
    everything, rows = (data.train_x.flatten(1), data.train_y), []
    optimiser = torch.optim.SGD(network.parameters(), lr=lr)
    batches = shuffled(data.train_y.cpu(), BATCH_SIZE, seed)
    for step in range(STEPS + 1):
        if step and step % EVERY == 0:
            rows.append(compare(network, everything, [next(batches) for _ in range(BATCHES)]))
        index = next(batches)
        optimiser.zero_grad()
        F.cross_entropy(network(data.train_x[index]), data.train_y[index]).backward()
        optimiser.step()
    return {name: [row[name] for row in rows] for name in rows[0]}


def compare(network: nn.Sequential, data: tuple[Tensor, Tensor], batches: Sequence[Tensor]) -> dict[str, float]:
    """Return one row of ``measure``; neither the network nor its estimates change."""
    found, (u, adjoints) = lagrangian.exact(network, data), lagrangian.tracked_by(network)
    gradient, part, mean = (
        lagrangian.flat(each)
        for each in (
            found.gradient,
            lagrangian.mean_gradient(network, data, u, found.adjoints),
            lagrangian.mean_gradient(network, data, u, adjoints),
        )
    )
    noise = [
        (lagrangian.flat(lagrangian.mean_gradient(network, (data[0][i], data[1][i]), u, adjoints)) - mean)
        .square()
        .sum()
        for i in batches
    ]
    of_statistics, of_adjoints, size = errors(network, found, u, adjoints)
    return {
        "gradient": gradient.norm().item(),
        "bias": (mean - gradient).norm().item(),
        "along": (torch.dot(mean, gradient) / gradient.square().sum()).item(),
        "bias_of_statistics": (part - gradient).norm().item(),
        "bias_of_adjoints": (mean - part).norm().item(),
        "noise": torch.stack(noise).mean().sqrt().item(),
        "error_of_statistics": of_statistics,
        "error_of_adjoints": of_adjoints,
        "adjoints": size,
    }


def errors(network: nn.Sequential, found: lagrangian.Exact, u: list[Tensor], adjoints: list[Tensor]):
    r"""Return the errors of statistics and adjoints, and the size of the exact adjoints, as norms over all channels.

    Statistics are compared as a layer uses them: means in standard deviations $\sigma$, variances v as half the
    logarithm of their ratio. The adjoints belong to the same coordinates, $\sigma\,\partial J/\partial\mu$ and
    $2v\,\partial J/\partial v$, so that their products with the errors of the statistics are losses.
    """
    of_statistics, of_adjoints, sizes = [], [], []
    for estimate, true, adjoint, true_adjoint in zip(u, found.statistics, adjoints, found.adjoints, strict=True):
        variance = true[1] - true[0].square()
        sigma = variance.sqrt()
        of_statistics += [
            (estimate[0] - true[0]) / sigma,
            ((estimate[1] - estimate[0].square()) / variance).log() / 2,
        ]
        scaled = [
            torch.cat((sigma * (each[0] + 2 * true[0] * each[1]), 2 * variance * each[1]))
            for each in (adjoint, true_adjoint)
        ]
        of_adjoints.append(scaled[0] - scaled[1])
        sizes.append(scaled[1])
    return tuple(torch.cat(each).norm().item() for each in (of_statistics, of_adjoints, sizes))


EXPERIMENT = Measurement(
    name="convergence.adjoint_errors",
    question="Is the bias of Full Normalization's gradient bounded by the errors of its estimates, along a training?",
    source="chapter 12, the bound on the bias",
    axes=("lr", "floor"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def cosines() -> dict[tuple, np.ndarray]:
    """Return the cosine between the oracle's mean gradient and that of the objective, (seeds, comparisons)."""
    found = {}
    for cell, values in load().items():
        length, along = values["gradient"], values["along"]
        found[cell] = along / np.sqrt(np.square(values["bias"] / length) + 2 * along - 1)
    return found


def rows(first: int = 5) -> list[dict]:
    """Return medians over seeds and over the comparisons from number ``first`` on, a row per setting.

    The mean of ``along`` is over all of them: a part of the bias that changes its sign from time to time falls out.
    """
    found, cosine = [], cosines()
    for (lr, floor), values in load().items():
        later = {name: value[:, first:] for name, value in values.items()}
        found.append(
            {
                "learning rate": f"{lr:g}",
                "floor of α": f"{floor:g}",
                "bias": f"{np.median(later['bias']):.2f}",
                "bias / gradient": np.median(later["bias"] / later["gradient"]),
                "noise / gradient": np.median(later["noise"] / later["gradient"]),
                "mean gradient along the true one": later["along"].mean(),
                "cosine of both": f"{np.median(cosine[lr, floor][:, first:]):.2f}",
            }
        )
    return found
