"""Checks of the layers themselves: their settings, parameters and buffers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from bnlib.doctor.exam import Exam
from bnlib.doctor.report import Finding, finding
from bnlib.norm import FullNorm


def not_finite(exam: Exam) -> Iterator[Finding]:
    """A parameter or a running statistic that is nan or infinite."""
    for name, layer in exam.watch.norms.items():
        tensors = {**dict(layer.named_parameters(recurse=False)), **dict(layer.named_buffers(recurse=False))}
        bad = {key: int((~value.isfinite()).sum()) for key, value in tensors.items() if value.is_floating_point()}
        bad = {key: count for key, count in bad.items() if count}
        if bad:
            said = ", ".join(f"{key} in {count} of {layer.num_features} channels" for key, count in bad.items())
            yield finding("not-finite", name, "error", f"Not a finite number: {said}.")


def half_precision(exam: Exam) -> Iterator[Finding]:
    """Running statistics in a type too short for small steps."""
    for name, layer in exam.watch.norms.items():
        if layer.running_var is None or layer.running_var.dtype.itemsize >= 4:
            continue
        kind = torch.finfo(layer.running_var.dtype)
        text = f"The running statistics are {kind.dtype}, in which a change below {kind.eps / 2:.1g} of a value is lost"
        if getattr(layer, "momentum", None):
            # A step is momentum times the difference.
            text += (
                f": with momentum {layer.momentum:g} they stop {kind.eps / 2 / layer.momentum:.1%} short of the data's"
            )
        yield finding("half-precision-statistics", name, "warning", f"{text}; the largest number is {kind.max:.3g}.")


def momentum(exam: Exam) -> Iterator[Finding]:
    """A momentum that keeps the running statistics where they are, or makes them those of the last few batches.

    An average with weight a of the newest batch has the noise of (2 - a) / a batches: 19 for torch's default of 0.1, 3
    for 0.5, 1.02 for Keras's 0.99. Below 3 the statistics of eval mode are as random as those of train mode.
    """
    for name, layer in exam.watch.norms.items():
        value = getattr(layer, "momentum", None)
        if isinstance(layer, FullNorm) or layer.running_mean is None or value is None or 0 < value < 0.5:
            continue
        if value == 0:
            text = "With momentum 0 the running statistics never move."
        else:
            text = (
                f"With momentum {value:g} the running statistics are an average over {(2 - value) / value:.2g} batches."
            )
        yield finding("odd-momentum", name, "warning", text)


def frozen(exam: Exam) -> Iterator[Finding]:
    """Layers that are not trained, nor what feeds them, but in train mode, so that their statistics go on."""
    if not exam.training:
        return
    for name, layer in exam.watch.norms.items():
        below = exam.seen[0].below.get(name)
        own, fed = list(layer.parameters()), [] if below is None else list(below.parameters(recurse=False))
        if not exam.watch.modes[name] or layer.running_mean is None or not (own or fed):
            continue
        moves = getattr(layer, "momentum", None) != 0
        if moves and name in exam.statistics and not any(value in exam.watch.trained for value in (*own, *fed)):
            weights = " and of the weights below it" if fed else ""
            distance = float(shift(exam, name).nanmedian())
            text = (
                f"The parameters of this layer{weights} have requires_grad=False, but it is in train mode: each batch "
                f"moves the running statistics, whose means are now {distance:.2g} standard deviations from the data's."
            )
            yield finding("frozen-but-updating", name, "warning", text)


def shift(exam: Exam, name: str) -> torch.Tensor:
    """How far each running mean is from the data's, in standard deviations of the data."""
    layer, data = exam.watch.norms[name], exam.statistics[name]
    return (layer.running_mean.cpu().double() - data.mean).abs() / (data.total + layer.eps).sqrt()


def initial_weight(layer: nn.Module) -> float:
    """The weight that the initial values still have in the running statistics."""
    count, rate = batches_tracked(layer), layer.alpha if isinstance(layer, FullNorm) else layer.momentum
    if rate is None or count == 0:
        return 0.0
    if not callable(rate):
        return (1 - rate) ** count
    # Past some thousand batches there is nothing left of them.
    return math.prod(1 - float(rate(step)) for step in range(count)) if count < 5000 else 0.0


def batches_needed(layer: nn.Module) -> float:
    """After how many batches the running statistics forget where they came from: three times their memory.

    With a constant momentum the first of the batches then weigh a twentieth of the last.
    """
    rate = layer.alpha if isinstance(layer, FullNorm) else layer.momentum
    rate = float(rate(batches_tracked(layer))) if callable(rate) else rate
    return 3 / rate if rate else 0.0


def batches_tracked(layer: nn.Module) -> int:
    """How many batches are in the running statistics."""
    return 0 if layer.num_batches_tracked is None else int(layer.num_batches_tracked)


CHECKS = (not_finite, half_precision, momentum, frozen)
