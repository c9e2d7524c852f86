"""``diagnose``: the examination from the batches to the report."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from bnlib.doctor import company, flow, layers, running
from bnlib.doctor.exam import Batch, Exam, Loss, Score
from bnlib.doctor.report import Finding, Report
from bnlib.doctor.watch import Watch
from bnlib.probes.stateless import preserve_random_state

_CHECKS = (*layers.CHECKS, *company.CHECKS, *running.CHECKS, *flow.CHECKS)


def diagnose(
    model: nn.Module,
    batches: Iterable,
    *,
    loss: Loss | None = None,
    domains: Mapping[object, Iterable] | None = None,
    inference: bool = False,
    most: int = 32,
) -> Report:
    """Look for what is known to go wrong with the batch normalisation of a model; nothing is changed.

    A copy of the model is run, with dropout and the like off. It needs the memory of one more model.

    Arguments:
        model: any network, in the mode in which it is used. Looked at are torch's BatchNorm1d to 3d and SyncBatchNorm,
            and BatchNorm, BatchRenorm, FullNorm and DomainBatchNorm of bnlib.
        batches: inputs, or pairs (inputs, targets), as the loader yields them that the model is trained with. The
            model is called with ``inputs``; with targets losses and labels can be judged, too. Batches of another form
            are to be unpacked first: ``((b["x"], b["y"]) for b in loader)``.
        loss: ``loss(outputs, targets)``, a single number; by default cross-entropy where the targets are classes.
        domains: for a model that meets data of several kinds, batches of each kind by its name. A model with
            DomainBatchNorm is told these names, so they must be its numbers.
        inference: the model is handed over as it predicts, and the batches are those it predicts on: of any size and in
            any order, but train mode is a fault.
        most: how many batches to use, of each domain, too.

    Raises:
        TypeError: ``model`` is no module, or ``domains`` no mapping.
        ValueError: no batches, or none of them with a sample; a batch of another form; a loss that is no single
            number; ``most`` below 1; a model that cannot be copied.

    Example:
        The same model and samples, in random order and sorted by label:

        >>> data, model = datasets.load("digits"), models.mlp((64, 32, 10), bnlib.BatchNorm)
        >>> history = training.fit(model, data, batch_size=64, lr=0.5, epochs=2, progress=False)
        >>> shuffled = list(zip(data.train_x.split(64), data.train_y.split(64), strict=True))
        >>> print(bnlib.diagnose(model, shuffled))
        Nothing found.
        >>> order = data.train_y.argsort()
        >>> by_label = list(zip(data.train_x[order].split(64), data.train_y[order].split(64), strict=True))
        >>> report = bnlib.diagnose(model, by_label)
        >>> report.codes, report[0].severity
        (['batches-not-representative'], 'error')
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if domains is not None and not isinstance(domains, Mapping):
        raise TypeError(f"domains must be a mapping of names to batches, got {type(domains).__name__}")
    if most < 1:
        raise ValueError(f"most must be at least 1, got {most}")
    with _generators_kept(model):
        watch = Watch(model)
        exam = Exam(watch, _taken("batches", batches, most, watch.model), loss, inference)
        if not watch.norms:
            remark = f"{type(model).__name__} has no layer with statistics of batches, so there was nothing to check."
            # There may be a function instead.
            found = list(company.by_batch_in_eval(exam))
            return Report(found, [] if found else [remark])
        exam.training = model.training and not inference
        exam.domains = {
            name: exam.beside(_taken(f"domains[{name!r}]", each, most, watch.model), name)
            for name, each in (domains or {}).items()
        }
        return Report(_findings(exam), exam.remarks())


def four_numbers(
    model: nn.Module, batches: Iterable, *, loss: Loss | None = None, most: int = 32
) -> dict[str, Score | None]:
    """Take the loss on the same samples in four ways; nothing is changed.

    Arguments:
        model, batches, loss, most: see ``diagnose``. The batches are those that the model was trained on.

    Returns:
        by name the ``Score`` of train mode in these batches, ``"own"``; of train mode with the same samples dealt out
        into other batches, ``"dealt"``, None where they cannot be; of eval mode with the statistics of these batches,
        ``"precise"``, and with the running ones, ``"running"``.

    Raises:
        ValueError: no loss is known for what the model returns; else as ``diagnose``.

    Example:
        A good model is bad in train mode only, and only in the company of its own kind:

        >>> data, model = datasets.load("digits"), models.mlp((64, 32, 10), bnlib.BatchNorm)
        >>> history = training.fit(model, data, batch_size=64, lr=0.5, epochs=2, progress=False)
        >>> order = data.train_y.argsort()
        >>> by_label = list(zip(data.train_x[order].split(64), data.train_y[order].split(64), strict=True))
        >>> {way: score.error > 0.5 for way, score in doctor.four_numbers(model, by_label).items()}
        {'own': True, 'dealt': False, 'precise': False, 'running': False}
    """
    if most < 1:
        raise ValueError(f"most must be at least 1, got {most}")
    with _generators_kept(model):
        watch = Watch(model)
        exam = Exam(watch, _taken("batches", batches, most, watch.model), loss, inference=False)
        if exam.seen_score is None:
            raise ValueError("loss must be given for these outputs and targets, got None")
        return exam.four_scores


def _findings(exam: Exam) -> Iterator[Finding]:
    for check in _CHECKS:
        yield from check(exam)


def _taken(name: str, batches: Iterable, most: int, model: nn.Module) -> list[Batch]:
    """The first of the batches, on the model's device."""
    if not isinstance(batches, Iterable) or isinstance(batches, Tensor):
        raise ValueError(f"{name} must be an iterable of batches, such as a DataLoader, got {type(batches).__name__}")
    device = next((each.device for each in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    taken = [_batch(name, each, device) for each in itertools.islice(batches, most)]
    taken = [each for each in taken if not (isinstance(each.inputs, Tensor) and each.inputs.numel() == 0)]
    if not taken:
        raise ValueError(f"{name} must hold at least one batch with a sample, got none")
    return taken


def _batch(name: str, batch: object, device: torch.device) -> Batch:
    if not isinstance(batch, (tuple, list)):
        parts = [batch]
    elif len(batch) in (1, 2):
        parts = list(batch)
    else:
        raise ValueError(f"{name} must yield inputs or pairs (inputs, targets), got {len(batch)} parts")
    return Batch(*(part.to(device) if isinstance(part, Tensor) else part for part in parts))


@contextmanager
def _generators_kept(model: nn.Module) -> Iterator[None]:
    """Leave the generators of torch, numpy and random as they were: loaders shuffle with them."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002, the one that others use
    try:
        with preserve_random_state(model):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
