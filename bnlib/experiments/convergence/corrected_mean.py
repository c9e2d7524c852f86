r"""Train with ``FullNorm`` whose first running mean is corrected before each step, and without the correction.

The inputs of the first layer never change, so only its weights move the mean of its outputs: a step that adds
$\Delta W$ and $\Delta c$ moves it by $\Delta W\,E[x]+\Delta c$. Before each forward pass the correction adds this to
the running mean, with the mean of the batch in place of $E[x]$; this is the estimate of Chen, Sun and Yin (2021).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import FullNorm, datasets
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp
from bnlib.samplers import shuffled, single_label

SIZES = (64, 50, 50, 10)
BATCHES = {"shuffled": shuffled, "one label": single_label}
STEPS = {("shuffled", 1): 1437, ("one label", 16): 440, ("shuffled", 64): 440}
"""The number of training steps by construction and batch size."""
LEARNING_RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
MEANS = ("running", "corrected")


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return each construction and batch size with and without the correction, at each learning rate."""
    grid = itertools.product(STEPS, MEANS, LEARNING_RATES)
    return {(*setting, mean, lr): range(5) for setting, mean, lr in grid}


def measure(construction: str, batch_size: int, mean: str, lr: float, *, seed: int, device: str) -> dict[str, float]:
    """Train an MLP with ``FullNorm`` on digits by SGD, and return the ``test_error``; a run that diverged has 0.9."""
    data, steps = datasets.load("digits").to(device), STEPS[construction, batch_size]
    network, before = mlp(SIZES, FullNorm, seed=seed).to(device), None
    optimiser, (_, linear, norm, *_) = torch.optim.SGD(network.parameters(), lr=lr), network
    x = data.train_x.flatten(1)
    for index in itertools.islice(BATCHES[construction](data.train_y.cpu(), batch_size, seed), steps):
        if before is not None and mean == "corrected":
            correct(norm, linear, before, x[index])
        before = linear.weight.detach().clone(), linear.bias.detach().clone()
        optimiser.zero_grad()
        loss = F.cross_entropy(network(x[index]), data.train_y[index])
        if not loss.isfinite():
            return {"test_error": 0.9}
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        wrong = network.eval()(data.test_x).argmax(1) != data.test_y
    return {"test_error": wrong.double().mean().item()}


@torch.no_grad()
def correct(norm: FullNorm, linear: nn.Linear, before: tuple[Tensor, Tensor], x: Tensor) -> None:
    """Move the running mean by what the last step has changed: weight and bias were ``before``; ``x`` is the batch."""
    old, now = (F.linear(x.mean(0), *each) for each in (before, (linear.weight, linear.bias)))
    norm.running_mean += now - old


EXPERIMENT = Measurement(
    name="convergence.corrected_mean",
    question="Does Full Normalization train at larger rates if the first layer's running mean follows its weights?",
    source="chapter 12; Chen, Sun and Yin 2021",
    axes=("construction", "batch_size", "mean", "lr"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, np.ndarray]:
    """Load the committed test errors (%), one per seed, by construction, batch size, mean and learning rate."""
    return {cell: 100 * values["test_error"] for cell, values in EXPERIMENT.load("quick").items()}


def rows() -> list[dict]:
    """Return a row for each construction, batch size and mean, with the test errors by learning rate."""
    return [
        {"batches, first mean": f"{construction}, {size}, {mean}"}
        | {("learning rate", f"{lr:g}"): load()[construction, size, mean, lr] for lr in LEARNING_RATES}
        for (construction, size), mean in itertools.product(STEPS, MEANS)
    ]
