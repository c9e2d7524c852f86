"""Checks of how often a training step updates the running statistics of each layer, and of what the layers counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from numbers import Real
from types import FunctionType

from torch import nn

from bnlib.doctor.measurements import Measurements
from bnlib.doctor.norm_layers import batches_tracked, newest_weight
from bnlib.doctor.report import Finding, make_finding
from bnlib.doctor.running_averages import layers_with_running_statistics_in_use

_CHECKPOINTING = ("gradient_checkpointing", "grad_checkpointing", "use_checkpoint", "with_cp", "memory_efficient")
"""Names that libraries give to the switch for gradient checkpointing."""


def update_counts(measurements: Measurements) -> Iterator[Finding]:
    """Find layers that one training step updates more often than others, and counters that this does not explain."""
    counts = _counts(measurements)
    if measurements.inference or not counts:
        return
    again = _calls_in_backward(measurements, counts)
    calls = {name: max(1, len(measurements.passes_by_batch[0].calls.get(name, ()))) for name in counts}
    yield from _updated_again_in_backward(measurements, counts, calls, again)
    yield from _counters_differ(counts, calls, again)


def _updated_again_in_backward(
    measurements: Measurements, counts: Mapping[str, int], calls: Mapping[str, int], again: Mapping[str, int]
) -> Iterator[Finding]:
    """Find layers that the backward pass calls again, as gradient checkpointing does: each batch counts twice.

    With momentum m, two updates by the same batch are one with momentum 1 - (1 - m)^2. That matters from 0.5 on, the
    limit of ``unusual_momentum``.
    """
    for name, count in counts.items():
        if not again.get(name):
            continue
        momentum, updates = newest_weight(measurements.norm_layers[name]), calls[name] + again[name]
        text = (
            f"The backward pass of a training step calls this layer again, as gradient checkpointing does, so each "
            f"batch updates its running statistics {updates} times. It has counted {count} batches."
        )
        serious = False
        if isinstance(momentum, Real):
            effective = 1 - (1 - momentum) ** updates
            text += (
                f" {updates} updates by one batch act like one with momentum {effective:.2g} in place of {momentum:g}."
            )
            serious = effective >= 0.5
        yield make_finding("gradient-checkpointing", name, "warning" if serious else "note", text)


def _counters_differ(
    counts: Mapping[str, int], calls: Mapping[str, int], again: Mapping[str, int]
) -> Iterator[Finding]:
    """Find layers that have counted another number of batches than most layers of the model.

    A layer counts each of its calls in a step. If the numbers agree after division by the calls, the calls explain
    them. Otherwise, the buffers come from several models, or a layer was frozen, replaced or left out for a time.
    """
    updates = {name: calls[name] + again.get(name, 0) for name in counts}
    steps = {name: count / updates[name] for name, count in counts.items()}
    explained = _alike(steps.values())
    if _alike(counts.values()):
        return
    for name, count in counts.items():
        others = Counter(number for key, number in counts.items() if key != name).most_common(4)
        listed = ", ".join(f"{number} in {layers} layer{'s' * (layers > 1)}" for number, layers in others)
        text = f"This layer has counted {count} batches; the other layers: {listed}."
        if explained and calls[name] > 1:
            text += f" The model calls it {calls[name]} times in one step, and each call counts."
        elif not explained and not _alike((steps[name], _most_common(steps.values()))):
            text += (
                f" Each step updates it {'once' if updates[name] == 1 else f'{updates[name]} times'}, which does not "
                "explain the difference. Its statistics come from another training, or it was frozen, replaced or not "
                "called for a part of this one."
            )
        else:
            continue
        yield make_finding("counters-differ", name, "note", text)


def _counts(measurements: Measurements) -> dict[str, int]:
    """Return the counters of the called layers that training updates."""
    layers = measurements.norm_layers
    found = {name: batches_tracked(layers[name]) for name in layers_with_running_statistics_in_use(measurements)}
    return {name: count for name, count in found.items() if count}


def _calls_in_backward(measurements: Measurements, counts: Mapping[str, int]) -> Mapping[str, int]:
    """Return how often the backward pass calls each layer.

    A backward pass is run for this only if something suggests checkpointing. Some models use it in train mode only. So
    if the counters or the name of a switch suggest it, the pass runs once more with all modules but norm layers and
    dropout in train mode.
    """
    suspected = _code_mentions_checkpoints(measurements) or _may_checkpoint_in_train_mode(measurements, counts)
    run = measurements.backward_pass if suspected else vars(measurements).get("backward_pass")
    if run is not None and not run.calls_in_backward and _may_checkpoint_in_train_mode(measurements, counts):
        with _other_modules_in_train_mode(measurements):
            run = measurements.run_backward()
    return {} if run is None else run.calls_in_backward


def _code_mentions_checkpoints(measurements: Measurements) -> bool:
    """Return whether a method of one of the modules uses a name with "checkpoint" in it."""
    kinds = {type(module) for module in measurements.instrumented.model.modules()}
    classes = set(chain.from_iterable(kind.__mro__ for kind in kinds)) - {nn.Module, object}
    functions = [each for kind in classes for each in vars(kind).values() if isinstance(each, FunctionType)]
    names = chain.from_iterable(each.__code__.co_names for each in functions)
    return any("checkpoint" in name for name in names)


def _may_checkpoint_in_train_mode(measurements: Measurements, counts: Mapping[str, int]) -> bool:
    modules = measurements.instrumented.model.modules()
    switched_on = any(getattr(module, name, None) is True for module in modules for name in _CHECKPOINTING)
    least, most = min(counts.values()), max(counts.values())
    return switched_on or (least < most and _alike((2 * least, most)))


@contextmanager
def _other_modules_in_train_mode(measurements: Measurements) -> Iterator[None]:
    modes = {module: module.training for module in measurements.instrumented.model.modules()}
    measurements.instrumented.train_other_modules()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _alike(numbers: Collection[float]) -> bool:
    """Return whether positive numbers differ by less than a twentieth: an incomplete epoch is no difference."""
    return max(numbers) <= 1.05 * min(numbers)


def _most_common(numbers: Iterable[float]) -> float:
    """Return the most common number, the largest of several."""
    return max(Counter(numbers).items(), key=lambda each: (each[1], each[0]))[0]
