"""The batches that a model is diagnosed on: what in them goes into the model, and what are targets."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from bnlib.doctor.structures import describe, sample_count, tensors, to_device

TARGET_NAMES = ("labels", "label", "targets", "target", "y")
"""Keys and attributes of a batch that hold the targets."""

Forward = Callable[[nn.Module, object], object]
"""``forward(model, batch)`` returns the outputs of the model for a batch of the loader."""


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch, taken apart.

    Attributes:
        arguments: the positional arguments of the model.
        keywords: the keyword arguments of the model.
        targets: the targets; None if the batch has none.
        whole: the batch as the loader yields it; None after its samples were shuffled or joined with others.
    """

    arguments: tuple = ()
    keywords: dict = field(default_factory=dict)
    targets: object = None
    whole: object = None

    @property
    def inputs(self) -> tuple:
        """What goes into the model."""
        return self.arguments, self.keywords

    @cached_property
    def size(self) -> int | None:
        """The number of samples; None if the tensors do not have the samples as their first dimension."""
        targets_are_lists = self.targets is not None and sample_count(self.targets) is None
        is_list = targets_are_lists and not isinstance(self.targets, Tensor) and bool(list(tensors(self.targets)))
        return None if is_list else sample_count(self.inputs)


def first_batches(
    name: str, batches: Iterable, max_batches: int, model: nn.Module, forward: Forward | None = None
) -> list[Batch]:
    """Return the first ``max_batches`` batches, without empty ones, on the model's device.

    Arguments:
        name: what error messages call ``batches``.
        batches: see ``diagnose``.
        max_batches: take at most this many.
        model: the model as the user calls it; its signature tells which parts of a batch are inputs.
        forward: see ``diagnose``; with it the whole batch is the input.

    Raises:
        ValueError: ``batches`` is not an iterable of batches or has no samples; a batch does not fit the model.
    """
    if not isinstance(batches, Iterable) or isinstance(batches, Tensor):
        raise ValueError(f"{name} must be an iterable of batches, such as a DataLoader, got {type(batches).__name__}")
    device = next((each.device for each in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    moved = [to_device(each, device) for each in itertools.islice(batches, max_batches)]
    if forward:
        taken = [_with_forward(each) for each in moved]
    else:
        signature = _signature(model)
        taken = [_without_forward(name, each, signature) for each in moved]
    taken = [each for each in taken if all(value.numel() for value in tensors(each.inputs))]
    if not taken:
        raise ValueError(f"{name} must hold at least one batch with a sample, got none")
    return taken


def call_model(model: nn.Module, batch: Batch, forward: Forward | None) -> object:
    """Return the outputs of a model for a batch."""
    return forward(model, *batch.arguments) if forward else model(*batch.arguments, **batch.keywords)


def _with_forward(batch: object) -> Batch:
    _, targets = _split_targets(batch)
    return Batch((batch,), {}, targets, batch)


def _split_targets(batch: object) -> tuple[object, object]:
    """Return the inputs and the targets of a batch, from its form alone."""
    if isinstance(batch, (tuple, list)) and len(batch) > 1:
        inputs = batch[0] if len(batch) == 2 else tuple(batch[:-1])
        return inputs, batch[-1]
    if isinstance(batch, Mapping):
        name = next((each for each in TARGET_NAMES if each in batch), None)
        return {key: value for key, value in batch.items() if key != name}, batch.get(name)
    if isinstance(batch, (Tensor, tuple, list)):
        return (batch[0] if isinstance(batch, (tuple, list)) and batch else batch), None
    return batch, next((getattr(batch, each) for each in TARGET_NAMES if hasattr(batch, each)), None)


def _without_forward(name: str, batch: object, signature: inspect.Signature) -> Batch:
    """Take a batch apart such that the model can be called with it."""
    parts = batch if isinstance(batch, (tuple, list)) else ()
    inside = parts[0] if len(parts) == 2 and isinstance(parts[0], (tuple, list)) else ()
    if len(parts) > 1 and _required(signature) == len(parts) and _required(signature) != len(inside):
        # The model takes all parts, with the targets or without any.
        return Batch(tuple(batch), {}, None, batch)
    if isinstance(batch, Mapping) and _fits(signature, (), batch) and not _fits(signature, (batch,)):
        return Batch((), dict(batch), next((batch[each] for each in TARGET_NAMES if each in batch), None), batch)
    inputs, targets = _split_targets(batch)
    if isinstance(inputs, Mapping):
        named = {key: value for key, value in inputs.items() if _knows(signature, key)}
        if named and _fits(signature, (), {**named}):
            labelled = {key: batch[key] for key in TARGET_NAMES if isinstance(batch, Mapping) and key in batch}
            labelled = {key: value for key, value in labelled.items() if _knows(signature, key)}
            return Batch((), {**named, **labelled}, targets, batch)
        if len(inputs) == 1 and _fits(signature, (None,)):
            return Batch(tuple(inputs.values()), {}, targets, batch)
    if _required(signature) > 1 and all(hasattr(batch, each) for each in _required_names(signature)):
        # Batches of graphs hold what the model takes, such as x and edge_index, as attributes.
        return Batch((), {each: getattr(batch, each) for each in _required_names(signature)}, targets, batch)
    several = isinstance(inputs, (tuple, list)) and not _holds_samples(inputs, targets)
    if several and _fits(signature, inputs) and (_required(signature) > 1 or _is_variadic(signature) or len(parts) > 2):
        return Batch(tuple(inputs), {}, targets, batch)
    if _fits(signature, (inputs,)) and not (several and len(parts) > 2):
        return Batch((inputs,), {}, targets, batch)
    raise ValueError(
        f"{name} must yield inputs or pairs (inputs, targets) that fit forward{signature} of the model, got a batch of "
        f"{len(batch) if isinstance(batch, (tuple, list, Mapping)) else 1} parts, {describe(batch)}; say how the model "
        "is called with such a batch, for example forward=lambda model, batch: model(batch[0], batch[1])"
    )


def _signature(model: nn.Module) -> inspect.Signature:
    # A compiled model and a parallel one take the arguments of the model inside.
    inside = getattr(model, "_orig_mod", None) or (
        model.module if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)) else None
    )
    if inside is not None:
        return _signature(inside)
    if isinstance(model, torch.jit.ScriptModule):
        names = [
            each.name for each in model.forward.schema.arguments if each.name.isidentifier() and each.name != "self"
        ]
        return inspect.Signature([inspect.Parameter(each, inspect.Parameter.POSITIONAL_OR_KEYWORD) for each in names])
    return inspect.signature(model.forward)


def _fits(signature: inspect.Signature, arguments: Iterable, keywords: Mapping | None = None) -> bool:
    try:
        signature.bind(*arguments, **(keywords or {}))
    except TypeError:
        return False
    return True


def _required(signature: inspect.Signature) -> int:
    """Return the number of positional arguments without a default."""
    return len(_required_names(signature))


def _required_names(signature: inspect.Signature) -> list[str]:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [each for each in signature.parameters.values() if each.default is inspect.Parameter.empty]
    return [each.name for each in needed if each.kind in positional]


def _is_variadic(signature: inspect.Signature) -> bool:
    return any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in signature.parameters.values())


def _knows(signature: inspect.Signature, name: str) -> bool:
    return name in signature.parameters


def _holds_samples(inputs: tuple | list, targets: object) -> bool:
    """Return whether the inputs are a list of samples, with a list of targets, as detectors take them."""
    return isinstance(targets, (tuple, list)) and len(targets) == len(inputs) and isinstance(targets[0], Mapping)
