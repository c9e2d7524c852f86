r"""The objectives of networks without BN, with BN, and of Full Normalization: equations (3) to (5).

The functions take a network as a sequence of layers (see ``bnlib.objective.operators``), except for
``model_objective``, which takes any ``nn.Module``.

Source: Lian and Liu 2019 (https://proceedings.mlr.press/v89/lian19a.html), section 4.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bnlib.arguments import check_integer, check_kind, check_number, check_usual, shown
from bnlib.objective.operators import Layer, Layers, bn_network, check_layers, plain_network

Loss = Callable[[Tensor, Tensor], Tensor]
"""``loss(outputs, targets)``, which returns one number per sample."""


class Estimate(NamedTuple):
    """An estimate from sampled batches.

    Attributes:
        mean: mean over the sampled batches.
        standard_error: standard error of the mean.
        batches: number of sampled batches.
    """

    mean: Tensor
    standard_error: Tensor
    batches: int


def plain_objective(layers: Layers, loss: Loss, x: Tensor, y: Tensor) -> Tensor:
    """Compute the objective without BN: the mean loss of the network without BN over the data.

    Arguments:
        layers: the network.
        loss: ``loss(outputs, targets)``, one number per sample, shape (..., n).
        x, y: the data, shapes (n, in) and (n, ...).

    Returns:
        The leading shape (...); a number if the weights have no leading dimensions.

    Raises:
        ValueError: if there is not one target for each sample, or the loss is not one number per sample.

    Source: Lian and Liu 2019, equation (3).

    Example:
        >>> layers, x = [(torch.tensor([[1.0, 0.0]]), nn.Identity())], torch.tensor([[1.0], [2.0]])
        >>> objective.plain_objective(layers, lambda outputs, y: (outputs[..., 0] - y).square(), x, torch.zeros(2))
        tensor(2.5000)
    """
    check_layers(layers)
    _check_data(loss, x, y)
    return _losses(loss, plain_network(layers, x), y).mean(-1)


def bn_objective(
    layers: Layers, loss: Loss, x: Tensor, y: Tensor, batches: Tensor | Iterable[Tensor], eps: float = 0.0
) -> Tensor:
    r"""Compute the objective with BN: the mean loss over a set of batches, each normalised by its own statistics.

    It is $\frac1{|\mathcal B|}\sum_{B\in\mathcal B}\frac1{|B|}\sum_{(x,y)\in B}l(F^B_W(x), y)$ for the set
    $\mathcal B$ of batches.

    Arguments:
        layers, loss, x, y: see ``plain_objective``.
        batches: the set of batches, as indices into the data: a tensor of shape (K, b), or tensors of any sizes.
        eps: see ``bn_operator``.

    Returns:
        The leading shape (...); a number if the weights have no leading dimensions.

    Raises:
        ValueError: if there are no batches, or one is not a row of indices; and as ``plain_objective``.

    Source: Lian and Liu 2019, equation (4).

    Example:
        With the same weights and data, another set of batches gives another objective:

        >>> x, y = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([0.0, 0.0, 1.0, 1.0])
        >>> layers = [(torch.tensor([[0.5, 0.5]]), nn.Identity())]
        >>> def loss(outputs, targets):
        ...     return (outputs[..., 0] - targets).square()
        >>> for batches in ([[0, 1], [2, 3]], [[0, 2], [1, 3]], [[0, 1, 2, 3]]):
        ...     print(batches, round(objective.bn_objective(layers, loss, x, y, torch.tensor(batches)).item(), 3))
        [[0, 1], [2, 3]] 0.5
        [[0, 2], [1, 3]] 0.0
        [[0, 1, 2, 3]] 0.053
    """
    check_layers(layers)
    _check_data(loss, x, y)
    check_usual(batches=batches)
    check_number("eps", eps, at_least=0)
    batches = batches if isinstance(batches, Tensor) else list(batches)
    if len(batches) == 0:
        raise ValueError("batches must hold at least one batch, got none")
    for each in batches:
        _check_batch("batches", each)
    if isinstance(batches, Tensor):
        means = _batch_losses(layers, loss, x, y, batches, eps)
    else:
        means = [_batch_losses(layers, loss, x, y, batch[None], eps)[..., 0] for batch in batches]
        means = torch.stack(means, -1)
    return means.mean(-1)


def full_objective(layers: Layers, loss: Loss, x: Tensor, y: Tensor, eps: float = 0.0) -> Tensor:
    """Compute the full-batch objective: ``bn_objective`` with all data as the only batch.

    Full Normalization minimises this objective.

    Arguments:
        layers, loss, x, y: see ``plain_objective``.
        eps: see ``bn_operator``.

    Source: Lian and Liu 2019, equation (5).

    Example:
        >>> x, y = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([0.0, 0.0, 1.0, 1.0])
        >>> layers = [(torch.tensor([[0.5, 0.5]]), nn.Identity())]
        >>> value = objective.full_objective(layers, lambda outputs, y: (outputs[..., 0] - y).square(), x, y)
        >>> round(value.item(), 3)
        0.053
    """
    check_usual(x=x)
    return bn_objective(layers, loss, x, y, torch.arange(len(x), device=x.device)[None], eps)


def estimated_objective(
    layers: Layers, loss: Loss, x: Tensor, y: Tensor, sampler: Iterator[Tensor], count: int, eps: float = 0.0
) -> Estimate:
    """Estimate ``bn_objective`` from ``count`` sampled batches, for sets of batches that are too large to enumerate.

    Arguments:
        layers, loss, x, y: see ``plain_objective``.
        sampler: yields index tensors, shape (b,), such as the samplers of ``bnlib.samplers``. The standard error is
            correct if the batches are drawn independently, and too large if they are drawn without replacement.
        count: number of batches to sample, at least 2.
        eps: see ``bn_operator``.

    Raises:
        ValueError: if ``count`` is below 2.

    Example:
        >>> x, y = torch.arange(20.0)[:, None], (torch.arange(20) > 9).float()
        >>> layers = [(torch.tensor([[0.5, 0.5]]), nn.Identity())]
        >>> def loss(outputs, targets):
        ...     return (outputs[..., 0] - targets).square()
        >>> exact = objective.bn_objective(layers, loss, x, y, objective.all_batches(20, 3))
        >>> batches = samplers.shuffled(y, 3, seed=0)
        >>> found = objective.estimated_objective(layers, loss, x, y, batches, 600)
        >>> bool((found.mean - exact).abs() < 3 * found.standard_error)
        True
    """
    check_layers(layers)
    _check_data(loss, x, y)
    check_number("eps", eps, at_least=0)
    check_kind("sampler", sampler, Iterator, "an iterator of batches, see bnlib.samplers")
    check_integer("count", count, at_least=2)  # one batch has no standard error
    batches = list(itertools.islice(sampler, count))
    if len(batches) < count:
        raise ValueError(f"sampler must yield at least count={count} batches, got {len(batches)}")
    for each in batches:
        _check_batch("sampler", each)
    if len(sizes := {len(each) for each in batches}) > 1:
        raise ValueError(f"sampler must yield batches of one size, got {min(sizes)} and {max(sizes)}")
    batches = torch.stack(batches)
    means = _batch_losses(layers, loss, x, y, batches, eps)
    return Estimate(means.mean(-1), means.std(-1) / math.sqrt(count), count)


def _batch_losses(layers: Layers, loss: Loss, x: Tensor, y: Tensor, batches: Tensor, eps: float) -> Tensor:
    """Return the mean loss of each batch, shape (..., K)."""
    inputs = x[batches]  # (K, b, in)
    wide = [Layer(weight.unsqueeze(-3), activation) for weight, activation in layers]
    return _losses(loss, bn_network(wide, inputs, inputs, eps), y[batches]).mean(-1)


def _losses(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of each sample, of the shape of the outputs without their last dimension."""
    found = loss(outputs, targets)
    if not isinstance(found, Tensor) or found.shape != outputs.shape[:-1]:
        raise ValueError(
            f"loss must return one number per sample, shape {tuple(outputs.shape[:-1])} for outputs of shape "
            f"{tuple(outputs.shape)}, got {shown(found)}"
        )
    return found


