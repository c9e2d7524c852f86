"""The contest on five workers whose images show different labels: how the workers train, and the rule.

This file was written, and committed, before the first run of this part of the contest. Its rule:

1. *Workers.* The training images, sorted by label, are divided among five workers, so that each has images of two
   labels, and a few of a third where the labels are not equally frequent. Each worker takes steps of plain SGD on
   batches of its own images and normalises them alone. No batch and no statistic of a batch is ever synchronised.
2. *Two ways to train together.* With ``local steps`` each worker goes on alone for 64 of its images (16 steps with
   batches of 4, four with batches of 16); then the parameters and all buffers of the norms are set to their means over
   the workers. With ``joined gradients`` the gradients are set to their mean over the workers in every step, so that
   all workers have the same parameters, but each keeps its own buffers.
3. *Length.* Each worker sees 48 times 64 images, so that all workers together see about 15,400: in the selection and in
   the test, with both ways and both batch sizes.
4. *Selection and test* are those of ``rivals``: the same network, the same norms with the same two settings each, five
   learning rates, two seeds on the same images kept apart, five other seeds for the test, the smallest mean error, and
   the same initial weights and batches for all norms. The rates are those of ``rivals`` for batches of 16 and of 64,
   since the workers' batches together have 20 and 80 images. Tested is one network, with the means of the parameters
   and of the buffers over the workers.
5. *Verdict and edges* are those of ``rivals`` at each place, a way to train together and a batch size of a worker. A
   run diverges if a loss of one of its workers is not finite. Where the smallest mean error of all norms is 80 % or
   more, no norm learns, and the verdict says nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib.datasets import Dataset
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.full_normalization import rivals
from bnlib.samplers import PerWorker
from bnlib.stacked import Stack, stack
from bnlib.training import error_rate
from bnlib.training.threads import products_per_step, threads_for

WORKERS = 5
WAYS = ("local steps", "joined gradients")
"""How the workers train together."""
BATCH_SIZES = (4, 16)
ROUND, ROUNDS = 64, 48
"""Images of each worker in a round, and the number of rounds."""
LEARNING_RATES = rivals.learning_rates("SGD", 16)
PLACES = tuple(itertools.product(WAYS, BATCH_SIZES))
"""A way to train together and a batch size of a worker each."""
_CHANNELS_SECOND = ("recent_inputs", "recent_products", "recent_vars", "recent_slopes")
"""Buffers whose second dimension are the channels of a stack of networks; that of all others is the first."""


def selection_cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return the seeds of the selection, by norm, setting, way to train together, batch size and learning rate."""
    return {
        (norm, setting, way, batch_size, lr): rivals.SELECTION_SEEDS
        for way, batch_size in PLACES
        for norm in rivals.NORMS
        for setting in rivals.NORMS[norm]
        for lr in LEARNING_RATES
    }


def train(
    norm: str,
    setting: str,
    way: str,
    batch_size: int,
    runs: Sequence[tuple[float, int]],
    data: Dataset,
    *,
    rounds: int = ROUNDS,
    dtype: torch.dtype = torch.float32,
) -> list[nn.Module | None]:
    """Train networks on all workers, and return their means over the workers.

    Arguments:
        norm, setting: keys of ``rivals.NORMS`` and of its value.
        way: one of ``WAYS``.
        batch_size: images in a batch of one worker.
        runs: learning rate and seed of each training; the seed is that of the shards, of the batches and of the
            network, from which all workers start.
        data: its training images are divided among the workers.
        rounds: number of rounds.
        dtype: type of all numbers.

    Returns:
        for each run a network with the means of parameters and buffers, None if a worker's loss was not finite.
    """
    model = stack(
        [rivals.model(norm, setting, seed=seed).to(dtype) for _, seed in runs for _ in range(WORKERS)]
    ).train()
    optimiser = _SGD(model, [lr for lr, _ in runs])
    losses, steps = torch.zeros(model.size, dtype=dtype), ROUND // batch_size
    batches = _batches(data, batch_size, [seed for _, seed in runs])
    with threads_for(products_per_step(model, data.train_x.shape[1:], batch_size)):
        for step, index in enumerate(itertools.islice(batches, rounds * steps), start=1):
            losses += _backward(model, data.train_x[index].to(dtype), data.train_y[index])
            if way == "joined gradients":
                optimiser.join()
            optimiser.step()
            if way == "local steps" and step % steps == 0:
                average(model)
        average(model)
    finite = losses.isfinite().view(len(runs), WORKERS).all(1).tolist()
    trained = model.unstack()[::WORKERS]
    return [each if good else None for each, good in zip(trained, finite, strict=True)]


