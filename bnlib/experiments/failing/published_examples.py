"""The examples of an answer on failing BN, as printed there, and with the controls that they lack.

A network 10-20-1 learns 100 samples with Adam and the squared error, in batches cut once from the order of the data.
"""

from __future__ import annotations

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
    "no norm": partial(mlp, (10, 20, 1)),
}
SAMPLES, TESTS, EPOCHS, LEARNING_RATE, GROUP = 100, 1000, 200, 1e-3, 10
NOISE = (0.0, 0.5, 1.0)
"""Share of the targets' variance that no input explains; 1 as printed."""
CHECKPOINTS = (1, 2, 5, 10, 20, 50, 100, 150, 200)
WHERE = ("own", "dealt", "evaluation", "test")


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Each network as printed; BN with other orders, and with targets that can be learnt."""
    grid = [(net, "printed", size, 1.0) for net in NETWORKS for size in (4, 32)]
    grid += [("BN, ReLU", order, 4, 1.0) for order in ("same batches", "shuffled")]
    grid += [("BN, ReLU", order, 4, noise) for order in ("printed", "shuffled") for noise in NOISE[:-1]]
    grid += [("no norm", order, 4, 0.0) for order in ("printed", "shuffled")]
    return {setting: range({"quick": 2, "paper": 6}[scale]) for setting in grid}


def measure(network: str, order: str, batch_size: int, noise: float, *, seed: int, device) -> dict[str, list]:
    """Train ``GROUP`` networks side by side, each on data of its own, and take the mean squared error in four ways.

    Arguments:
        network: of ``NETWORKS``.
        order: "printed", batches cut once, in the order of the data; "same batches", these in a new order each epoch;
            "shuffled", samples dealt out anew each epoch. The last batch of an epoch may be smaller.
        batch_size: samples a batch.
        noise: share of the targets' variance, which is 1, that is noise; the rest is linear in the first four inputs.
        seed: of the group: of data, weights and batches.
        device: where it runs.

    Returns:
        at each of ``CHECKPOINTS`` and for each network, (checkpoints, ``GROUP``): ``own``, training set in train mode,
        in the batches as printed; ``dealt``, in batches dealt out anew, the mean of ten deals; ``evaluation``, in eval
        mode; ``test``, new samples in eval mode. For each network ``seen``, the mean of the losses of the last epoch's
        steps, and ``fluctuation``, their standard deviation.
    """
    generator = torch.Generator().manual_seed(seed)
    x, y = (each.to(device) for each in _samples(SAMPLES, noise, generator))
    new = [each.to(device) for each in _samples(TESTS, noise, generator)]
    model = stack([NETWORKS[network](seed=GROUP * seed + number) for number in range(GROUP)]).to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    printed = torch.arange(SAMPLES).split(batch_size)
    found: dict[str, list] = {name: [] for name in WHERE}
    seen: list[Tensor] = []
    for epoch in range(1, EPOCHS + 1):
        seen = []
        for index in _epoch(order, printed, generator):
            optimiser.zero_grad()
            losses = _losses(model, x[:, index], y[:, index])
            losses.sum().backward()
            optimiser.step()
            seen.append(losses.detach())
        if epoch in CHECKPOINTS:
            for name, values in _four(model, x, y, new, printed, generator).items():
                found[name].append(values.tolist())
    table = torch.stack(seen)
    return found | {"seen": table.mean(0).tolist(), "fluctuation": table.std(0).tolist()}


def _samples(count: int, noise: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs (GROUP, count, 10) and targets (GROUP, count, 1)."""
    x = torch.randn(GROUP, count, 10, generator=generator)
    drawn = torch.randn(GROUP, count, 1, generator=generator)
    return x, (1 - noise) ** 0.5 * x[..., :4].sum(-1, keepdim=True) / 2 + noise**0.5 * drawn


def _epoch(order: str, printed: Sequence[Tensor], generator: torch.Generator) -> Sequence[Tensor]:
    if order == "printed":
        return printed
    if order == "same batches":
        return [printed[place] for place in torch.randperm(len(printed), generator=generator)]
    return torch.randperm(SAMPLES, generator=generator).split(len(printed[0]))


def _losses(model, x: Tensor, y: Tensor) -> Tensor:
    """Of each network, shape (GROUP,)."""
    return (model(x) - y).square().mean((1, 2))


@torch.no_grad()
def _four(model, x: Tensor, y: Tensor, new: Sequence[Tensor], printed, generator) -> dict[str, Tensor]:
    """The running statistics are left as they were."""
    before = {name: value.clone() for name, value in model.named_buffers()}
    deals = [each for _ in range(10) for each in torch.randperm(SAMPLES, generator=generator).split(len(printed[0]))]
    found = {"own": _in_batches(model, x, y, printed), "dealt": _in_batches(model, x, y, deals)}
    for name, value in model.named_buffers():
        value.copy_(before[name])
    model.eval()
    found |= {"evaluation": _losses(model, x, y), "test": _losses(model, *new)}
    model.train()
    return found


def _in_batches(model, x: Tensor, y: Tensor, batches: Sequence[Tensor]) -> Tensor:
    total = sum(len(index) * _losses(model, x[:, index], y[:, index]) for index in batches)
    return total / sum(map(len, batches))


EXPERIMENT = Measurement(
    name="failing.published_examples",
    question="Do the examples of an answer on failing BN show what it says that they show?",
    source="'Why is the batch normalization layer failing?', 2025, code examples 1 and 2",
    axes=("network", "order", "batch_size", "noise"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """The committed result; networks in the last dimension, those of all groups."""
    return {
        cell: {name: np.moveaxis(value, 0, -2).reshape(*value.shape[1:-1], -1) for name, value in row.items()}
        for cell, row in EXPERIMENT.load("quick").items()
    }
