"""Checks of the running statistics against those of the data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from bnlib.doctor.company import between_batches, representative
from bnlib.doctor.exam import Exam, spread
from bnlib.doctor.layers import batches_needed, batches_tracked, initial_weight
from bnlib.doctor.report import Finding, finding
from bnlib.doctor.watch import Statistics, pooled
from bnlib.norm import FullNorm

FAR = 1.0
"""The median over channels of ``distance`` from which on statistics do not fit: one standard deviation, or a factor of
two in it."""


def never_updated(exam: Exam) -> Iterator[Finding]:
    """Running statistics that are still mean 0 and variance 1.

    Before training they have to be; so this is only a note as long as the model trains and nothing is lost by it.
    """
    for name, layer in exam.watch.norms.items():
        if not _untouched(layer) or name not in exam.statistics:
            continue
        how = _distance(exam, name)
        text = (
            f"The running statistics are the initial ones, mean 0 and variance 1, after {batches_tracked(layer)} "
            f"batches; those of the data differ by {how:.2g} (standard deviations, median over channels)."
            f"{_scores(exam)}"
        )
        yield finding("statistics-never-updated", name, "note" if exam.training and not _lossy(exam) else "error", text)


def far(exam: Exam) -> Iterator[Finding]:
    """Running statistics that are not those of the data.

    Judged layer by layer, with the layers below normalised by the batch or else by their own running statistics: that
    one of these two fits is enough, so that one wrong layer is not taken for many. If targets are there, the loss has
    the last word: it must fall if the statistics are replaced by the data's.

    In networks trained for 40 steps, with a momentum of 0.1 and a learning rate of 0.1, the distance was 0.3 at most.
    """
    for name in _tracking(exam):
        layer = exam.watch.norms[name]
        how = _distance(exam, name)
        if _untouched(layer) or not how > FAR or name in exam.silent:
            continue
        text = (
            f"The running statistics are {how:.2g} standard deviations from those of the data (median over channels)."
        )
        severity = "warning" if exam.used_score is None else "error" if _lossy(exam) else "note"
        count, needed, initial = batches_tracked(layer), batches_needed(layer), initial_weight(layer)
        # Where the variance is small, a little of the initial 1 is too much.
        if 0 < count < needed or (initial > 0 and _distance(exam, name, initial) <= FAR):
            text += f" They are young: of {count} batches, the initial values with a weight of {initial:.1%}."
            # FullNorm was trained by these very statistics, so that eval mode loses nothing that training had.
            severity = severity if exam.inference and not isinstance(layer, FullNorm) else "note"
        yield finding("statistics-far-from-data", name, severity, text + _scores(exam))


def shared(exam: Exam) -> Iterator[Finding]:
    """A layer that is called several times, on inputs that its one set of running statistics cannot fit."""
    for name in _tracking(exam):
        runs = [run.calls.get(name, []) for run in exam.seen]
        calls = max(map(len, runs))
        if calls < 2 or name in exam.watch.kept:
            continue
        parts = [pooled([run[number] for run in runs if len(run) > number]) for number in range(calls)]
        layer = exam.watch.norms[name]
        apart = _largest(layer, [part for part in parts if part is not None])
        # The running statistics end up in between.
        if apart > FAR / 2:
            text = (
                f"It is called {calls} times in one pass, on inputs whose statistics differ by up to {apart:.2g} "
                f"standard deviations (median over channels), but has one set of running statistics."
            )
            if exam.used_score is not None:
                text += f" The loss is {exam.seen_score} in train mode and {exam.used_score} in eval mode."
            severity = _severity(exam.used_score is None, exam.split)
            yield finding("shared-layer", name, severity, text)


def needed(exam: Exam) -> Iterator[Finding]:
    """Eval mode that loses, whatever its statistics, what train mode has in any company.

    With a picture or two in a batch, statistics tell the network of these. Layers that are called several times and
    batches of one kind each do it, too; those are findings of their own.
    """
    if exam.inference or exam.domains or not exam.split or exam.dealt is None:
        return
    own, dealt, precise = exam.seen_score, exam.dealt.seen_score, exam.precise_score
    if exam.costs(dealt, own) or not exam.costs(precise, own) or any(shared(exam)) or any(representative(exam)):
        return
    text = (
        f"In train mode the loss is {own} in these batches, and {dealt} where the same samples are dealt out anew; in "
        f"eval mode it is {exam.used_score}, and with the statistics of these batches still {precise}. The network "
        f"goes by what the statistics of a batch tell of its samples."
    )
    yield finding("batch-statistics-needed", "", "error", text)


def domains(exam: Exam) -> Iterator[Finding]:
    """Layers that normalise each domain by itself in training, and all by the same statistics in eval mode.

    That domains differ is no fault if each batch mixes them. It is one if eval mode loses what train mode has on
    batches of one domain, or without targets, if the batches for training are found to be of one kind each.
    """
    parts = exam.domains
    if len(parts) < 2:
        return
    judged = all(part.used_score is not None for part in parts.values())
    split = {name: part for name, part in parts.items() if judged and part.split}
    if not (split if judged else between_batches(exam)[1]):
        return
    text = "".join(
        f" The loss of {name} is {part.seen_score} in train mode and {part.used_score} in eval mode."
        for name, part in split.items()
    )
    for name in _tracking(exam):
        found = [part.statistics[name] for part in parts.values() if name in part.statistics]
        apart = _largest(exam.watch.norms[name], found)
        if apart > FAR:
            evidence = (
                f"Statistics differ by up to {apart:.2g} standard deviations between domains (median over channels)."
            )
            yield finding("domains-differ", name, "error" if judged else "warning", evidence + text)


def distance(layer: nn.Module, mean: Tensor, variance: Tensor, data: Statistics) -> float:
    """How far a mean and a variance are from the data's: the larger of two numbers, the median over channels.

    The difference of the means in standard deviations of the data, and the logarithm to base 2 of the ratio of the
    standard deviations. The eps of the layer is part of both.
    """
    target = spread(data, layer) + layer.eps
    shift = (mean - data.mean).abs() / (data.total + layer.eps).sqrt()
    stretch = ((variance + layer.eps) / target).log().abs() / math.log(4)
    return float(torch.maximum(shift, stretch).nanmedian())


def _distance(exam: Exam, name: str, initial: float = 0.0) -> float:
    """The distance of the running statistics, without the share of their initial values if that is given."""
    layer = exam.watch.norms[name]
    mean = layer.running_mean.cpu().double() / (1 - initial)
    variance = ((layer.running_var.cpu().double() - initial) / (1 - initial)).clamp(min=0)
    flows = [flow[name] for flow in (exam.statistics, exam.used_statistics) if name in flow]
    return min(distance(layer, mean, variance, flow) for flow in flows)


def _largest(layer: nn.Module, parts: Sequence[Statistics]) -> float:
    """The largest distance between any two, each seen from the other."""
    pairs = itertools.permutations(parts, 2)
    return max((distance(layer, one.mean, spread(one, layer), other) for one, other in pairs), default=0.0)


def _tracking(exam: Exam) -> list[str]:
    """Layers that were called and whose running statistics are used, but not those that training uses as they are."""
    norms, kept = exam.watch.norms, exam.watch.kept
    return [name for name in exam.statistics if norms[name].running_mean is not None and name not in kept]


def _untouched(layer: nn.Module) -> bool:
    if layer.running_mean is None:
        return False
    return bool((layer.running_mean == 0).all() and (layer.running_var == 1).all())


def _lossy(exam: Exam) -> bool:
    """Whether eval mode would gain by statistics of these batches."""
    return exam.used_score is not None and exam.costs(exam.used_score, exam.precise_score)


def _severity(unknown: bool, costs: bool) -> str:
    return "warning" if unknown else "error" if costs else "note"


def _scores(exam: Exam) -> str:
    if exam.used_score is None:
        return ""
    return f" The loss in eval mode is {exam.used_score}, with statistics of these batches {exam.precise_score}."


CHECKS = (never_updated, far, shared, needed, domains)
