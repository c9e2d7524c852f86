"""Measure whether a module's output depends on the other samples in the batch, or on train and eval mode.

Most modules have two properties that BN lacks. *Batch independence*: the output for one sample does not depend on the
other samples in the batch. *Train equals test*: the module computes the same function in train mode and in eval mode.
Code that uses a network often relies on both.

Source: Irpan 2017, "On The Perils of Batch Norm" (https://www.alexirpan.com/2017/04/26/perils-batch-norm.html).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bnlib.arguments import check_usual
from bnlib.probes.stateless import preserve_modes, stateless_call
from bnlib.probes.tensors import at_least_float32, root_mean_square


def batch_dependence(module: nn.Module, inputs: Tensor, other_samples: Tensor | None = None) -> float:
    r"""Measure how much the outputs for ``inputs`` change in train mode when other samples join the batch.

    The result is 0, up to rounding, if the output for a sample does not depend on the other samples in the batch.
    The other samples are placed behind ``inputs`` and before them, and the larger change counts.
    The module keeps its buffers, gradients and modes, and the global random number generators keep their state. All
    passes start from the same buffers and random state; a module that draws random numbers, such as dropout, may still
    draw other numbers for the larger batch.

    Arguments:
        module: takes a batch and returns one tensor; dimension 0 of both holds the samples.
        inputs: the samples whose outputs are compared, shape (N, \*).
        other_samples: the samples that join the batch, shape (M, \*). By default M = N and the samples are those of
            ``inputs``, shifted and scaled: other samples with the same mean and variance would hide a dependence.

    Returns:
        The largest absolute change of an output value, divided by the root mean square of the output values in both
        passes (no unit). nan if a value is not finite.

    Raises:
        ValueError: ``inputs`` or ``other_samples`` is empty, or their samples differ in shape. Errors of the module are
            passed on.

    Example:
        >>> x = torch.arange(12.0).view(4, 3) ** 2
        >>> [round(probes.batch_dependence(layer, x), 2) for layer in (bnlib.BatchNorm(3), nn.LayerNorm(3))]
        [1.65, 0.0]
    """
    check_usual(module=module, inputs=inputs)
    if other_samples is not None:
        check_usual(other_samples=other_samples)
    _check_samples("inputs", inputs)
    other_samples = _different_samples(inputs) if other_samples is None else other_samples
    _check_samples("other_samples", other_samples)
    own, others = tuple(inputs.shape[1:]), tuple(other_samples.shape[1:])
    if own != others:
        raise ValueError(f"other_samples must have samples of the shape {own} of inputs, got {others}")
    alone = _run_in_modes(module, lambda run: run(True, inputs))
    # Some layers take the samples one after another, so the others must also come first.
    behind = _run_in_modes(module, lambda run: run(True, torch.cat([inputs, other_samples]))[: len(inputs)])
    before = _run_in_modes(module, lambda run: run(True, torch.cat([other_samples, inputs]))[-len(inputs) :])
    changes = relative_difference(alone, behind), relative_difference(alone, before)
    return max(changes, key=lambda change: (math.isnan(change), change))


def train_eval_difference(module: nn.Module, inputs: Tensor) -> float:
    r"""Measure how much the outputs for a batch differ between train mode and eval mode.

    The module sees the batch in train mode first. What this pass changes, such as running statistics, is kept for the
    pass in eval mode, as in training. Afterwards the module is as it was before the call; see ``batch_dependence``.

    Arguments:
        module: takes a batch and returns one tensor.
        inputs: the batch, shape (N, \*).

    Returns:
        The largest absolute difference of an output value, divided by the root mean square of the output values in both
        passes (no unit); 0 if both modes compute the same function.

    Raises:
        ValueError: ``inputs`` is empty. Errors of the module are passed on.

    Example:
        >>> x = torch.arange(12.0).view(4, 3)
        >>> [round(probes.train_eval_difference(layer, x), 1) for layer in (bnlib.BatchNorm(3), bnlib.FullNorm(3))]
        [1.9, 0.0]
    """
    check_usual(module=module, inputs=inputs)
    _check_samples("inputs", inputs)
    return relative_difference(*_run_in_modes(module, lambda run: (run(True, inputs), run(False, inputs))))


def relative_difference(first: Tensor, second: Tensor) -> float:
    """Return the largest absolute difference of two tensors, divided by the root mean square of both.

    Arguments:
        first, second: tensors of the same shape.

    Returns:
        A number without unit; 0 if the tensors are equal.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> round(probes.relative_difference(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.1])), 2)
        0.1
    """
    check_usual(first=first, second=second)
    if first.shape != second.shape:
        raise ValueError(f"second must have the shape of first, {tuple(first.shape)}, got {tuple(second.shape)}")
    pair = [at_least_float32(each.detach() if each.is_floating_point() else each.double()) for each in (first, second)]
    if torch.equal(*pair):
        return 0.0
    values = torch.stack(pair)
    largest = values.abs().max()
    scale, tiny = values.square().mean().sqrt(), torch.finfo(values.dtype).tiny ** 0.5 * 2**10
    if largest.isfinite() and not tiny < scale < torch.inf:  # the squares are not in the range of the dtype
        values = values / largest
        scale = root_mean_square(values)
    return ((values[0] - values[1]).abs().max() / scale).item()


def _run_in_modes(module: nn.Module, passes: Callable):
    """Return ``passes(run)``; ``run(train, x)`` calls the module on x in train mode (True) or eval mode (False)."""

    def function(model: nn.Module):
        def run(train: bool, x: Tensor) -> Tensor:
            return model.train(train)(x)

        with torch.no_grad():
            return passes(run)

    with preserve_modes(module.modules()):
        return stateless_call(module, function)


def _different_samples(inputs: Tensor) -> Tensor:
    """Return the samples in reverse order, multiplied by 2 and shifted by their root mean square."""
    size = root_mean_square(at_least_float32(inputs))
    shift = torch.where(size > 0, size, torch.ones_like(size))
    return 2 * inputs.flip(0) + shift.to(inputs.dtype)


def _check_samples(name: str, samples: Tensor) -> None:
    if samples.dim() < 1 or samples.numel() == 0:
        raise ValueError(f"{name} must hold at least one sample, got shape {tuple(samples.shape)}")
