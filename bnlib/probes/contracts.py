r"""Two contracts that most modules keep and BN does not, measured on any module.

*Batch independence*: what a sample's output is does not depend on the other samples of the batch. *Train equals test*:
in train mode and in eval mode a module is the same function. Whoever writes code around a network takes both for
granted.

Source: the contracts are those of Irpan 2017, "On The Perils of Batch Norm"
(https://www.alexirpan.com/2017/04/26/perils-batch-norm.html).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bnlib.probes.apart import apart, precise


def batch_independence(module: nn.Module, inputs: Tensor, company: Tensor | None = None) -> float:
    r"""Change of the outputs of ``inputs``, in train mode, when other samples join the batch; 0 if the contract holds.

    The module is left as it was: buffers, gradients, modes and global random numbers. Both passes start from the same
    buffers and random numbers; a module that draws some may still draw others for a larger batch.

    Arguments:
        module: takes a batch and returns one tensor, the samples in the first dimension of both.
        inputs: the samples that are looked at, any number.
        company: the samples that join them. By default as many, made of the same samples but of another mean and
            spread, for company with the same statistics would hide a dependence.

    Shape:
        inputs: (N, \*). company: (M, \*), alike but for M.

    Returns:
        The largest change of a number of the output, over the root of the mean square of all these numbers in both
        passes; up to rounding 0 or not. nan if one is not finite.

    Raises:
        ValueError: no samples, or a ``company`` of other shape; and what the module raises.

    Example:
        >>> x = torch.arange(12.0).view(4, 3) ** 2
        >>> [round(probes.batch_independence(layer, x), 2) for layer in (bnlib.BatchNorm(3), nn.LayerNorm(3))]
        [1.65, 0.0]
    """
    _check_samples("inputs", inputs)
    company = _stranger(inputs) if company is None else company
    _check_samples("company", company)
    own, others = tuple(inputs.shape[1:]), tuple(company.shape[1:])
    if own != others:
        raise ValueError(f"company must have samples of the shape {own} of inputs, got {others}")
    alone = _outputs(module, lambda run: run(True, inputs))
    joined = _outputs(module, lambda run: run(True, torch.cat([inputs, company]))[: len(inputs)])
    return relative_change(alone, joined)


def train_equals_test(module: nn.Module, inputs: Tensor) -> float:
    r"""Difference of the outputs of a batch in train mode and, right after, in eval mode; 0 if the contract holds.

    Buffers that train mode moves, such as running statistics, stay moved for the pass in eval mode, as they do in
    training; then the module is as it was, as in ``batch_independence``.

    Arguments:
        module: takes a batch and returns one tensor.
        inputs: the batch.

    Shape:
        inputs: (N, \*).

    Returns:
        The largest difference, over the root of the mean square, as of ``batch_independence``.

    Raises:
        ValueError: no samples; and what the module raises.

    Example:
        >>> x = torch.arange(12.0).view(4, 3)
        >>> [round(probes.train_equals_test(layer, x), 1) for layer in (bnlib.BatchNorm(3), bnlib.FullNorm(3))]
        [1.9, 0.0]
    """
    _check_samples("inputs", inputs)
    return relative_change(*_outputs(module, lambda run: (run(True, inputs), run(False, inputs))))


def relative_change(first: Tensor, second: Tensor) -> float:
    """The largest difference of two tensors of one shape over the root of the mean square of both; 0 if both are 0.

    Example:
        >>> round(probes.relative_change(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.1])), 2)
        0.1
    """
    first, second = precise(first.detach()), precise(second.detach())
    if torch.equal(first, second):
        return 0.0
    scale = torch.stack([first, second]).square().mean().sqrt()
    return ((first - second).abs().max() / scale).item()


def _outputs(module: nn.Module, passes: Callable):
    """What ``passes(run)`` returns, ``run(train, x)`` being a pass through the module in train or eval mode."""

    def function(model: nn.Module):
        def run(train: bool, x: Tensor) -> Tensor:
            return model.train(train)(x)

        with torch.no_grad():
            return passes(run)

    with _modes_kept(module):
        return apart(module, function)


@contextmanager
def _modes_kept(module: nn.Module) -> Iterator[None]:
    """Leave each submodule in the mode it had: some may have been frozen in eval mode by hand."""
    modes = {each: each.training for each in module.modules()}
    try:
        yield
    finally:
        for each, mode in modes.items():
            each.training = mode


def _stranger(inputs: Tensor) -> Tensor:
    """The same samples in other order, twice as far apart, and shifted by a root mean square."""
    size = precise(inputs).square().mean().sqrt()
    shift = torch.where(size > 0, size, torch.ones_like(size))
    return 2 * inputs.flip(0) + shift.to(inputs.dtype)


def _check_samples(name: str, samples: Tensor) -> None:
    if samples.dim() < 1 or samples.numel() == 0:
        raise ValueError(f"{name} must hold at least one sample, got shape {tuple(samples.shape)}")
