"""The training loop: for a single model, and for many models at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.optim import SGD

from bnlib import distributed
from bnlib.arguments import check_flags, check_kind, check_number
from bnlib.datasets import Dataset
from bnlib.samplers import PerWorker, Sampler, shuffled
from bnlib.schedules import Schedule
from bnlib.stacked import Stack, stack
from bnlib.training.evaluation import check_logits, errors_of, logits_in_eval_mode, losses_of
from bnlib.training.history import History
from bnlib.training.optimisers import OptimiserMaker
from bnlib.training.rates import Steps
from bnlib.training.settings import Callback, check_settings, checked_batches, loaded
from bnlib.training.threads import products_per_step, threads_for


def iterate(
    model: nn.Module,
    data: Dataset | str,
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

    A model in eval mode is put into train mode. In a model in train mode, submodules keep their modes: frozen BN layers
    stay in eval mode. The caller may stop iterating at any time; the model then has the weights of the last checkpoint.
    If the loss becomes infinite or nan, the run ends and ``History.diverged`` is True; this is not an error. On a CPU,
    steps of fewer than 3e8 products run with one thread, because threads that wait for each other are slow beside other
    programs; the number of threads that was set is there again at each checkpoint and at the end.

    Under ``torchrun`` (``bnlib.distributed``) each process draws batches from its own shard. The losses and errors are
    then means over all processes, also on the test set, because each process has its own running statistics.

    Arguments:
        model: the network, moved to ``device`` and trained in place.
        data: the data set, or its name for ``bnlib.datasets.load``.
        batch_size: samples per step and process; all batches have this size.
        lr: learning rate.
        optimiser: takes the parameters and ``lr=`` and returns the optimiser: a class of ``torch.optim``, or a
            ``functools.partial`` of one, such as ``partial(SGD, momentum=0.9)``.
        schedule: a function of the number of epochs so far whose value multiplies the learning rate, see
            ``bnlib.schedules``.
        epochs: passes over the training set, at least 1.
        checkpoints: number of evenly spaced checkpoints, at least 1; there is one more before the first step.
        seed: seed of the batches.
        device: device to train on.
        batches: the sampler that builds the mini-batches, see ``bnlib.samplers``.
        callbacks: functions to call after each step with the number of steps so far, the model, and the indices of the
            batch. If one of them returns a true value, the run ends with a checkpoint.
        record_step_loss: record the loss of every step in ``History.step_loss``.

    Yields:
        The number of steps so far, the total number of steps, and the history so far.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if an argument is out of range, if ``batches`` cannot build batches of ``batch_size`` samples, or if
            the model has no parameter to train or does not return logits.

    Example:
        >>> data, model = datasets.load("three_points"), models.three_point_network(seed=1)
        >>> for step, steps, history in training.iterate(model, data, batch_size=3, lr=0.5, epochs=100, checkpoints=2):
        ...     print(f"{step} of {steps}: loss {history.test_loss[-1]:.1f}")
        0 of 100: loss 1.1
        50 of 100: loss 0.1
        100 of 100: loss 0.0
    """
    callbacks = list(callbacks) if isinstance(callbacks, Iterable) else callbacks
    loop = _Loop(
        model,
        loaded(data),
        lrs=[lr],
        seeds=[seed],
        batch_size=batch_size,
        optimiser=optimiser,
        schedule=schedule,
        epochs=epochs,
        checkpoints=checkpoints,
        device=device,
        batches=batches,
        callbacks=callbacks,
        record_step_loss=record_step_loss,
    )
    for done, (history,) in loop.run():
        yield done, loop.total, history


