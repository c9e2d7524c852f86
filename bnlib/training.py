"""The training loop: for a single model, and for many models at once."""

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
"""Takes the parameters and ``lr=``, and returns an optimiser."""

Callback = Callable[[int, nn.Module, Tensor], object]
"""``callback(steps, model, indices)``, called after each step; a true result ends the run."""


@dataclass
class History:
    """The record of a training run, with one entry per checkpoint.

    Attributes:
        epoch: number of passes over the training set so far; fractions are possible.
        train_loss: mean cross-entropy, in nats, of the mini-batches since the last checkpoint, in train mode. At the
            first checkpoint it is the loss of the first mini-batch before any step.
        train_error: share of wrongly classified samples in these mini-batches.
        test_loss: mean cross-entropy of the test set, in nats, in eval mode.
        test_error: share of wrongly classified samples in the test set, in eval mode.
        step_loss: mean cross-entropy of the mini-batch of each step, in nats; empty without ``record_step_loss``.
        diverged: whether the loss became infinite or nan, which ended the run.
        seconds: time of the run; its share if a sweep stacked it with others. ``==`` ignores it.
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
    """Return the GPU or other accelerator that PyTorch can use, or the CPU if there is none.

    Example:
        >>> data = datasets.load("three_points").to(training.best_device())
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def error_rate(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of wrongly classified samples in eval mode; afterwards the model is in its former mode.

    Arguments:
        model: returns logits, shape (N, classes).
        x: inputs, shape (N, ...).
        y: classes, shape (N,).

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
    """Train a model and yield its history so far at each checkpoint.

    The caller may stop iterating at any time; the model then has the weights of the last checkpoint. If the loss
    becomes infinite or nan, the run ends and ``History.diverged`` is True; this is not an error. Under ``torchrun``
    (``bnlib.distributed``) each process draws batches from its own shard. The losses and errors are then means over all
    processes, also on the test set, because each process has its own running statistics.

    Arguments:
        model: the network, moved to ``device`` and trained in place.
        data: the data set, see ``bnlib.datasets.load``.
        batch_size: samples per step and process; all batches have this size.
        lr: learning rate.
        optimiser: takes the parameters and ``lr=`` and returns the optimiser: a class of ``torch.optim``, or a
            ``functools.partial`` of one, such as ``partial(SGD, momentum=0.9)``.
        schedule: a function of the number of epochs so far whose value multiplies the learning rate, see
            ``bnlib.schedules``.
        epochs: passes over the training set.
        checkpoints: number of evenly spaced checkpoints; there is one more before the first step.
        seed: seed of the batches.
        device: device to train on.
        batches: the sampler that builds the mini-batches, see ``bnlib.samplers``.
        callbacks: functions to call after each step with the number of steps so far, the model, and the indices of the
            batch. If one of them returns a true value, the run ends with a checkpoint.
        record_step_loss: record the loss of every step in ``History.step_loss``.

    Yields:
        The number of steps so far, the total number of steps, and the history so far.

    Raises:
        ValueError: if ``batches`` cannot build batches of ``batch_size`` samples.

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
    """Train models of the same architecture as one stacked model and yield their histories at each checkpoint.

    Each model has its own learning rate and seed. The histories equal those of ``iterate`` up to rounding. If a run
    diverges, its history ends and the other runs continue. The given models are not changed; see ``bnlib.stacked``.

    Arguments:
        models: networks with the same layers, shapes and settings.
        lrs: learning rate of each model.
        seeds: seed of the batches of each model.
        data, batch_size, optimiser, schedule, epochs, checkpoints, device, batches, record_step_loss: as in
            ``iterate``.

    Yields:
        The number of steps so far, the total number of steps, and the histories so far.

    Raises:
        ValueError: if there is not one learning rate and one seed per model; if the learning rates differ and
            ``step_is_proportional_to_gradient`` is False for the optimiser; and as ``iterate`` and ``stacked.stack``.

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
    """Return whether an optimiser's step is proportional to the gradient, as for SGD without weight decay.

    Scaling the gradients is then the same as scaling the learning rate.

    Example:
        >>> [training.step_is_proportional_to_gradient(each) for each in (torch.optim.SGD, torch.optim.Adam)]
        [True, False]
    """
    kind = optimiser.func if isinstance(optimiser, partial) else optimiser
    return kind is SGD and not (isinstance(optimiser, partial) and optimiser.keywords.get("weight_decay"))


class _Loop:
    """The training of one model, or of a ``Stack`` with one model per learning rate."""

    def __init__(
        self, model, data, lrs, batch_size, optimiser, schedule, epochs, checkpoints, device, record_step_loss
    ):
        self.model, self.data, self.record_step_loss = model.to(device).train(), data.to(device), record_step_loss
        # The size of the global batch.
        self.batch_size = batch_size * distributed.rank_and_world_size()[1]
        self.per_epoch = len(data.train_x) // self.batch_size
        self.total = epochs * self.per_epoch
        self.checkpoints = {round(self.total * number / checkpoints) for number in range(1, checkpoints + 1)}
        mixed = len(set(lrs)) > 1
        if mixed and not step_is_proportional_to_gradient(optimiser):
            raise ValueError(f"lrs must be equal unless the optimiser is SGD without weight decay, got {lrs}")
        # Different learning rates are applied to the gradients.
        self.rates = model.broadcast_to_parameters(torch.tensor(lrs).to(device)) if mixed else None
        self.lr, self.schedule = 1.0 if mixed else lrs[0], schedule
        self.optimiser = optimiser(self.model.parameters(), lr=self.lr)
        self.histories = [History() for _ in lrs]
        self.losses: list[Tensor] = []
        self.errors: list[Tensor] = []

    def run(self, indices: Iterator[Tensor], callbacks: Iterable[Callback] = ()) -> Iterator[tuple[int, list[History]]]:
        """Train to the end and yield at checkpoints; ``indices`` have the shape (N,), or (E, N) for a stack."""
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
        """Record loss and error of a batch, and return the losses."""
        labels = self.data.train_y[index]
        logits = called(self.data.train_x[index])
        loss = _losses(logits, labels)
        self.losses.append(loss.detach())
        self.errors.append(_errors(logits.detach(), labels))
        return loss

    def step(self, loss: Tensor, number: int) -> None:
        """Do one optimisation step."""
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
        # Convert to float64 on the CPU, because not all devices have it.
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
    """Return the mean loss and the error rate in eval mode, for each model if ``model`` is a ``Stack``."""
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
    """Train a model to the end with a progress bar and return its history.

    After an interruption (Ctrl-C, or the notebook's stop button) the model keeps the weights it has reached.

    Arguments:
        model: the network, trained in place.
        data: the data set, see ``bnlib.datasets.load``.
        progress: show a progress bar.
        settings: the other arguments of ``iterate``, such as ``batch_size`` and ``lr``.

    Raises:
        ModuleNotFoundError: if ``progress`` is True and tqdm is not installed.
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
            for step, total, history in iterate(model, data, **settings):  # noqa: B007, the last history is returned
                if bar is not None:
                    bar.total = total
                    bar.update(step - done)
                done = step
        except KeyboardInterrupt as error:
            error.add_note(f"The model has its weights after at least {done} of {total} steps.")
            raise
    return history


def progress_bar(iterable: Iterable | None = None, **settings):
    """Return a progress bar of tqdm for the terminal or the notebook; ``settings`` are arguments of tqdm.

    Raises:
        ModuleNotFoundError: if tqdm is not installed.

    Example:
        >>> list(training.progress_bar(range(3), disable=True))
        [0, 1, 2]
    """
    try:
        from tqdm.auto import tqdm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "a progress bar needs tqdm, which is missing: pass progress=False to training.fit or sweep.run, or "
            "pip install 'bnlib[notebook]'"
        ) from error
    return tqdm(iterable, **settings)
