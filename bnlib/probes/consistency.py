"""DOC consistency."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bnlib.probes.stateless import stateless_call
from bnlib.probes.tensors import at_least_float32


def batch_dependence(module: nn.Module, inputs: Tensor, other_samples: Tensor | None = None) -> float:
    r"""Change of the outputs of ``inputs``, in train mode, when other samples join the batch; 0 if the contract holds.

    The module is left as it was: buffers, gradients, modes and global random numbers. Both passes start from the same
    buffers and random numbers; a module that draws some may still draw others for a larger batch.

    Arguments:
        module: takes a batch and returns one tensor, the samples in the first dimension of both.
        inputs: the samples that are looked at, any number.
        other_samples: the samples that join them. By default as many, made of the same samples but of another mean and
            spread, for other_samples with the same statistics would hide a dependence.

    Shape:
        inputs: (N, \*). other_samples: (M, \*), alike but for M.

    Returns:
        The largest change of a number of the output, over the root of the mean square of all these numbers in both
        passes; up to rounding 0 or not. nan if one is not finite.

    Raises:
        ValueError: no samples, or a ``other_samples`` of other shape; and what the module raises.

    Example:
        >>> x = torch.arange(12.0).view(4, 3) ** 2
        >>> [round(probes.batch_dependence(layer, x), 2) for layer in (bnlib.BatchNorm(3), nn.LayerNorm(3))]
        [1.65, 0.0]
    """
    _check_samples("inputs", inputs)
    other_samples = _different_samples(inputs) if other_samples is None else other_samples
    _check_samples("other_samples", other_samples)
    own, others = tuple(inputs.shape[1:]), tuple(other_samples.shape[1:])
    if own != others:
        raise ValueError(f"other_samples must have samples of the shape {own} of inputs, got {others}")
    alone = _run_in_modes(module, lambda run: run(True, inputs))
    joined = _run_in_modes(module, lambda run: run(True, torch.cat([inputs, other_samples]))[: len(inputs)])
    return relative_difference(alone, joined)


def train_eval_difference(module: nn.Module, inputs: Tensor) -> float:
    r"""Difference of the outputs of a batch in train mode and, right after, in eval mode; 0 if the contract holds.

    Buffers that train mode moves, such as running statistics, stay moved for the pass in eval mode, as they do in
    training; then the module is as it was, as in ``batch_dependence``.

    Arguments:
        module: takes a batch and returns one tensor.
        inputs: the batch.

    Shape:
        inputs: (N, \*).

    Returns:
        The largest difference, over the root of the mean square, as of ``batch_dependence``.

    Raises:
        ValueError: no samples; and what the module raises.

    Example:
        >>> x = torch.arange(12.0).view(4, 3)
        >>> [round(probes.train_eval_difference(layer, x), 1) for layer in (bnlib.BatchNorm(3), bnlib.FullNorm(3))]
        [1.9, 0.0]
    """
    _check_samples("inputs", inputs)
    return relative_difference(*_run_in_modes(module, lambda run: (run(True, inputs), run(False, inputs))))


def relative_difference(first: Tensor, second: Tensor) -> float:
    """The largest difference of two tensors of one shape over the root of the mean square of both; 0 if both are 0.

    Example:
        >>> round(probes.relative_difference(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.1])), 2)
        0.1
    """
    first, second = at_least_float32(first.detach()), at_least_float32(second.detach())
    if torch.equal(first, second):
        return 0.0
    scale = torch.stack([first, second]).square().mean().sqrt()
    return ((first - second).abs().max() / scale).item()


def _run_in_modes(module: nn.Module, passes: Callable):
    """What ``passes(run)`` returns, ``run(train, x)`` being a pass through the module in train or eval mode."""

    def function(model: nn.Module):
        def run(train: bool, x: Tensor) -> Tensor:
            return model.train(train)(x)

        with torch.no_grad():
            return passes(run)

    with _preserve_modes(module):
        return stateless_call(module, function)


@contextmanager
def _preserve_modes(module: nn.Module) -> Iterator[None]:
    """Leave each submodule in the mode it had: some may have been frozen in eval mode by hand."""
    modes = {each: each.training for each in module.modules()}
    try:
        yield
    finally:
        for each, mode in modes.items():
            each.training = mode


def _different_samples(inputs: Tensor) -> Tensor:
    """The same samples in other order, twice as far apart, and shifted by a root mean square."""
    size = at_least_float32(inputs).square().mean().sqrt()
    shift = torch.where(size > 0, size, torch.ones_like(size))
    return 2 * inputs.flip(0) + shift.to(inputs.dtype)


def _check_samples(name: str, samples: Tensor) -> None:
    if samples.dim() < 1 or samples.numel() == 0:
        raise ValueError(f"{name} must hold at least one sample, got shape {tuple(samples.shape)}")
