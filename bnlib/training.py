"""The one training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F

from bnlib.datasets import Dataset


@dataclass
class History:
    """What a training run recorded, one entry a checkpoint.

    Attributes:
        epoch: passes over the training set made so far (a fraction between full passes).
        train_loss: mean cross-entropy, in nats, of the mini-batches since the last checkpoint, as the optimiser
            saw them (train mode); at the first checkpoint, of the first mini-batch before any step.
        test_error: share of the test set classified wrongly, in eval mode.
        diverged: the loss stopped being a finite number; the run ended there.
    """

    epoch: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    test_error: list[float] = field(default_factory=list)
    diverged: bool = False


def best_device() -> torch.device:
    """The machine's accelerator if it has one that torch can use, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@torch.no_grad()
def error_rate(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Share of samples classified wrongly, with ``model`` in eval mode and left in the mode it had."""
    was_training = model.training
    model.eval()
    wrong = (model(x).argmax(1) != y).float().mean().item()
    model.train(was_training)
    return wrong


def check_batch_size(batch_size: int, count: int) -> None:
    """Raise a ValueError if ``batch_size`` lies outside 1..``count``."""
    if not 1 <= batch_size <= count:
        raise ValueError(f"batch_size must lie between 1 and the number of samples ({count}), got {batch_size}")


def shuffled_batches(count: int, batch_size: int, seed: int) -> Iterator[torch.Tensor]:
    """Endless mini-batches of indices: a new random order for each epoch, the incomplete last batch dropped.

    Dropping keeps every step alike; a left-over batch of one sample would be a special case for BN.

    Raises:
        ValueError: ``batch_size`` outside 1..``count``.
    """
    check_batch_size(batch_size, count)
    generator = torch.Generator().manual_seed(seed)

    def epochs() -> Iterator[torch.Tensor]:
        while True:
            order = torch.randperm(count, generator=generator)
            yield from order[: count - count % batch_size].split(batch_size)

    return epochs()


def iterate(
    model: nn.Module,
    data: Dataset,
    *,
    batch_size: int,
    lr: float,
    epochs: int = 10,
    points: int = 20,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batches: Callable[[int, int, int], Iterator[torch.Tensor]] | None = None,
) -> Iterator[tuple[int, int, History]]:
    """Train by plain SGD and yield (steps done, steps in all, the history so far) at each checkpoint.

    The caller may stop iterating at any time: the model then holds the weights of the last checkpoint.
    Divergence (a loss that is not finite) ends the run and is reported in the history; it is not an error.

    Arguments:
        model: trained in place, moved to ``device``.
        data: see ``bnlib.datasets.load``.
        batch_size: samples a step, all batches of this size.
        lr: learning rate of SGD, without momentum, decay or schedule.
        epochs: passes over the training set.
        points: checkpoints after the first; they are spread evenly.
        seed: seed of the batch order.
        device: where the training runs.
        batches: makes the endless mini-batches of indices from the number of samples, ``batch_size`` and ``seed``;
            ``shuffled_batches`` if None.

    Raises:
        ValueError: ``batch_size`` outside 1..number of training samples.
    """
    data, model = data.to(device), model.to(device).train()
    count = len(data.train_x)
    batches = (batches or shuffled_batches)(count, batch_size, seed)
    total = epochs * (count // batch_size)
    checkpoints = {round(total * point / points) for point in range(1, points + 1)}
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)
    history, losses = History(), []
    for step in range(1, total + 1):
        index = next(batches).to(device)
        loss = F.cross_entropy(model(data.train_x[index]), data.train_y[index])
        losses.append(loss.detach())
        if step == 1:
            _record(history, 0.0, losses, model, data)
            yield 0, total, history
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step in checkpoints:
            _record(history, step * batch_size / count, losses, model, data)
            losses = []
            yield step, total, history
            if history.diverged:
                return


def _record(history: History, epoch: float, losses: list, model: nn.Module, data: Dataset) -> None:
    mean = torch.stack(losses).cpu().double().mean().item()
    history.diverged = not torch.isfinite(torch.tensor(mean)).item()
    history.epoch.append(epoch)
    history.train_loss.append(mean)
    history.test_error.append(error_rate(model, data.test_x, data.test_y))


def fit(model: nn.Module, data: Dataset, *, progress: bool = True, **settings) -> History:
    """Train to the end with a progress bar and return the history; ``settings`` are those of ``iterate``.

    Raises:
        ValueError: as ``iterate``.
    """
    if not progress:
        *_, (_, _, history) = iterate(model, data, **settings)
        return history
    from tqdm.auto import tqdm

    with tqdm(unit="step", leave=False) as bar:
        for done, total, newest in iterate(model, data, **settings):
            history, bar.total = newest, total
            bar.update(done - bar.n)
    return history
