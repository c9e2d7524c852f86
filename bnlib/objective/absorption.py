"""Absorption: a network without BN that computes the same function as a BN network with the statistics of all data.

Source: Lian and Liu 2019 (https://proceedings.mlr.press/v89/lian19a.html), section 4.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from bnlib.arguments import check_usual
from bnlib.norm import BatchNorm, FullNorm, SyncBatchNorm

_USES_BATCH = (_BatchNorm, FullNorm)
"""Layers whose output for a sample depends on other samples, even if they have neither parameters nor buffers."""


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
        TypeError: if ``network`` is not an ``nn.Sequential``, or has a layer that cannot be part of the result: with
            parameters or running statistics, such as a subclass of ``nn.Linear`` with its own forward pass, with random
            numbers, or with hooks.
        ValueError: if a BN layer is not next to a linear layer, or its input is not of shape (n, features).

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
    if not isinstance(network, nn.Module) or not _is_plain(network, nn.Sequential):
        raise TypeError(f"network must be an nn.Sequential, got {type(network).__name__}")
    check_usual(data=data)
    for layer in _flat(network):
        _check_layer(layer)
    layers = [copy.deepcopy(layer) for layer in _flat(network)]
    plain: list[nn.Module] = []
    pending: tuple[Tensor, Tensor] | None = None
    data = data.clone()  # a layer may write into its input
    with torch.no_grad():
        for position, layer in enumerate(layers):
            if _is_batch_norm(layer):
                if data.dim() != 2:
                    shape = f"{tuple(data.shape)} at layer {position}"
                    raise ValueError(f"data must reach each BN in the shape (n, features), got {shape}")
                scale, shift = _full_batch(layer, data)
                data = data * scale + shift
                if plain and _is_plain(plain[-1], nn.Linear):
                    plain[-1] = _linear(scale[:, None] * plain[-1].weight, scale * _bias(plain[-1]) + shift)
                elif position + 1 < len(layers) and _is_plain(layers[position + 1], nn.Linear):
                    pending = scale, shift
                else:
                    raise ValueError(f"network must have each BN next to a linear layer, got {layer} at {position}")
                continue
            first, reverse, data = data[:1].clone(), data.flip(0), layer(data)
            if not _is_plain(layer, nn.Linear) and not (
                _are_equal(layer(first), data[:1]) and _are_equal(layer(reverse).flip(0), data)
            ):
                raise TypeError(f"network must have no layers that draw random numbers or mix the samples, got {layer}")
            if pending is not None:
                scale, shift = pending
                layer, pending = _linear(layer.weight * scale, _bias(layer) + layer.weight @ shift), None
            plain.append(layer)
    return nn.Sequential(*plain)


def _are_equal(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True)


def _is_plain(layer: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Return whether a layer computes what one of ``kinds`` computes; a subclass may compute something else."""
    return "forward" not in vars(layer) and type(layer).forward in [kind.forward for kind in kinds]


def _is_batch_norm(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) and _is_plain(layer, BatchNorm, SyncBatchNorm, _BatchNorm, nn.SyncBatchNorm)


def _check_layer(layer: nn.Module) -> None:
    """Raise a TypeError if a layer is neither linear, nor BN, nor a function of one sample."""
    if not (_is_plain(layer, nn.Linear) or _is_batch_norm(layer)):
        if any(True for _ in layer.parameters()):
            raise TypeError(f"network must have no layers with parameters other than linear layers and BN, got {layer}")
        if isinstance(layer, _USES_BATCH) or any(True for _ in layer.buffers()):
            raise TypeError(f"network must have no layers with statistics of the batch other than BN, got {layer}")
        if getattr(layer, "p", 0) and isinstance(layer, _DropoutNd):
            raise TypeError(f"network must have no layers that draw random numbers, got {layer}")
    if any(value for name, value in vars(layer).items() if name.endswith("_hooks")):
        raise TypeError(f"network must have no layers with hooks, got some on {layer}; remove them first")


def _flat(network: nn.Sequential) -> Iterator[nn.Module]:
    for layer in network:
        if _is_plain(layer, nn.Sequential):
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
