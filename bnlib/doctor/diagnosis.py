"""``diagnose`` and ``losses_by_mode``: from a model and batches to findings or losses."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from torch import nn
from torch.optim import Optimizer

from bnlib.arguments import check_flags, check_integer, check_kind, shown
from bnlib.doctor.batches import Forward, call_model, first_batches
from bnlib.doctor.checks import CHECKS
from bnlib.doctor.checks.batch_dependence import eval_mode_depends_on_batch
from bnlib.doctor.checks.learning_rate import Trial
from bnlib.doctor.checks.whole_model import losses_differ_without_a_cause
from bnlib.doctor.exported_models import as_module, diagnose_exported, is_exported
from bnlib.doctor.finding_values import with_values
from bnlib.doctor.instrumented_model import InstrumentedModel
from bnlib.doctor.losses import Loss, Score
from bnlib.doctor.measurements import Measurements
from bnlib.doctor.norm_layers import has_unknown_statistics
from bnlib.doctor.report import Report
from bnlib.probes.stateless import preserve_random_state


def diagnose(
    model: nn.Module,
    batches: Iterable,
    *,
    loss: Loss | None = None,
    forward: Forward | None = None,
    domains: Mapping[object, Iterable] | None = None,
    inference: bool = False,
    max_batches: int = 32,
    optimiser: Optimizer | None = None,
) -> Report:
    """Look for known problems with the batch normalisation of a model.

    The model is not changed: ``diagnose`` runs a copy, with dropout off, and needs memory for that copy. It checks
    PyTorch's BatchNorm1d, BatchNorm2d, BatchNorm3d and SyncBatchNorm, bnlib's BatchNorm, BatchRenorm, FullNorm and
    DomainBatchNorm, classes that inherit from these, and any module with the tensors ``running_mean`` and
    ``running_var``. All of them run their own ``forward``; only their mode and their statistics are changed. It takes
    GhostBatchNorm for a BatchNorm of the whole batch. It does not know CrossIterationBatchNorm and
    MovingAverageBatchNorm, nor InstanceNorm with running statistics, and says so. Other norms of one sample, such as
    GroupNorm and RMSNorm, have no batch statistics to check. The losses in a report are those of two or four batches
    where these decide which mode is worse; ``losses_by_mode`` takes all batches. Of a TorchScript module or an exported
    program, which cannot be taken apart, ``diagnose`` checks less, and says so.

    Arguments:
        model: any network, in the mode (train or eval) in which you use it.
        batches: what the training's DataLoader yields: inputs, pairs (inputs, targets), several inputs with or without
            targets, or a mapping. The signature of the model's ``forward`` tells what of a batch it takes; keys such
            as ``labels`` and ``target`` hold targets. With targets, ``diagnose`` also checks losses and labels.
            Of a loader for training, the first four batches are asked for a second time, to see whether it shuffles.
        loss: ``loss(outputs, targets)`` returns a single number; for batches without targets it takes the whole batch
            in their place. By default it is the loss that the model itself returns, as its output ``loss``, a single
            number, or named losses as from a detector; or the cross-entropy of the outputs, their ``logits`` or the
            first tensor in them, if the targets are classes.
        forward: ``forward(model, batch)`` calls the model with a batch as the loader yields it and returns the outputs,
            where the call cannot be guessed.
        domains: batches of each domain by its name, for a model that is used on several kinds of data. If the model
            has DomainBatchNorm layers, the names must be their domain numbers.
        inference: the model is used for predictions and ``batches`` are the batches that it predicts on. Then train
            mode is an error, but the batches may have any size and any order.
        max_batches: use at most this many batches, and at most this many of each domain.
        optimiser: the optimiser of the model's training. With it, and with ``FullNorm`` layers, a copy is trained for
            12 steps, to see whether they are too large for the estimates.

    Returns:
        A ``Report`` of all findings, the most severe first.

    Raises:
        TypeError: ``model`` is not a module, ``domains`` is not a mapping, or another argument is of the wrong type.
        ValueError: there is no batch with a sample; a batch does not fit the model; the loss is not a single number;
            ``max_batches`` is below 1; the model cannot be copied; ``optimiser`` is that of another model.

    Example:
        The same model on shuffled batches, and on batches sorted by label:

        >>> data, model = datasets.load("digits"), models.mlp((64, 32, 10), bnlib.BatchNorm)
        >>> history = training.fit(model, data, batch_size=64, lr=0.5, epochs=2, progress=False)
        >>> shuffled = list(zip(data.train_x.split(64), data.train_y.split(64), strict=True))
        >>> print(bnlib.diagnose(model, shuffled))
        No problems found.
        >>> order = data.train_y.argsort()
        >>> by_label = list(zip(data.train_x[order].split(64), data.train_y[order].split(64), strict=True))
        >>> report = bnlib.diagnose(model, by_label)
        >>> report.codes, report[0].severity
        (['batches-not-representative'], 'error')
    """
    exported = is_exported(model)
    if not isinstance(model, nn.Module) and not exported:
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if domains is not None and not isinstance(domains, Mapping):
        raise TypeError(f"domains must be a mapping of names to batches, got {type(domains).__name__}")
    _check(max_batches, loss, forward)
    check_flags(inference=inference)
    if optimiser is not None:
        check_kind("optimiser", optimiser, Optimizer, "a torch.optim.Optimizer of the model's parameters, or None")
    if exported:
        module = as_module(model)
        taken = first_batches("batches", batches, max_batches, module)
        return diagnose_exported(module, taken, loss, inference)
    with _preserve_all_random_states(model):
        instrumented = InstrumentedModel(model, forward)
        taken = first_batches("batches", batches, max_batches, model, forward)
        measurements = Measurements(instrumented, taken, loss, inference)
        measurements.loader = batches
        if not instrumented.norm_layers:
            return _report_without_norm_layers(model, measurements)
        measurements.will_be_trained = model.training and not inference
        if optimiser is not None and measurements.will_be_trained:
            measurements.trial = Trial(model, optimiser, lambda copied, batch: call_model(copied, batch, forward))
        for name, each in (domains or {}).items():
            taken = first_batches(f"domains[{name!r}]", each, max_batches, model, forward)
            measurements.by_domain[name] = measurements.on_batches(taken, name)
        findings = [finding for check in CHECKS for finding in measurements.findings(check)]
        findings += losses_differ_without_a_cause(measurements, findings)
        findings = [with_values(each, measurements) for each in findings]
        remarks = [*_unknown_layers(model), *measurements.remarks()]
        return Report(findings, remarks, checked=bool(findings or measurements.statistics))


def losses_by_mode(
    model: nn.Module,
    batches: Iterable,
    *,
    loss: Loss | None = None,
    forward: Forward | None = None,
    max_batches: int = 32,
) -> dict[str, Score | None]:
    """Compute the loss of a model on the same samples in four ways that BN makes different.

    Without BN all four losses are equal. The model is not changed.

    Arguments:
        model, loss, forward, max_batches: see ``diagnose``.
        batches: the batches that the model was trained on; see ``diagnose``.

    Returns:
        A ``Score`` for each way:

        - ``"train"``: train mode in these batches;
        - ``"train_reshuffled"``: train mode with the same samples shuffled into other batches; None if the batches
          cannot be shuffled, for example because there is only one;
        - ``"eval_recomputed"``: eval mode with running statistics recomputed from these batches;
        - ``"eval"``: eval mode with the running statistics of the model.

    Raises:
        ValueError: the loss for the outputs of the model is unknown; see also ``diagnose``.

    Example:
        In batches sorted by label a good model has a high error, but only in train mode:

        >>> data, model = datasets.load("digits"), models.mlp((64, 32, 10), bnlib.BatchNorm)
        >>> history = training.fit(model, data, batch_size=64, lr=0.5, epochs=2, progress=False)
        >>> order = data.train_y.argsort()
        >>> by_label = list(zip(data.train_x[order].split(64), data.train_y[order].split(64), strict=True))
        >>> {mode: score.error > 0.5 for mode, score in doctor.losses_by_mode(model, by_label).items()}
        {'train': True, 'train_reshuffled': False, 'eval_recomputed': False, 'eval': False}
    """
    _check(max_batches, loss, forward)
    with _preserve_all_random_states(model):
        instrumented = InstrumentedModel(model, forward)
        taken = first_batches("batches", batches, max_batches, model, forward)
        measurements = Measurements(instrumented, taken, loss, inference=False)
        if not measurements.has_loss:
            raise ValueError("loss must be given, because no default loss fits these outputs and targets; got None")
        return measurements.scores_by_mode


def _report_without_norm_layers(model: nn.Module, measurements: Measurements) -> Report:
    # The model may call a function such as F.batch_norm.
    findings = list(eval_mode_depends_on_batch(measurements))
    remark = f"{type(model).__name__} has no layer with batch statistics, so there was nothing to check."
    remarks = list(_unknown_layers(model)) or ([] if findings else [remark])
    remarks += [] if findings else measurements.skipped_remarks()
    return Report(findings, remarks, checked=bool(findings))


def _unknown_layers(model: nn.Module) -> Iterator[str]:
    """Yield a sentence that names the layers with running or batch statistics that no check looks at."""
    found = [(name, type(each)) for name, each in model.named_modules() if has_unknown_statistics(each)]
    if found:
        kinds = " and ".join(sorted({kind.__name__ for _, kind in found}))
        names = ", ".join(name or "the model itself" for name, _ in found[:8]) + ", ..." * (len(found) > 8)
        yield f"Not checked, because diagnose does not know the statistics of {kinds}: {names}."


def _check(max_batches: int, loss: Loss | None, forward: Forward | None) -> None:
    check_integer("max_batches", max_batches)
    for name, value in (("loss", loss), ("forward", forward)):
        if value is not None and not callable(value):
            raise TypeError(f"{name} must be a function or None, got {shown(value)}")


@contextmanager
def _preserve_all_random_states(model: nn.Module) -> Iterator[None]:
    """Restore the random number generators of torch, numpy and random afterwards, because loaders shuffle with them."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002, the one that others use
    try:
        with preserve_random_state(model):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
