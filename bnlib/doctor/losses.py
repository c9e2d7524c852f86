"""Outputs, losses and error rates of a model on batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from bnlib.doctor.batches import TARGET_NAMES, Batch
from bnlib.doctor.structures import describe, tensors
from bnlib.probes.tensors import at_least_float32

Loss = Callable[[object, object], Tensor]
"""``loss(outputs, targets)`` returns a single number."""

_OUTPUT_NAMES = ("logits", "out", "prediction", "predictions", "last_hidden_state")


@dataclass(frozen=True, eq=False)
class BatchScore:
    """The loss of one batch; and its predictions and targets, or None if the targets are not classes."""

    loss: float
    predictions: Tensor | None = None
    targets: Tensor | None = None

    @cached_property
    def wrong(self) -> int:
        """The number of wrong classes, which is counted only if somebody asks: it can take longer than the loss."""
        if self.targets is None:
            return 0
        class_dim = -1 if self.predictions.shape[:-1] == self.targets.shape else 1
        # The largest of predictions that are nan is no class.
        no_class = self.predictions.isnan().any(class_dim)
        return int(((self.predictions.argmax(class_dim) != self.targets) | no_class).sum())

    @property
    def count(self) -> int:
        """The number of targets."""
        return 0 if self.targets is None else self.targets.numel()


@dataclass(frozen=True, eq=False)
class Score:
    """The loss and the error rate of a model on several batches.

    Printed, it is the mean loss, with the error rate if there is one: ``0.106 (error 1.4%)``.

    Attributes:
        losses: the loss of each batch, shape (number of batches,), in the unit of the loss (nats for cross-entropy).
        error: the fraction of wrong classes, from 0 to 1; None where the targets are not classes.
    """

    losses: Tensor
    error: float | None

    def __str__(self) -> str:
        loss = f"{float(self.losses.mean()):.3g}"
        return loss if self.error is None else f"{loss} (error {self.error:.1%})"

    @classmethod
    def of(cls, scores: Iterable[BatchScore | None]) -> Score | None:
        """Return the score of several batches; None if the loss of one is unknown."""
        scores = list(scores)
        if any(each is None for each in scores):
            return None
        losses = torch.tensor([each.loss for each in scores], dtype=torch.double)
        wrong, count = sum(each.wrong for each in scores), sum(each.count for each in scores)
        return cls(losses, wrong / count if count else None)


def main_output(outputs: object) -> Tensor | None:
    """Return the tensor of the outputs that holds the predictions, or the first one of floating-point numbers.

    Example:
        >>> main_output({"aux": torch.zeros(2, 1), "logits": torch.zeros(2, 5)}).shape
        torch.Size([2, 5])
    """
    if isinstance(outputs, Tensor):
        return outputs
    named = (_member(outputs, name) for name in _OUTPUT_NAMES)
    found = next((each for each in named if isinstance(each, Tensor)), None)
    if found is None:
        found = next((each for each in tensors(outputs) if each.is_floating_point() and each.dim()), None)
    return found


def has_samples(outputs: object) -> bool:
    """Return whether outputs are a tensor of numbers with a dimension for the samples."""
    return isinstance(outputs, Tensor) and outputs.is_floating_point() and outputs.dim() > 0


def main_targets(targets: object) -> object:
    """Return the tensor of the targets: the targets themselves, their member such as ``labels``, or the only one."""
    if isinstance(targets, Tensor):
        return targets
    named = (_member(targets, name) for name in TARGET_NAMES)
    found = next((each for each in named if isinstance(each, Tensor)), None)
    inside = list(tensors(targets))
    return found if found is not None else inside[0] if len(inside) == 1 else None


def batch_loss(loss: Loss | None, outputs: object, batch: Batch) -> Tensor | None:
    """Return the loss of a batch; None where it is unknown.

    It is what ``loss`` returns for the outputs and the targets, or the whole batch where there are no targets. By
    default it is the model's own loss, or ``default_loss``.

    Raises:
        ValueError: ``loss`` does not return a single number.
    """
    if loss is None:
        own = own_loss(outputs, batch)
        return default_loss(main_output(outputs), main_targets(batch.targets)) if own is None else own
    targets = batch.whole if batch.targets is None else batch.targets
    if targets is None:
        return None
    try:
        value = loss(outputs, targets)
    except Exception as error:
        error.add_note(f"loss raised this error for outputs {describe(outputs)} and targets {describe(targets)}.")
        raise
    if value is not None and (not isinstance(value, Tensor) or value.numel() != 1):
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"loss must return a tensor with a single number, got {got}")
    return value


def own_loss(outputs: object, batch: Batch) -> Tensor | None:
    """Return the loss that the model itself computes: its output ``loss``, a single number, or a sum of named losses.

    Named losses are the outputs of a detector in train mode: a dictionary of single numbers.
    """
    own = _member(outputs, "loss")
    if isinstance(own, Tensor) and own.numel() == 1 and own.is_floating_point():
        return own.reshape(())
    targets = main_targets(batch.targets)
    one_sample = isinstance(targets, Tensor) and targets.numel() == 1
    if isinstance(outputs, Tensor) and outputs.dim() == 0 and outputs.is_floating_point() and not one_sample:
        return outputs
    values = list(outputs.values()) if isinstance(outputs, Mapping) else []
    if values and all(isinstance(each, Tensor) and each.dim() == 0 and each.is_floating_point() for each in values):
        return torch.stack(values).sum()
    return None


def batch_score(loss: Loss | None, outputs: object, batch: Batch) -> BatchScore | None:
    """Return the loss of a batch; None if it is unknown."""
    predictions, targets = main_output(outputs), main_targets(batch.targets)
    by_classes = default_loss(predictions, targets)
    value = own_loss(outputs, batch) if loss is None else batch_loss(loss, outputs, batch)
    value = by_classes if value is None and loss is None else value
    if value is None:
        return None
    return BatchScore(float(value)) if by_classes is None else BatchScore(float(value), predictions, targets)


def score(loss: Loss | None, outputs: Sequence[object], batches: Sequence[Batch]) -> Score | None:
    """Return the losses and the error rate of the outputs for all batches; None if the loss of a batch is unknown."""
    return Score.of(batch_score(loss, output, batch) for output, batch in zip(outputs, batches, strict=True))


def constant_output_loss(loss: Loss | None, outputs: Sequence[object], batches: Sequence[Batch]) -> float | None:
    """Return the loss of the mean output, the size of it; None if the loss takes more than one tensor of outputs.

    Where the loss takes other outputs than a single tensor, or the model computes it, it may still be the cross-entropy
    of the predictions. Then that is used.
    """
    # The loss of some batches is enough for a scale.
    pairs = list(zip(outputs, batches, strict=True))[:: max(1, len(batches) // 4)]
    if loss is None or not all(_are_a_tensor_for_the_loss(*each) for each in pairs):
        if not all(_loss_is_cross_entropy(loss, *each) for each in pairs):
            return None
        loss = None
    # The mean is taken over all batches, because the mean of a batch of one class would be a good output.
    used, first = [main_output(each) for each in outputs], main_output(pairs[0][0])
    mean = torch.stack([each.mean(0) for each in used if has_samples(each) and each.shape[1:] == first.shape[1:]]).mean(
        0
    )
    values = []
    for each, batch in ((main_output(output), batch) for output, batch in pairs):
        if each.shape[1:] == mean.shape:
            constant, targets = mean.expand_as(each), main_targets(batch.targets)
            value = default_loss(constant, targets) if loss is None else batch_loss(loss, constant, batch)
            values.append(abs(float(value)))
    return sum(values) / len(values)


def _are_a_tensor_for_the_loss(outputs: object, batch: Batch) -> bool:
    return has_samples(outputs) and own_loss(outputs, batch) is None


def _loss_is_cross_entropy(loss: Loss | None, outputs: object, batch: Batch) -> bool:
    """Return whether the loss of a batch is that of a classifier by its main outputs, up to 1 %."""
    by_classes = default_loss(main_output(outputs), main_targets(batch.targets))
    if by_classes is None or (loss is None and own_loss(outputs, batch) is None):
        return by_classes is not None
    value = batch_loss(loss, outputs, batch)
    return bool(torch.isclose(value.to(by_classes), by_classes, rtol=0.01))


def default_loss(outputs: object, targets: object) -> Tensor | None:
    """Return the cross-entropy if this is a classification, with the classes in dimension 1 or last; otherwise None."""
    if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor)):
        return None
    integers = not targets.is_floating_point() and not targets.is_complex() and targets.dtype != torch.bool
    if outputs.dim() < 2 or not outputs.is_floating_point() or not integers or not targets.numel():
        return None
    if outputs.dim() > 2 and outputs.shape[:-1] == targets.shape:
        outputs = outputs.movedim(-1, 1)
    if outputs.shape[:1] + outputs.shape[2:] != targets.shape:
        return None
    # Integers that are no classes of these outputs mean something else, as with a single output for two classes. 255
    # marks pixels without a class in the data sets for segmentation, -100 is PyTorch's own mark.
    ignored = 255 if outputs.dim() > 2 and outputs.size(1) <= 255 and bool((targets == 255).any()) else -100
    marked = targets[targets != ignored]
    if outputs.size(1) < 2 or not marked.numel() or marked.max() >= outputs.size(1) or marked.min() < 0:
        return None
    # Half precision has too few digits for the differences between losses that matter here.
    return F.cross_entropy(at_least_float32(outputs), targets.long(), ignore_index=ignored)


def _member(value: object, name: str) -> object:
    """Return a member of a mapping by its key, or of an object by its attribute; None if there is none."""
    if isinstance(value, (Tensor, tuple, list, type(None))) and not hasattr(value, "_fields"):
        return None
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
