"""Run one norm layer as the user wrote it, in a chosen mode and with chosen statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from bnlib.doctor.layer_statistics import CallStatistics, all_but_channels, sample_means
from bnlib.doctor.norm_layers import CORRECTED_IN_TRAIN_MODE, NORM_TYPES, has_known_forward
from bnlib.norm import FullNorm, GhostBatchNorm
from bnlib.probes.tensors import at_least_float32

Call = Callable[[], Tensor]
"""Runs the user's layer on its arguments."""


@contextmanager
def in_mode(layer: nn.Module, training: bool, statistics: tuple[Tensor, Tensor] | None = None) -> Iterator[None]:
    """Put a layer into train or eval mode in a ``with`` block, with other running statistics if they are given.

    Arguments:
        layer: any norm layer.
        training: the mode.
        statistics: mean and variance, shape (C,) each, in place of the running ones.
    """
    if statistics is None and layer.training == training:
        yield
        return
    before = layer.training, layer.running_mean, layer.running_var
    _set(layer, "training", training)
    if statistics is not None:
        for name, new, old in zip(("running_mean", "running_var"), statistics, before[1:], strict=True):
            _set(layer, name, new if old is None or old.is_quantized else new.to(old).view_as(old))
    try:
        yield
    finally:
        _set(layer, "training", before[0])
        for name, old in zip(("running_mean", "running_var"), before[1:], strict=True):
            if getattr(layer, name) is not old:
                _set(layer, name, old)


def _set(layer: nn.Module, name: str, value: object) -> None:
    """Set an attribute where it is stored: nn.Module's own way takes a tenth of the time of a pass in small models."""
    if name in layer._buffers:
        layer._buffers[name] = value
    elif name in vars(layer):
        vars(layer)[name] = value
    else:
        setattr(layer, name, value)


def stores_its_statistics(layer: nn.Module, input: Tensor) -> bool:
    """Return whether a layer in train mode leaves the statistics of the batch in its running statistics."""
    plain = isinstance(layer, _BatchNorm) and not isinstance(layer, (nn.SyncBatchNorm, GhostBatchNorm))
    if not plain or not has_known_forward(layer) or layer.running_mean is None or not layer.track_running_stats:
        return False
    return layer.running_mean.dtype.itemsize >= 4 and 1 < values_per_channel(input) and input.size(0) > 0


def with_its_statistics(layer: nn.Module, call: Call, input: Tensor, batch_size: int) -> tuple[Tensor, CallStatistics]:
    """Return the output of such a layer in train mode, and the statistics that it stored, which cost nothing."""
    mean, variance = torch.zeros_like(layer.running_mean), torch.ones_like(layer.running_var)
    before = layer.momentum
    _set(layer, "momentum", 1.0)
    try:
        with in_mode(layer, True, (mean, variance)):
            output = call()
    finally:
        _set(layer, "momentum", before)
    count = values_per_channel(input)
    biased = variance * ((count - 1) / count)
    means = sample_means(at_least_float32(input.detach()), batch_size)
    return output, CallStatistics(count, mean, biased, means, tuple(input.shape))


def values_per_channel(input: Tensor) -> int:
    """Return the number of values per channel of an input, shape (N, C, *)."""
    return input.numel() // max(1, input.size(1)) if input.dim() > 1 else input.numel()


def by_batch(layer: nn.Module, call: Call, input: Tensor) -> Tensor:
    """Return the layer's output if it normalises by the statistics of the batch, as BN does in train mode.

    The layer runs its own ``forward`` in train mode. FullNorm and Batch Renorm use running averages in train mode as
    well, so their formula with the statistics of the batch is used instead.
    """
    if values_per_channel(input) == 1 and isinstance(layer, NORM_TYPES):
        # torch.nn raises an error here. A check of its own reports single values; the pass goes on, so that the layers
        # after this one can be checked.
        if layer.running_mean is not None:
            with in_mode(layer, training=False):
                return call()
        channels = input.detach().transpose(0, 1).reshape(-1).float()
        with in_mode(layer, False, (channels, torch.ones_like(channels))):
            return call()
    if isinstance(layer, CORRECTED_IN_TRAIN_MODE) and has_known_forward(layer) and input.numel():
        return by_formula(layer, input)
    if isinstance(layer, nn.SyncBatchNorm):
        # In train mode it waits for the other processes. Without running statistics it uses those of this batch.
        with in_mode(layer, training=False), _without_statistics(layer):
            return call()
    with in_mode(layer, training=True):
        return call()


def follows_running_statistics(layer: nn.Module, call: Call) -> bool:
    """Return whether running statistics change the output of a layer in train mode, as in a frozen batch norm."""
    if layer.running_mean is None or layer.running_mean.is_quantized:
        return False
    outputs = []
    kept = [(each._buffers, key, value, value.clone()) for each, key, value in _own_buffers(layer)]
    for shift in (0.0, 1.0):
        moved = layer.running_mean + shift * layer.running_var.abs().add(1).sqrt()
        with in_mode(layer, True, (moved, layer.running_var.clone())):
            outputs.append(call())
        # The first call may have changed other buffers, such as those of recent batches.
        for holder, key, value, before in kept:
            holder[key] = value.copy_(before)
    return not _same(*outputs)


def _own_buffers(layer: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    for module in layer.modules():
        for key, value in module._buffers.items():
            if value is not None:
                yield module, key, value


def normalised_input(layer: nn.Module, call: Call, input: Tensor) -> tuple[Tensor, Tensor]:
    """Return the layer's output in train mode, and the tensor that it hands to ``F.batch_norm``, or its input.

    A layer with a ``forward`` of the user's may normalise a part of its input only, such as what a mask leaves.
    """
    with _BatchNormCalls() as calls:
        output = call()
    own = [given for given, mean in calls.found if mean is layer.running_mean]
    chosen = own[:1] or ([calls.found[0][0]] if len(calls.found) == 1 else [input])
    return output, chosen[0].detach()


class _BatchNormCalls(TorchFunctionMode):
    """Note the input and the running mean of each call of batch norm as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[Tensor, Tensor | None]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (F.batch_norm, torch.batch_norm):
            named = kwargs or {}
            mean = args[1] if len(args) > 1 and func is F.batch_norm else named.get("running_mean")
            mean = args[3] if len(args) > 3 and func is torch.batch_norm else mean
            self.found.append((args[0] if args else named["input"], mean))
        return func(*args, **(kwargs or {}))


@contextmanager
def _without_statistics(layer: nn.Module) -> Iterator[None]:
    before = layer.running_mean, layer.running_var
    layer.running_mean = layer.running_var = None
    try:
        yield
    finally:
        layer.running_mean, layer.running_var = before


def by_formula(layer: nn.Module, input: Tensor) -> Tensor:
    """Normalise by the batch with the formula of the layer: FullNorm takes eps as the smallest variance."""
    shape = (1, -1, *[1] * (input.dim() - 2))
    dtype = torch.promote_types(input.dtype, torch.float32)
    variance, mean = torch.var_mean(input.to(dtype), all_but_channels(input), correction=0)
    scale = variance.clamp(min=layer.eps) if isinstance(layer, FullNorm) else variance + layer.eps
    output = (input - mean.view(shape)) / scale.sqrt().view(shape)
    if layer.weight is not None:
        output = output * layer.weight.view(shape)
    if layer.bias is not None:
        output = output + layer.bias.view(shape)
    return output.to(input.dtype)


def _same(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one.nan_to_num(), other.nan_to_num())
    if isinstance(one, (tuple, list)):
        return all(map(_same, one, other))
    return True
