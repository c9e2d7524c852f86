r"""What a network with BN minimises: the operators and objectives of Lian and Liu (2019), equations (1) to (5).

A network is a sequence of layers ``(weight, activation)``; the weight, shape (out, in + 1), has the bias as its last
column. As in the paper the inputs of a layer are normalised first, then multiplied, then activated; there is no eps
unless one is given, and neither gamma nor beta, for the weight does what they would do.

All functions take leading dimensions: samples of many batches at once, shape (..., b, d), with weights of the same
leading dimensions or of none. Everything is differentiable.

``model_objective`` has the same objective for any ``nn.Module``, and ``absorb_batch_norm`` the argument that (5) has the optimal
value of (3).

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
"""A network, as weight, shape (out, in + 1), and activation of each layer, the input's first."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""``loss(outputs, targets)``, one number a sample."""


class Layer(NamedTuple):
    """One layer: ``activation(weight @ [values, 1])``."""

    weight: Tensor
    activation: Activation


class Estimate(NamedTuple):
    """An average over sampled batches.

    Attributes:
        mean: of the sampled values.
        standard_error: of the mean.
        batches: their number.
    """

    mean: Tensor
    standard_error: Tensor
    batches: int


def plain_operator(weight: Tensor, activation: Activation, values: Tensor) -> Tensor:
    r"""Equation (2): $\sigma(W\,[g, 1])$, for values g of shape (..., b, in); returns (..., b, out).

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
    r"""Equation (1): $\sigma(W\,[(g - \mathrm{mean}(g, B)) / \sqrt{\mathrm{var}(g, B)}, 1])$.

    Arguments:
        weight, activation: of the layer.
        values: of g at any samples, shape (..., n, in).
        batch_values: of g at those of the batch B, shape (..., b, in).
        eps: to be added to the variance; the paper has none.

    Example:
        >>> weight, values = torch.tensor([[2.0, 1.0]]), torch.tensor([[3.0]])
        >>> objective.bn_operator(weight, torch.relu, values, batch_values=torch.tensor([[1.0], [5.0]]))
        tensor([[1.]])
    """
    mean, variance = batch_values.mean(-2, keepdim=True), batch_values.var(-2, correction=0, keepdim=True)
    return plain_operator(weight, activation, (values - mean) / (variance + eps).sqrt())


def plain_network(layers: Layers, x: Tensor) -> Tensor:
    """The network without BN, a composition of ``plain_operator``; shape (..., n, out).

    Example:
        >>> layers = [(torch.tensor([[2.0, 1.0]]), torch.relu), (torch.tensor([[1.0, -1.0]]), nn.Identity())]
        >>> objective.plain_network(layers, torch.tensor([[3.0]]))
        tensor([[6.]])
    """
    for weight, activation in layers:
        x = plain_operator(weight, activation, x)
    return x


def bn_network(layers: Layers, x: Tensor, batch: Tensor, eps: float = 0.0) -> Tensor:
    r"""$F^B_W(x)$, a composition of ``bn_operator``: statistics are those of the *function* below on the batch.

    Arguments:
        layers: of the network.
        x: any samples, shape (..., n, in).
        batch: samples of B, shape (..., b, in).
        eps: see ``bn_operator``.

    Returns:
        Shape (..., n, out). With eps = 0 a unit that is constant on B gives nan, for the formula is not defined there.

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
    """Equation (3): the mean loss over the data of the network without BN.

    Arguments:
        layers: of the network.
        loss: ``loss(outputs, targets)``, one number a sample, shape (..., n).
        x, y: the data, shapes (n, in) and (n, ...).

    Example:
        >>> layers, x = [(torch.tensor([[1.0, 0.0]]), nn.Identity())], torch.tensor([[1.0], [2.0]])
        >>> objective.plain_objective(layers, lambda outputs, y: (outputs[..., 0] - y).square(), x, torch.zeros(2))
        tensor(2.5000)
    """
    return loss(plain_network(layers, x), y).mean(-1)


