r"""The objectives of networks with BN: the operators and objectives of Lian and Liu (2019), equations (1) to (5).

A network is a sequence of layers ``(weight, activation)``. The weight has shape (out, in + 1), and its last column is
the bias. As in the paper, a layer first normalises its inputs, then multiplies them by the weight, then applies the
activation. The paper has no eps, so the default of ``eps`` is 0. There is no gamma and no beta, because the weight can
represent them.

All functions accept leading dimensions: the samples of many batches have the shape (..., b, d), and the weights have
the same leading dimensions or none. All functions are differentiable.

``model_objective`` computes the objective for any ``nn.Module``. ``absorb_batch_norm`` shows why the objectives (5) and
(3) have the same optimal value.

Source: Lian and Liu 2019 (https://proceedings.mlr.press/v89/lian19a.html), section 4.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnlib.norm import BatchNorm

Activation = Callable[[Tensor], Tensor]
"""An elementwise function."""

Layers = Sequence[tuple[Tensor, Activation]]
"""A network as its layers, from the input on. A layer is its weight, of shape (out, in + 1), and its activation."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""``loss(outputs, targets)``, which returns one number per sample."""


class Layer(NamedTuple):
    """One layer, which computes ``activation(weight @ [values, 1])``.

    Attributes:
        weight: shape (out, in + 1), with the bias as its last column.
        activation: an elementwise function.
    """

    weight: Tensor
    activation: Activation


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


def plain_operator(weight: Tensor, activation: Activation, values: Tensor) -> Tensor:
    r"""Apply a layer without BN: $\sigma(W\,[g, 1])$.

    Arguments:
        weight: shape (out, in + 1).
        activation: the function $\sigma$.
        values: g, shape (..., b, in).

    Returns:
        Shape (..., b, out).

    Source: Lian and Liu 2019, equation (2).

    Example:
        >>> objective.plain_operator(torch.tensor([[2.0, 1.0]]), torch.relu, torch.tensor([[3.0], [-3.0]]))
        tensor([[7.],
                [0.]])
    """
    ones = torch.ones_like(values[..., :1])
    return activation(torch.cat((values, ones), -1) @ weight.mT)


def bn_operator(
    weight: Tensor, activation: Activation, values: Tensor, batch_values: Tensor, eps: float = 0.0
) -> Tensor:
    r"""Apply a layer with BN: $\sigma(W\,[(g - \mathrm{mean}(g, B)) / \sqrt{\mathrm{var}(g, B)}, 1])$.

    Arguments:
        weight: shape (out, in + 1).
        activation: the function $\sigma$.
        values: g for any samples, shape (..., n, in).
        batch_values: g for the samples of the batch B, shape (..., b, in).
        eps: added to the variance; the paper has no eps.

    Returns:
        Shape (..., n, out).

    Source: Lian and Liu 2019, equation (1).

    Example:
        >>> weight, values = torch.tensor([[2.0, 1.0]]), torch.tensor([[3.0]])
        >>> objective.bn_operator(weight, torch.relu, values, batch_values=torch.tensor([[1.0], [5.0]]))
        tensor([[1.]])
    """
    mean, variance = batch_values.mean(-2, keepdim=True), batch_values.var(-2, correction=0, keepdim=True)
    return plain_operator(weight, activation, (values - mean) / (variance + eps).sqrt())


def plain_network(layers: Layers, x: Tensor) -> Tensor:
    """Apply a network without BN, a composition of ``plain_operator``.

    Arguments:
        layers: the network.
        x: samples, shape (..., n, in).

    Returns:
        Shape (..., n, out).

    Example:
        >>> layers = [(torch.tensor([[2.0, 1.0]]), torch.relu), (torch.tensor([[1.0, -1.0]]), nn.Identity())]
        >>> objective.plain_network(layers, torch.tensor([[3.0]]))
        tensor([[6.]])
    """
    for weight, activation in layers:
        x = plain_operator(weight, activation, x)
    return x


def bn_network(layers: Layers, x: Tensor, batch: Tensor, eps: float = 0.0) -> Tensor:
    r"""Apply a network with BN, $F^B_W(x)$, a composition of ``bn_operator``.

    The statistics of each layer are those of its inputs for the samples of the batch B.

    Arguments:
        layers: the network.
        x: any samples, shape (..., n, in).
        batch: the samples of B, shape (..., b, in).
        eps: see ``bn_operator``.

    Returns:
        Shape (..., n, out). With eps = 0, a unit that is constant on B gives nan, because the formula divides by 0.

    Source: Lian and Liu 2019, section 4.

    Example:
        >>> layers, x = [(torch.tensor([[1.0, 0.0]]), nn.Identity())], torch.tensor([[1.0]])
        >>> for batch in ([[0.0], [2.0]], [[1.0], [3.0]]):  # the same x in two batches
        ...     print(objective.bn_network(layers, x, torch.tensor(batch)).item())
        0.0
        -1.0
    """
    for weight, activation in layers:
        x, batch = (bn_operator(weight, activation, values, batch, eps) for values in (x, batch))
    return x