def _batches(data: Dataset, batch_size: int, seeds: Sequence[int]) -> Iterator[Tensor]:
    """Return the indices of the batches of all workers of one run after another, shape (E, N) each, without end."""
    streams = [
        PerWorker(rank, WORKERS, skew=1.0)(data.train_y, batch_size, seed) for seed in seeds for rank in range(WORKERS)
    ]
    return (torch.stack(rows) for rows in zip(*streams, strict=True))


def _backward(model: Stack, x: Tensor, labels: Tensor) -> Tensor:
    """Compute the gradients of each network's own mean loss, and return these losses."""
    model.zero_grad(set_to_none=True)
    losses = F.cross_entropy(model(x).flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape).mean(1)
    losses.sum().backward()
    return losses.detach()


class _SGD:
    """Plain SGD for a stack with the networks of all workers of one run after another."""

    def __init__(self, model: Stack, rates: Sequence[float]) -> None:
        self.parameters, self.networks = list(model.parameters()), model.size
        self.rates = model.broadcast_to_parameters(torch.tensor(rates).double().repeat_interleave(WORKERS))

    def join(self) -> None:
        """Set the gradients to their means over the workers."""
        for parameter in self.parameters:
            _set_to_mean(parameter.grad, 0, self.networks)

    @torch.no_grad()
    def step(self) -> None:
        """Take a step."""
        for parameter, rate in zip(self.parameters, self.rates, strict=True):
            parameter.sub_(rate * parameter.grad)


@torch.no_grad()
def average(model: Stack) -> None:
    """Set all parameters and buffers of a stack to their means over the workers, in place.

    The numbers of batches that the norms have seen are single numbers, the same for all workers.
    """
    for name, value in itertools.chain(model.named_parameters(), model.named_buffers()):
        if value.dim():
            _set_to_mean(value.data, int(name.endswith(_CHANNELS_SECOND)), model.size)


def _set_to_mean(values: Tensor, dimension: int, networks: int) -> None:
    """Set values to their means over the workers; those of each network are adjacent in a dimension."""
    each = values.unflatten(dimension, (networks // WORKERS, WORKERS, -1))
    each.copy_(each.mean(dimension + 1, keepdim=True).expand_as(each))


def measure_selection(
    norm: str, setting: str, way: str, batch_size: int, lr: float, *, seed: int, device
) -> dict[str, float]:
    """Train on the CPU, and return the error on the images kept apart, nan if the run diverged."""
    runs = tuple(itertools.product(LEARNING_RATES, rivals.SELECTION_SEEDS))
    return _measured((norm, setting, way, batch_size), (lr, seed), runs, rivals.selection_images())


def measure_test(
    norm: str, setting: str, way: str, batch_size: int, lr: float, *, seed: int, device
) -> dict[str, float]:
    """Train on the CPU, and return the error on the test images, nan if the run diverged."""
    runs = tuple((lr, each) for each in rivals.SEEDS)
    return _measured((norm, setting, way, batch_size), (lr, seed), runs, rivals.images())


_known: dict[tuple, float] = {}
"""The errors of runs that were trained together with another one."""


def _measured(arm: tuple, run: tuple[float, int], runs: Sequence[tuple[float, int]], data: Dataset) -> dict[str, float]:
    """Return the error of a run; with the first one of an arm all its runs are trained, because that is faster."""
    if (arm, run, len(runs)) not in _known:
        chosen = runs if run == runs[0] else (run,)
        for each, model in zip(chosen, train(*arm, chosen, data), strict=True):
            error = math.nan if model is None else error_rate(model, data.test_x, data.test_y)
            _known[arm, each, len(runs)] = error
    return {"test_error": _known[arm, run, len(runs)]}