def iterate_many(
    models: Sequence[nn.Module],
    data: Dataset | str,
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
            ``step_is_proportional_to_rate`` is False for the optimiser; if the optimiser is one of PyTorch's and
            ``step_is_elementwise`` is False; and as ``iterate`` and ``stacked.stack``.

    Example:
        >>> data, rates = datasets.load("three_points"), [0.01, 0.5]
        >>> both = [models.three_point_network(seed=1) for _ in rates]
        >>> *_, (step, steps, histories) = training.iterate_many(
        ...     both, data, lrs=rates, seeds=[0, 0], batch_size=3, epochs=100
        ... )
        >>> [round(history.train_loss[-1], 1) for history in histories]
        [0.8, 0.0]
    """
    for name, values in (("models", models), ("lrs", lrs), ("seeds", seeds)):
        check_kind(name, values, Sequence, "a sequence with one entry for each model")
        if len(values) != len(models):
            raise ValueError(f"{name} must have one value for each of {len(models)} models, got {len(values)}")
    loop = _Loop(
        stack(list(models)),
        loaded(data),
        lrs=lrs,
        seeds=seeds,
        batch_size=batch_size,
        optimiser=optimiser,
        schedule=schedule,
        epochs=epochs,
        checkpoints=checkpoints,
        device=device,
        batches=batches,
        record_step_loss=record_step_loss,
    )
    for done, histories in loop.run():
        yield done, loop.total, histories


class _Loop:
    """The training of one model, or of a ``Stack`` with one model per learning rate."""

    def __init__(self, model, data, *, lrs, seeds, record_step_loss, callbacks=(), **settings):
        check_settings(model, lrs=lrs, seeds=seeds, callbacks=callbacks, **settings)
        batch_size, epochs, checkpoints = (settings[name] for name in ("batch_size", "epochs", "checkpoints"))
        optimiser, schedule, device = (settings[name] for name in ("optimiser", "schedule", "device"))
        self.stacked, self.callbacks = isinstance(model, Stack), callbacks
        check_flags(record_step_loss=record_step_loss)
        self.indices = self.index_batches(settings["batches"], data.train_y.cpu(), batch_size, seeds)
        self.model, self.data, self.record_step_loss = model.to(device), data.to(device), record_step_loss
        if not model.training:
            model.train()
        # The size of the global batch.
        self.batch_size = batch_size * distributed.rank_and_world_size()[1]
        self.per_epoch = len(data.train_x) // self.batch_size
        self.total = epochs * self.per_epoch
        self.checkpoints = {round(self.total * number / checkpoints) for number in range(1, checkpoints + 1)}
        self.optimiser, self.schedule = Steps(self.model, optimiser, lrs), schedule
        self.histories = [History() for _ in lrs]
        self.losses: list[Tensor] = []
        self.errors: list[Tensor] = []

    def index_batches(
        self, batches: Sampler, labels: Tensor, batch_size: int, seeds: Sequence[int]
    ) -> Iterator[Tensor]:
        """Return the indices of the batches, shape (N,), or (E, N) for a stack."""
        if self.stacked:
            each = [checked_batches(batches(labels, batch_size, seed), batch_size) for seed in seeds]
            return (torch.stack(rows) for rows in zip(*each, strict=True))
        rank, workers = distributed.rank_and_world_size()
        sampler = batches if workers == 1 else PerWorker(rank, workers, batches)
        return checked_batches(sampler(labels, batch_size, *seeds), batch_size)

    def run(self) -> Iterator[tuple[int, list[History]]]:
        """Train to the end and yield at checkpoints, where the caller has the number of threads that was set."""
        steps, nothing = self.steps(), object()
        products = products_per_step(self.model, self.data.train_x.shape[1:], self.batch_size)
        while True:
            with threads_for(products):
                checkpoint = next(steps, nothing)
            if checkpoint is nothing:
                return
            yield checkpoint

    def steps(self) -> Iterator[tuple[int, list[History]]]:
        """Train to the end and yield at checkpoints."""
        called = distributed.data_parallel(self.model)
        for step in range(1, self.total + 1):
            index = next(self.indices, None)
            if index is None:
                raise ValueError(f"batches must yield batches without end, got {step - 1} for {self.total} steps")
            loss = self.forward(called, index.to(self.data.train_y.device))
            if step == 1:
                self.record(0)
                yield 0, self.histories
            self.step(loss, step)
            stop = any([callback(step, self.model, index) for callback in self.callbacks])
            if stop or step in self.checkpoints:
                self.record(step)
                self.losses, self.errors = [], []
                yield step, self.histories
            if stop or all(history.diverged for history in self.histories):
                return

    def forward(self, called: nn.Module, index: Tensor) -> Tensor:
        """Record loss and error of a batch, and return the losses."""
        labels = self.data.train_y[index]
        logits = check_logits(called(self.data.train_x[index]), labels.shape, self.data.num_classes)
        loss = losses_of(logits, labels)
        self.losses.append(loss.detach())
        self.errors.append(errors_of(logits.detach(), labels))
        return loss

    def step(self, loss: Tensor, number: int) -> None:
        """Do one optimisation step."""
        self.optimiser.zero_grad()
        loss.sum().backward()
        epoch = (number - 1) / self.per_epoch
        factor = self.schedule and self.schedule(epoch)
        if factor is not None and not (type(factor) is float and 0 <= factor < math.inf):
            check_number(f"schedule({epoch:.4g})", factor, at_least=0)
        self.optimiser.step(factor)

    def record(self, step: int) -> None:
        """Add a checkpoint to the histories of the runs that have not diverged."""
        # A copy, because a model may write into its input.
        x, labels = self.data.test_x.clone(), self.data.test_y
        logits = logits_in_eval_mode(self.model, x.expand(len(self.histories), *x.shape) if self.stacked else x)
        # Convert to float64 on the CPU, because not all devices have it.
        each, errors = (torch.stack(rows).cpu().double().view(len(rows), -1) for rows in (self.losses, self.errors))
        tested = losses_of(logits, labels.expand(logits.shape[:-1])), errors_of(logits, labels)
        test = [column.cpu().double().flatten() for column in tested]
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