def plain_objective(layers: Layers, loss: Loss, x: Tensor, y: Tensor) -> Tensor:
    """Compute the objective without BN: the mean loss of the network without BN over the data.

    Arguments:
        layers: the network.
        loss: ``loss(outputs, targets)``, one number per sample, shape (..., n).
        x, y: the data, shapes (n, in) and (n, ...).

    Returns:
        The leading shape (...); a number if the weights have no leading dimensions.

    Source: Lian and Liu 2019, equation (3).

    Example:
        >>> layers, x = [(torch.tensor([[1.0, 0.0]]), nn.Identity())], torch.tensor([[1.0], [2.0]])
        >>> objective.plain_objective(layers, lambda outputs, y: (outputs[..., 0] - y).square(), x, torch.zeros(2))
        tensor(2.5000)
    """
    return loss(plain_network(layers, x), y).mean(-1)


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
        ValueError: if there are no batches.

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
    batches = batches if isinstance(batches, Tensor) else list(batches)
    if len(batches) == 0:
        raise ValueError("batches must hold at least one batch, got none")
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
    return bn_objective(layers, loss, x, y, torch.arange(len(x))[None], eps)


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
    if count < 2:
        raise ValueError(f"count must be at least 2 to estimate a standard error, got {count}")
    batches = torch.stack(list(itertools.islice(sampler, count)))
    means = _batch_losses(layers, loss, x, y, batches, eps)
    return Estimate(means.mean(-1), means.std(-1) / math.sqrt(count), count)


def _batch_losses(layers: Layers, loss: Loss, x: Tensor, y: Tensor, batches: Tensor, eps: float) -> Tensor:
    """Return the mean loss of each batch, shape (..., K)."""
    inputs = x[batches]  # (K, b, in)
    wide = [Layer(weight.unsqueeze(-3), activation) for weight, activation in layers]
    return loss(bn_network(wide, inputs, inputs, eps), y[batches]).mean(-1)