def bn_objective(
    layers: Layers, loss: Loss, x: Tensor, y: Tensor, batches: Tensor | Iterable[Tensor], eps: float = 0.0
) -> Tensor:
    r"""Equation (4): $\frac1{|\mathcal B|}\sum_{B\in\mathcal B}\frac1{|B|}\sum_{(x,y)\in B}l(F^B_W(x), y)$.

    Arguments:
        layers, loss, x, y: see ``plain_objective``.
        batches: the set of batches, as indices into the data: a tensor, shape (K, b), or tensors of any sizes.
        eps: see ``bn_operator``.

    Raises:
        ValueError: no batches.

    Example:
        The same weights and data; another set of batches, another objective:

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
    """Equation (5): equation (4) with one batch, all the data; what Full Normalization minimises.

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
    """Equation (4) for batches too many to enumerate: from ``count`` of them, with a standard error.

    Arguments:
        layers, loss, x, y: see ``plain_objective``.
        sampler: yields index tensors (b,), such as those of ``bnlib.samplers``; drawn independently the error is right,
            dealt out without replacement it is too large.
        count: how many batches, at least 2.
        eps: see ``bn_operator``.

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
        raise ValueError(f"count must be at least 2, got {count}")
    batches = torch.stack(list(itertools.islice(sampler, count)))
    means = _batch_losses(layers, loss, x, y, batches, eps)
    return Estimate(means.mean(-1), means.std(-1) / math.sqrt(count), count)


def _batch_losses(layers: Layers, loss: Loss, x: Tensor, y: Tensor, batches: Tensor, eps: float) -> Tensor:
    """Mean loss of each batch, shape (..., K)."""
    inputs = x[batches]  # (K, b, in)
    wide = [Layer(weight.unsqueeze(-3), activation) for weight, activation in layers]
    return loss(bn_network(wide, inputs, inputs, eps), y[batches]).mean(-1)


def model_objective(model: nn.Module, loss: Loss, x: Tensor, y: Tensor, batches: Iterable[Tensor]) -> Tensor:
    """Equation (4) for any network, its norms in train mode; differentiable with respect to its parameters.

    Running statistics stay as they are. With one batch, all data, it is equation (5).

    Arguments:
        model: in any mode, which stays.
        loss: ``loss(outputs, targets)``, one number a sample, shape (b,).
        x, y: the data.
        batches: indices into them, a tensor (b,) for each batch.

    Raises:
        ValueError: no batches, or a batch size that a norm of the model refuses.

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
    """All subsets of ``batch_size`` of the samples: what shuffling draws from; shape (K, batch_size).

    Raises:
        ValueError: ``batch_size`` outside 1..samples, or more than ``limit`` subsets; then draw some.

    Example:
        >>> objective.all_batches(4, 2).tolist()
        [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    """
    if not 1 <= batch_size <= samples:
        raise ValueError(f"batch_size must lie in 1..{samples}, got {batch_size}")
    count = math.comb(samples, batch_size)
    if count > limit:
        raise ValueError(
            f"batch_size {batch_size} of {samples} samples gives {count:,} batches, more than {limit:,}; estimate the "
            "objective from some of them instead"
        )
    return torch.tensor(list(itertools.combinations(range(samples), batch_size)))


def worker_batches(shards: Sequence[Sequence[int]], batch_size: int, limit: int = 200_000) -> list[Tensor]:
    """The union over workers of all subsets of ``batch_size`` of each worker's own samples; a list of (b,).

    Raises:
        ValueError: as ``all_batches``, for a shard.

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
    r"""Build the plain network that equals a BN network with the statistics of all ``data``, on every input.

    Full-batch BN multiplies and shifts by numbers that do not depend on the input, and a linear layer next to it can do
    that as well: $W' = W\,\mathrm{diag}(1/s)$ with the bias $c' = c - W m / s$ for a linear layer behind,
    $W' = \mathrm{diag}(\gamma/s)\,W$ with $c' = \gamma (c - m)/s + \beta$ for one before, $s = \sqrt{v + \epsilon}$.

    The limits of the argument: it needs the batch to be all data, since with mini-batches there is another W' for each;
    a bias; and it says that the best values of the objectives agree, and nothing of what gradient descent finds or of
    weight decay.

    Arguments:
        network: ``nn.Sequential`` of linear layers, batch norms next to one, and layers without parameters that treat
            each sample by itself. It is not changed.
        data: all of it, shape (n, ...).

    Returns:
        A network without batch norms whose linear layers have a bias.

    Raises:
        TypeError: ``network`` is no ``nn.Sequential``, or has other layers with parameters.
        ValueError: a batch norm that is next to no linear layer.

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
            raise TypeError(f"network must have no layers with parameters but linear ones and BN, got {layer}")
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
    """The affine map that the layer is in train mode with all data as its batch."""
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
