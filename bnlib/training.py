"""The one training loop."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F

from bnlib.datasets import Dataset
from bnlib.samplers import Sampler, shuffled
from bnlib.samplers import shuffled_batches as shuffled_batches
from bnlib.stacked import Stack, stack


@dataclass
class History:
    """What a training run recorded, one entry a checkpoint.

    Attributes:
        epoch: passes over the training set made so far (a fraction between full passes).
        train_loss: mean cross-entropy, in nats, of the mini-batches since the last checkpoint, as the optimiser
            saw them (train mode); at the first checkpoint, of the first mini-batch before any step.
        test_loss: mean cross-entropy of the test set, in nats, in eval mode.
        test_error: share of the test set classified wrongly, in eval mode.
        diverged: the loss stopped being a finite number; the run ended there.
        seconds: its share of the time that a sweep took for it; not compared.
    """

    epoch: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    test_error: list[float] = field(default_factory=list)
    diverged: bool = False
    seconds: float = field(default=0.0, compare=False)


def best_device() -> torch.device:
    """The machine's accelerator if it has one that torch can use, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def error_rate(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Share of samples classified wrongly, with ``model`` in eval mode and left in the mode it had."""
    return _evaluate(model, x, y)[1].item()


@torch.no_grad()
def _evaluate(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss and share of wrong answers in eval mode, of each model if ``model`` is a ``Stack``."""
    was_training = model.training
    logits = model.eval()(x)
    model.train(was_training)
    return _losses(logits, y.expand(logits.shape[:-1])), (logits.argmax(-1) != y).float().mean(-1)


def _losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    each = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
    return each.view(labels.shape).mean(-1)


def iterate(
    model: nn.Module,
    data: Dataset,
    *,
    batch_size: int,
    lr: float,
    momentum: float = 0.0,
    epochs: int = 10,
    points: int = 20,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batches: Sampler = shuffled,
) -> Iterator[tuple[int, int, History]]:
    """Train by SGD and yield (steps done, steps in all, the history so far) at each checkpoint.

    The caller may stop iterating at any time: the model then holds the weights of the last checkpoint.
    Divergence (a loss that is not finite) ends the run and is reported in the history; it is not an error.

    Arguments:
        model: trained in place, moved to ``device``.
        data: see ``bnlib.datasets.load``.
        batch_size: samples a step, all batches of this size.
        lr: learning rate of SGD, without decay or schedule.
        momentum: of SGD.
        epochs: passes over the training set.
        points: checkpoints after the first; they are spread evenly.
        seed: seed of the batch order.
        device: where the training runs.
        batches: how mini-batches are built; see ``bnlib.samplers``.

    Raises:
        ValueError: a ``batch_size`` that ``batches`` cannot make, such as one above the number of training samples.
    """
    indices = batches(data.train_y.cpu(), batch_size, seed)
    settings = {"batch_size": batch_size, "momentum": momentum, "epochs": epochs, "points": points, "device": device}
    for done, total, (history,) in _iterate(model, data, indices, torch.tensor([lr]), **settings):
        yield done, total, history


def iterate_many(
    models: Sequence[nn.Module],
    data: Dataset,
    *,
    lrs: Sequence[float],
    seeds: Sequence[int],
    batch_size: int,
    momentum: float = 0.0,
    epochs: int = 10,
    points: int = 20,
    device: torch.device | str = "cpu",
    batches: Sampler = shuffled,
) -> Iterator[tuple[int, int, list[History]]]:
    """Train models that are built alike as one (``bnlib.stacked``), each with a learning rate and seed of its own.

    Yields (steps done, steps in all, histories so far), each history being that of ``iterate`` up to rounding. A run
    that diverges has a history that ends there; the others go on. The models given are not changed.

    Raises:
        ValueError: not as many learning rates or seeds as models; else as ``iterate`` and ``stacked.stack``.
    """
    for name, values in (("lrs", lrs), ("seeds", seeds)):
        if len(values) != len(models):
            raise ValueError(f"{name} must have one value for each of {len(models)} models, got {len(values)}")
    each = [batches(data.train_y.cpu(), batch_size, seed) for seed in seeds]
    indices = (torch.stack(rows) for rows in zip(*each, strict=True))
    settings = {"batch_size": batch_size, "momentum": momentum, "epochs": epochs, "points": points, "device": device}
    yield from _iterate(stack(models), data, indices, torch.tensor(lrs), **settings)


def _iterate(model, data, indices, lrs, *, batch_size, momentum, epochs, points, device):
    """The loop itself, for one model and indices (N,), or for a ``Stack`` of E and indices (E, N)."""
    data, model = data.to(device), model.to(device).train()
    count = len(data.train_x)
    total = epochs * (count // batch_size)
    checkpoints = {round(total * point / points) for point in range(1, points + 1)}
    optimiser = torch.optim.SGD(model.parameters(), lr=lrs[0].item() if len(lrs) == 1 else 1.0, momentum=momentum)
    # A stack takes the learning rates into the gradients, which with a constant rate is the same.
    rates = model.spread(lrs.to(device)) if isinstance(model, Stack) else None
    histories, losses = [History() for _ in lrs], []
    for step in range(1, total + 1):
        index = next(indices).to(device)
        loss = _losses(model(data.train_x[index]), data.train_y[index])
        losses.append(loss.detach())
        if step == 1:
            _record(histories, 0.0, losses, model, data)
            yield 0, total, histories
        optimiser.zero_grad(set_to_none=False)
        loss.sum().backward()
        if rates is not None:
            torch._foreach_mul_([parameter.grad for parameter in model.parameters()], rates)
        optimiser.step()
        if step in checkpoints:
            _record(histories, step * batch_size / count, losses, model, data)
            losses = []
            yield step, total, histories
            if all(history.diverged for history in histories):
                return


def _record(histories: list[History], epoch: float, losses: list[torch.Tensor], model, data: Dataset) -> None:
    means = torch.stack(losses).double().mean(0)
    x = data.test_x.expand(len(histories), *data.test_x.shape) if isinstance(model, Stack) else data.test_x
    columns = [column.flatten().tolist() for column in (means, *_evaluate(model, x, data.test_y))]
    for history, mean, loss, error in zip(histories, *columns, strict=True):
        if not history.diverged:
            history.diverged = not math.isfinite(mean)
            history.epoch.append(epoch)
            history.train_loss.append(mean)
            history.test_loss.append(loss)
            history.test_error.append(error)


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