def model_objective(model: nn.Module, loss: Loss, x: Tensor, y: Tensor, batches: Iterable[Tensor]) -> Tensor:
    """Compute ``bn_objective`` for any network: its mean loss in train mode over a set of batches.

    The result is differentiable with respect to the parameters. The running statistics and the mode of the model do not
    change. With all data as the only batch, the result is the full-batch objective.

    Arguments:
        model: the network, in train or eval mode.
        loss: ``loss(outputs, targets)``, one number per sample, shape (b,).
        x, y: the data, shapes (n, ...).
        batches: indices into the data, a tensor of shape (b,) for each batch.

    Raises:
        ValueError: if there are no batches, or if a normalisation layer of the model rejects a batch size.

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
    modes = {module: module.training for module in model.modules()}
    parameters = dict(model.named_parameters())
    means = []
    try:
        model.train()
        for index in batches:
            buffers = {name: value.clone() for name, value in model.named_buffers()}
            outputs = torch.func.functional_call(model, parameters | buffers, (x[index],))
            means.append(loss(outputs, y[index]).mean())
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not means:
        raise ValueError("batches must hold at least one batch, got none")
    return torch.stack(means).mean()


def all_batches(samples: int, batch_size: int, limit: int = 200_000) -> Tensor:
    """Return all subsets of ``batch_size`` samples, which are the batches that shuffling can produce.

    Arguments:
        samples: number of samples.
        batch_size: samples per batch.
        limit: the most batches to return.

    Returns:
        Indices of the samples, shape (K, batch_size).

    Raises:
        ValueError: if ``batch_size`` is outside 1..samples, or if there are more than ``limit`` subsets.

    Example:
        >>> objective.all_batches(4, 2).tolist()
        [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    """
    if not 1 <= batch_size <= samples:
        raise ValueError(f"batch_size must lie in 1..{samples}, got {batch_size}")
    count = math.comb(samples, batch_size)
    if count > limit:
        raise ValueError(
            f"limit must be at least {count:,}, the number of batches of {batch_size} of {samples} samples, got "
            f"{limit:,}; or estimate the objective from sampled batches with estimated_objective"
        )
    return torch.tensor(list(itertools.combinations(range(samples), batch_size)))


def worker_batches(shards: Sequence[Sequence[int]], batch_size: int, limit: int = 200_000) -> list[Tensor]:
    """Return the batches that several workers can draw: all subsets of ``batch_size`` samples of each worker's shard.

    Arguments:
        shards: the indices of each worker's samples.
        batch_size: samples per batch.
        limit: the most batches of one worker.

    Returns:
        A list of index tensors, each of shape (batch_size,).

    Raises:
        ValueError: as ``all_batches``, for any of the shards.

    Source: Lian and Liu 2019, section 4.

    Example:
        >>> [batch.tolist() for batch in objective.worker_batches([[0, 1, 2], [3, 4]], 2)]
        [[0, 1], [0, 2], [1, 2], [3, 4]]
    """
    found = []
    for shard in shards:
        index = torch.as_tensor(shard)
        found += list(index[all_batches(len(index), batch_size, limit)])
    return found


def absorb_batch_norm(network: nn.Module, data: Tensor) -> nn.Sequential:
    r"""Return a network without BN that computes the same function as a BN network with full-batch statistics.

    Full-batch BN multiplies and shifts by numbers that do not depend on the input. A linear layer next to it can do the
    same. With the mean m, the variance v and $s = \sqrt{v + \epsilon}$ of all data, BN becomes part of the linear layer
    after it, $W' = W\,\mathrm{diag}(1/s)$ and $c' = c - W m / s$ (for $\gamma = 1$ and $\beta = 0$), or of the linear
    layer before it, $W' = \mathrm{diag}(\gamma/s)\,W$ and $c' = \gamma (c - m)/s + \beta$.

    The argument has limits. The batch must be all data, because each mini-batch would need its own W'. The linear layer
    needs a bias. And only the optimal values of the two objectives agree: gradient descent may find different
    solutions, and weight decay acts differently on W' and W.

    Arguments:
        network: an ``nn.Sequential`` of linear layers, BN layers next to a linear layer, and layers without parameters
            that process each sample separately. It is not changed.
        data: all data, shape (n, ...).

    Returns:
        A network without BN; its linear layers have a bias.

    Raises:
        TypeError: if ``network`` is not an ``nn.Sequential``, or has other layers with parameters.
        ValueError: if a BN layer is not next to a linear layer.

    Source: Lian and Liu 2019, section 4.

    Example:
        >>> x = torch.linspace(-1, 2, 12).view(4, 3) ** 2
        >>> network = models.mlp((3, 5, 2), bnlib.BatchNorm)
        >>> plain = objective.absorb_batch_norm(network, x)
        >>> any(isinstance(layer, bnlib.BatchNorm) for layer in plain)
        False
        >>> torch.allclose(plain(x), network.train()(x), atol=1e-4)
        True
    """
    if not isinstance(network, nn.Sequential):
        raise TypeError(f"network must be an nn.Sequential, got {type(network).__name__}")
    layers = [copy.deepcopy(layer) for layer in _flat(network)]
    for layer in layers:
        if any(True for _ in layer.parameters()) and not isinstance(layer, (nn.Linear, BatchNorm, _BatchNorm)):
            raise TypeError(f"network must have no layers with parameters other than linear layers and BN, got {layer}")
    plain: list[nn.Module] = []
    pending: tuple[Tensor, Tensor] | None = None
    with torch.no_grad():
        for position, layer in enumerate(layers):
            if isinstance(layer, (BatchNorm, _BatchNorm)):
                scale, shift = _full_batch(layer, data)
                data = data * scale + shift
                if plain and isinstance(plain[-1], nn.Linear):
                    plain[-1] = _linear(scale[:, None] * plain[-1].weight, scale * _bias(plain[-1]) + shift)
                elif position + 1 < len(layers) and isinstance(layers[position + 1], nn.Linear):
                    pending = scale, shift
                else:
                    raise ValueError(f"network must have each BN next to a linear layer, got {layer} at {position}")
                continue
            data = layer(data)
            if pending is not None:
                scale, shift = pending
                layer, pending = _linear(layer.weight * scale, _bias(layer) + layer.weight @ shift), None
            plain.append(layer)
    return nn.Sequential(*plain)


def _flat(network: nn.Sequential) -> Iterator[nn.Module]:
    for layer in network:
        if isinstance(layer, nn.Sequential):
            yield from _flat(layer)
        else:
            yield layer


def _full_batch(layer: nn.Module, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and shift of the affine map that BN applies in train mode with all data as its batch."""
    variance, mean = torch.var_mean(values, 0, correction=0)
    scale = (variance + layer.eps).rsqrt()
    scale = scale if layer.weight is None else scale * layer.weight
    return scale, (0 if layer.bias is None else layer.bias) - mean * scale


def _bias(layer: nn.Linear) -> Tensor:
    return torch.zeros_like(layer.weight[:, 0]) if layer.bias is None else layer.bias


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.size(1), weight.size(0), device=weight.device, dtype=weight.dtype)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer
