"""Stack convolutional networks into one network with the channels of all, as grouped convolutions.

The channels of a model are adjacent: a tensor of E models with C channels each has the shape (N, E C, ...). So layers
that treat channels apart, or in groups, need no change but the number of their channels and groups.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bnlib.models.residual import BasicBlock, SkipConnection
from bnlib.norm import (
    BatchNorm,
    BatchRenorm,
    CrossIterationBatchNorm,
    FilterResponseNorm,
    FullNorm,
    MovingAverageBatchNorm,
    OnlineNorm,
    WeightCentralisation,
    WeightStandardisation,
)
from bnlib.stacked import Stack

_CONTAINERS = (nn.Sequential, BasicBlock, SkipConnection)
_PLAIN = (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Flatten)
_POOLING = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.MaxPool2d)
_NORMS = (BatchNorm, nn.BatchNorm2d, BatchRenorm, FullNorm, nn.GroupNorm, MovingAverageBatchNorm)
_WEIGHTS = (WeightCentralisation, WeightStandardisation)
_COUNTS = ("in_channels", "out_channels", "groups", "num_features", "num_channels", "num_groups")
"""Attributes that count the channels or groups of a layer."""
_RECENT = ("recent_inputs", "recent_products", "recent_vars", "recent_slopes")
"""Buffers whose second dimension are the channels, or the groups; that of all others is the first."""


def can_join(model: nn.Module) -> bool:
    """Return whether ``ConvolutionStack`` has a version of every layer of a model, and one of them is a convolution.

    Example:
        >>> from bnlib.stacked_convolutions import can_join
        >>> [can_join(each) for each in (models.resnet18(width=2), models.mlp((3, 4, 2)))]
        [True, False]
    """
    return _fits(model) and any(isinstance(layer, nn.Conv2d) for layer in model.modules())


def _fits(layer: nn.Module) -> bool:
    kind = type(layer)
    if "forward" in vars(layer):
        return False
    if kind in _CONTAINERS:
        return all(map(_fits, layer.children()))
    if kind is CrossIterationBatchNorm:
        return _fits(layer.layer) and isinstance(layer.layer, nn.Conv2d)
    if parametrize.is_parametrized(layer):
        changes = itertools.chain.from_iterable(layer.parametrizations.values())
        return issubclass(kind, nn.Conv2d) and all(type(each) in _WEIGHTS for each in changes)
    if kind is nn.Flatten:
        return (layer.start_dim, layer.end_dim) == (1, -1)
    # The gradient of this oracle depends on the number of channels.
    literal = isinstance(layer, FullNorm) and layer.oracle == "literal"
    return not literal and kind in (nn.Conv2d, nn.Linear, OnlineNorm, FilterResponseNorm, *_PLAIN, *_POOLING, *_NORMS)


class ConvolutionStack(Stack):
    """A stack of convolutional networks as one network with the channels of all.

    Raises:
        RuntimeError: on a call, as the layers.

    Example:
        >>> from bnlib.stacked_convolutions import ConvolutionStack
        >>> whole = ConvolutionStack([models.resnet18(width=2, seed=seed) for seed in range(4)])
        >>> whole(torch.zeros(4, 1, 3, 8, 8)).shape, whole.joined[0].groups
        (torch.Size([4, 1, 10]), 4)
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__(models)
        self.joined = _join(list(models))

    def forward(self, input: Tensor) -> Tensor:
        """Apply model e to slice e of ``input``, shape (E, N, C, H, W)."""
        self._check_input(input)
        output = self.joined(input.transpose(0, 1).flatten(1, 2))
        return output.unflatten(1, (self.size, -1)).transpose(0, 1)

    def unstack(self) -> list[nn.Module]:
        """Return copies of the models with their current parameters, buffers and modes."""
        for layer, own in zip(self.joined.modules(), self.template.modules(), strict=True):
            own.training = layer.training
        return super().unstack()

    def _tensors_of(self, index: int) -> dict[str, Tensor]:
        whole = itertools.chain(self.joined.named_parameters(), self.joined.named_buffers())
        return {
            name: value.chunk(self.size, _dimension(name))[index] if value.dim() else value for name, value in whole
        }


def _dimension(name: str) -> int:
    return int(name.endswith(_RECENT))


def _join(layers: list[Any]) -> nn.Module:
    """Return one layer with the channels of all; its parts and tensors have the names that they have in each."""
    first = layers[0]
    made = copy.deepcopy(first)
    if type(first) in _CONTAINERS:
        for name in first._modules:
            setattr(made, name, _join([getattr(layer, name) for layer in layers]))
        return made
    for part in made.modules():
        for name in _COUNTS:
            if name in vars(part) and vars(part)[name] is not None:
                setattr(part, name, len(layers) * getattr(part, name))
    tensors = [dict(itertools.chain(layer.named_parameters(), layer.named_buffers())) for layer in layers]
    for name, value in tensors[0].items():
        if value.dim() == 0:
            continue
        place, _, own = name.rpartition(".")
        joined = torch.cat([each[name].detach() for each in tensors], _dimension(name))
        if isinstance(value, nn.Parameter):
            joined = nn.Parameter(joined, value.requires_grad)
        setattr(made.get_submodule(place), own, joined)
    if type(first) in _OF_MODELS:
        made.__class__ = _OF_MODELS[type(first)]
        made.size = len(layers)
    return made


class _Linears(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        # Of an image, (N, E C, H, W), it takes the rows.
        rows = input.unflatten(1, (self.size, -1)).transpose(0, 1)
        factors = rows.flatten(1, -2), self.weight.unflatten(0, (self.size, -1)).transpose(1, 2)
        # One operation, which under autocast has the dtype of a linear layer's.
        product = (
            torch.bmm(*factors) if self.bias is None else torch.baddbmm(self.bias.view(self.size, 1, -1), *factors)
        )
        return product.view(*rows.shape[:-1], -1).transpose(0, 1).flatten(1, 2)


class _OnlineNorms(OnlineNorm):
    def _scaled(self, output: Tensor) -> Tensor:
        apart = output.unflatten(1, (self.size, -1))
        mean_square = apart.square().mean(tuple(range(2, apart.dim())), keepdim=True)
        return (apart * (mean_square + self.eps).rsqrt()).flatten(1, 2)


class _FilterResponseNorms(FilterResponseNorm):
    def _learned(self, value: Tensor, view: tuple[int, ...]) -> Tensor:
        return value.repeat_interleave(self.num_features // self.size).view(view)


_OF_MODELS = {nn.Linear: _Linears, OnlineNorm: _OnlineNorms, FilterResponseNorm: _FilterResponseNorms}
"""For the layers whose values are not apart by channels: what computes them for several models."""
