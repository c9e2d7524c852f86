"""The one training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

from bnlib import distributed
from bnlib.datasets import Dataset
from bnlib.samplers import PerWorker, Sampler, shuffled
from bnlib.schedules import Schedule
from bnlib.stacked import Stack, stack

OptimiserMaker = Callable[..., Optimizer]
"""Makes an optimiser from parameters and ``lr=``."""

Callback = Callable[[int, nn.Module, Tensor], object]
"""``callback(steps, model, indices)``, called after a step; something true as its answer ends the run."""


@dataclass
class History:
    """What a training run recorded: one entry a checkpoint, and a step if that was asked for.

    Attributes:
        epoch: passes over the training set made so far (a fraction between full passes).
        train_loss: mean cross-entropy, in nats, of the mini-batches since the last checkpoint, as the optimiser
            saw them (train mode); at the first checkpoint, of the first mini-batch before any step.
        train_error: share of the samples of these mini-batches classified wrongly.
        test_loss: mean cross-entropy of the test set, in nats, in eval mode.
        test_error: share of the test set classified wrongly, in eval mode.
        step_loss: mean cross-entropy of the mini-batch of each step, if ``record_step_loss`` asks for it.
        diverged: the loss stopped being a finite number; the run ended there.
        seconds: its share of the time that a sweep took for it; not compared.
    """

    epoch: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    train_error: list[float] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    test_error: list[float] = field(default_factory=list)
    step_loss: list[float] = field(default_factory=list)
    diverged: bool = False
    seconds: float = field(default=0.0, compare=False)


def best_device() -> torch.device:
    """The machine's accelerator if it has one that torch can use, else the CPU.

    Example:
        >>> data = datasets.load("three_points").to(training.best_device())
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def error_rate(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of samples classified wrongly, with ``model`` in eval mode and left in the mode it had.

    Example:
        >>> round(training.error_rate(nn.Identity(), torch.eye(3), torch.tensor([0, 1, 0])), 2)
        0.33
    """
    return _evaluate(model, x, y)[1].item()


def iterate(
    model: nn.Module,
    data: Dataset,
    *,
    batch_size: int,
    lr: float,
    optimiser: OptimiserMaker = SGD,
    schedule: Schedule | None = None,
    epochs: int = 10,
    checkpoints: int = 20,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batches: Sampler = shuffled,
    callbacks: Iterable[Callback] = (),
    record_step_loss: bool = False,
) -> Iterator[tuple[int, int, History]]:
    """Train and yield (steps done, steps in all, the history so far) at each checkpoint.

    The caller may stop iterating at any time: the model then holds the weights of the last checkpoint.
    Divergence (a loss that is not finite) ends the run and is reported in the history; it is not an error.
    In the processes of ``torchrun`` (``bnlib.distributed``) each draws batches from a shard of its own; losses and
    errors are means over all processes, and those of the test set, too, for each has its own running statistics.

    Arguments:
        model: trained in place, moved to ``device``.
        data: see ``bnlib.datasets.load``.
        batch_size: samples a step and process, all batches of this size.
        lr: learning rate.
        optimiser: makes the optimiser from the parameters and ``lr=``: a class of ``torch.optim``, or a
            ``functools.partial`` of one, such as ``partial(SGD, momentum=0.9)``.
        schedule: multiplies the learning rate; a function of the epochs done, see ``bnlib.schedules``.
        epochs: passes over the training set.
        checkpoints: checkpoints after the first; they are spread evenly.
        seed: seed of the batch order.
        device: where the training runs.
        batches: how mini-batches are built; see ``bnlib.samplers``.
        callbacks: called after each step with the number of steps done, the model and the indices of the batch. If one
            answers with something true, the run ends with a checkpoint.
        record_step_loss: record ``step_loss``.

    Raises:
        ValueError: a ``batch_size`` that ``batches`` cannot make, such as one above the number of training samples.

    Example:
        >>> data, model = datasets.load("three_points"), models.three_point_network(seed=1)
        >>> for step, steps, history in training.iterate(model, data, batch_size=3, lr=0.5, epochs=100, checkpoints=2):
        ...     print(f"{step} of {steps}: loss {history.test_loss[-1]:.1f}")
        0 of 100: loss 1.1
        50 of 100: loss 0.1
        100 of 100: loss 0.0
    """
    rank, workers = distributed.rank_and_world_size()
    batches = batches if workers == 1 else PerWorker(rank, workers, batches)
    indices = batches(data.train_y.cpu(), batch_size, seed)
    loop = _Loop(model, data, [lr], batch_size, optimiser, schedule, epochs, checkpoints, device, record_step_loss)
    for done, (history,) in loop.run(indices, callbacks):
        yield done, loop.total, history


def iterate_many(
    models: Sequence[nn.Module],
    data: Dataset,
    *,
    lrs: Sequence[float],
    seeds: Sequence[int],
    batch_size: int,
    optimiser: OptimiserMaker = SGD,
    schedule: Schedule | None = None,
    epochs: int = 10,
    checkpoints: int = 20,
    device: torch.device | str = "cpu",
    batches: Sampler = shuffled,
    record_step_loss: bool = False,
) -> Iterator[tuple[int, int, list[History]]]:
    """Train models that are built alike as one (``bnlib.stacked``), each with a learning rate and seed of its own.

    Yields (steps done, steps in all, histories so far), each history being that of ``iterate`` up to rounding. A run
    that diverges has a history that ends there; the others go on. The models given are not changed.

    Raises:
        ValueError: not as many learning rates or seeds as models; learning rates that differ with an optimiser that
            ``step_is_proportional_to_gradient`` not; else as ``iterate`` and ``stacked.stack``.

    Example:
        >>> data, rates = datasets.load("three_points"), [0.01, 0.5]
        >>> both = [models.three_point_network(seed=1) for _ in rates]
        >>> *_, (step, steps, histories) = training.iterate_many(
        ...     both, data, lrs=rates, seeds=[0, 0], batch_size=3, epochs=100
        ... )
        >>> [round(history.train_loss[-1], 1) for history in histories]
        [0.8, 0.0]
    """
    for name, values in (("lrs", lrs), ("seeds", seeds)):
        if len(values) != len(models):
            raise ValueError(f"{name} must have one value for each of {len(models)} models, got {len(values)}")
    labels = data.train_y.cpu()
    each = [batches(labels, batch_size, seed) for seed in seeds]
    indices = (torch.stack(rows) for rows in zip(*each, strict=True))
    loop = _Loop(
        stack(models), data, lrs, batch_size, optimiser, schedule, epochs, checkpoints, device, record_step_loss
    )
    for done, histories in loop.run(indices):
        yield done, loop.total, histories


def step_is_proportional_to_gradient(optimiser: OptimiserMaker) -> bool:
    """Whether its step is proportional to the gradient, so that a factor there does what a learning rate does.

    Example:
        >>> training.step_is_proportional_to_gradient(torch.optim.SGD), training.step_is_proportional_to_gradient(torch.optim.Adam)
        (True, False)
    """
    kind = optimiser.func if isinstance(optimiser, partial) else optimiser
    return kind is SGD and not (isinstance(optimiser, partial) and optimiser.keywords.get("weight_decay"))


class _Loop:
    """Training of one model, or of a ``Stack`` of as many as there are learning rates."""

    def __init__(
        self, model, data, lrs, batch_size, optimiser, schedule, epochs, checkpoints, device, record_step_loss
    ):
        self.model, self.data, self.record_step_loss = model.to(device).train(), data.to(device), record_step_loss
        # Of all processes.
        self.batch_size = batch_size * distributed.rank_and_world_size()[1]
        self.per_epoch = len(data.train_x) // self.batch_size
        self.total = epochs * self.per_epoch
        self.checkpoints = {round(self.total * number / checkpoints) for number in range(1, checkpoints + 1)}
        mixed = len(set(lrs)) > 1
        if mixed and not step_is_proportional_to_gradient(optimiser):
            raise ValueError(f"lrs must all be the same with an optimiser other than SGD without decay, got {lrs}")
        # Different learning rates go into the gradients.
        self.rates = model.broadcast_to_parameters(torch.tensor(lrs).to(device)) if mixed else None
        self.lr, self.schedule = 1.0 if mixed else lrs[0], schedule
        self.optimiser = optimiser(self.model.parameters(), lr=self.lr)
        self.histories = [History() for _ in lrs]
        self.losses: list[Tensor] = []
        self.errors: list[Tensor] = []

    def run(self, indices: Iterator[Tensor], callbacks: Iterable[Callback] = ()) -> Iterator[tuple[int, list[History]]]:
        """Train to the end, for indices (N,) of one model or (E, N) of a stack."""
        called, callbacks = distributed.data_parallel(self.model), list(callbacks)
        for step in range(1, self.total + 1):
            index = next(indices)
            loss = self.forward(called, index.to(self.data.train_y.device))
            if step == 1:
                self.record(0)
                yield 0, self.histories
            self.step(loss, step)
            stop = any([callback(step, self.model, index) for callback in callbacks])
            if stop or step in self.checkpoints:
                self.record(step)
                self.losses, self.errors = [], []
                yield step, self.histories
            if stop or all(history.diverged for history in self.histories):
                return

    def forward(self, called: nn.Module, index: Tensor) -> Tensor:
        """Keep loss and error of a batch, and return the losses."""
        labels = self.data.train_y[index]
        logits = called(self.data.train_x[index])
        loss = _losses(logits, labels)
        self.losses.append(loss.detach())
        self.errors.append(_errors(logits.detach(), labels))
        return loss

    def step(self, loss: Tensor, number: int) -> None:
        """Let the optimiser make a step."""
        if self.schedule is not None:
            for group in self.optimiser.param_groups:
                group["lr"] = self.lr * self.schedule((number - 1) / self.per_epoch)
        self.optimiser.zero_grad(set_to_none=False)
        loss.sum().backward()
        if self.rates is not None:
            torch._foreach_mul_([parameter.grad for parameter in self.model.parameters()], self.rates)
        self.optimiser.step()

    def record(self, step: int) -> None:
        """Add a checkpoint to the histories of the runs that have not diverged."""
        x = self.data.test_x
        x = x.expand(len(self.histories), *x.shape) if isinstance(self.model, Stack) else x
        # float64 is for the CPU: not all devices have it.
        each, errors = (torch.stack(rows).cpu().double().view(len(rows), -1) for rows in (self.losses, self.errors))
        test = [column.cpu().double().flatten() for column in _evaluate(self.model, x, self.data.test_y)]
        columns = distributed.mean_over_processes(torch.stack([each.mean(0), errors.mean(0), *test])).T.tolist()
        steps = (
            distributed.mean_over_processes(each).T.tolist()
            if self.record_step_loss and step
            else [[]] * len(self.histories)
        )
        for history, (loss, error, test_loss, test_error), newest in zip(self.histories, columns, steps, strict=True):
            if not history.diverged:
                history.diverged = not math.isfinite(loss)
                history.epoch.append(step * self.batch_size / len(self.data.train_x))
                history.train_loss.append(loss)
                history.train_error.append(error)
                history.test_loss.append(test_loss)
                history.test_error.append(test_error)
                history.step_loss += newest


@torch.no_grad()
def _evaluate(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss and share of wrong answers in eval mode, of each model if ``model`` is a ``Stack``."""
    was_training = model.training
    logits = model.eval()(x)
    model.train(was_training)
    return _losses(logits, y.expand(logits.shape[:-1])), _errors(logits, y)


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    each = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
    return each.view(labels.shape).mean(-1)


def _errors(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(-1) != labels).float().mean(-1)


def fit(model: nn.Module, data: Dataset, *, progress: bool = True, **settings) -> History:
    """Train to the end with a progress bar and return the history; ``settings`` are those of ``iterate``.

    After an interruption (Ctrl-C, or the notebook's stop button) the model holds the weights it has reached.

    Raises:
        ModuleNotFoundError: a bar is asked for and tqdm is not installed.
        ValueError: as ``iterate``.

    Example:
        >>> model = models.mlp((64, 32, 10), bnlib.BatchNorm)
        >>> history = training.fit(model, datasets.load("digits"), batch_size=64, lr=0.5, epochs=3, progress=False)
        >>> history.test_error[0] > 0.7, history.test_error[-1] < 0.1
        (True, True)
    """
    with ExitStack() as stack:
        bar = None
        if progress:
            bar = stack.enter_context(progress_bar(unit="step", leave=False))
        done = total = 0
        try:
            for step, total, history in iterate(model, data, **settings):  # noqa: B007, the last is wanted
                if bar is not None:
                    bar.total = total
                    bar.update(step - done)
                done = step
        except KeyboardInterrupt as error:
            error.add_note(f"The model holds its weights after {done} or more of {total} steps.")
            raise
    return history


def progress_bar(iterable: Iterable | None = None, **settings):
    """A bar of tqdm, with its ``settings``, for the terminal or the notebook.

    Raises:
        ModuleNotFoundError: tqdm is not installed.

    Example:
        >>> list(training.progress_bar(range(3), disable=True))
        [0, 1, 2]
    """
    try:
        from tqdm.auto import tqdm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "a progress bar needs tqdm, which is missing: pass progress=False, which training.fit and sweep.run take, "
            "or pip install 'bnlib[notebook]'"
        ) from error
    return tqdm(iterable, **settings)