def _check_data(loss: Loss, x: Tensor, y: Tensor) -> None:
    check_usual(loss=loss, x=x, y=y)
    if y.dim() == 0 or x.dim() == 0 or len(y) != len(x):
        raise ValueError(f"y must have a target for each sample of x, got {tuple(y.shape)} for {tuple(x.shape)}")


def _check_batch(name: str, batch: Tensor) -> None:
    is_row = isinstance(batch, Tensor) and batch.dim() == 1 and len(batch) > 0
    if not is_row or batch.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"{name} must hold a row of indices for each batch, at least one, got {shown(batch)}")


def model_objective(model: nn.Module, loss: Loss, x: Tensor, y: Tensor, batches: Iterable[Tensor]) -> Tensor:
    """Compute ``bn_objective`` for any network: its mean loss in train mode over a set of batches.

    The result is differentiable with respect to the parameters. The running statistics and the mode of the model do not
    change, neither here nor in the backward pass. In a model in train mode, submodules keep their modes; a model in
    eval mode is evaluated in train mode. With all data as the only batch, the result is the full-batch objective.

    Arguments:
        model: the network, in train or eval mode.
        loss: ``loss(outputs, targets)``, one number per sample, shape (b,).
        x, y: the data, shapes (n, ...).
        batches: indices into the data, a tensor of shape (b,) for each batch.

    Raises:
        TypeError: if ``model`` is not an ``nn.Module``.
        ValueError: if there are no batches, if one is not a row of indices, if there is not one target for each
            sample, if the loss is not one number per sample, or if a normalisation layer of the model rejects a batch
            size.

    Source: Lian and Liu 2019, equations (4) and (5).

    Example:
        >>> x, y = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([0.0, 0.0, 1.0, 1.0])
        >>> model = nn.Sequential(bnlib.BatchNorm(1), nn.Flatten(0))
        >>> def loss(outputs, targets):
        ...     return (outputs - targets).square()
        >>> for batches in ([[0, 1], [2, 3]], [[0, 2], [1, 3]]):
        ...     value = objective.model_objective(model, loss, x, y, map(torch.tensor, batches))
        ...     print(batches, round(value.item(), 2))
        [[0, 1], [2, 3]] 1.5
        [[0, 2], [1, 3]] 0.5
    """
    check_usual(batches=batches)
    _check_data(loss, x, y)
    check_kind("model", model, nn.Module, "an nn.Module")
    means = []
    for index in batches:
        _check_batch("batches", index)
        # Some layers write into their buffers in the backward pass as well, which the caller makes later.
        copied = _copy_with_the_same_parameters(model)
        losses = loss((copied if copied.training else copied.train())(x[index]), y[index])
        if not isinstance(losses, Tensor) or losses.shape != (len(index),):
            raise ValueError(f"loss must return one number per sample, shape ({len(index)},), got {shown(losses)}")
        means.append(losses.mean())
    if not means:
        raise ValueError("batches must hold at least one batch, got none")
    return torch.stack(means).mean()


def _copy_with_the_same_parameters(model: nn.Module) -> nn.Module:
    """Return a copy of the model with buffers of its own; tensors with a graph and process groups are not copied."""
    shared = list(model.parameters())
    for module in model.modules():
        shared += [value for value in vars(module).values() if isinstance(value, Tensor) and not value.is_leaf]
        shared += [value for name, value in vars(module).items() if name.endswith("process_group")]
    return copy.deepcopy(model, {id(value): value for value in shared})
