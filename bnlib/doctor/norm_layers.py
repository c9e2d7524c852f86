"""Which modules of a model are layers with running statistics, and what the checks read from such a layer."""

from __future__ import annotations

from numbers import Real

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from bnlib.norm import (
    BatchNorm,
    BatchRenorm,
    CrossIterationBatchNorm,
    FullNorm,
    GhostBatchNorm,
    MovingAverageBatchNorm,
)

NORM_TYPES = (_BatchNorm, BatchRenorm, FullNorm)
"""The norm layers of PyTorch and bnlib that use batch statistics, and what inherits from them."""

CORRECTED_IN_TRAIN_MODE = (BatchRenorm, FullNorm)
"""Norm layers that use running averages in train mode as well."""

UNKNOWN_STATISTICS = (CrossIterationBatchNorm, MovingAverageBatchNorm)
"""Norms of bnlib whose statistics the doctor cannot compare with their inputs: the one normalises the output of a layer
inside it, the other stores mean squares."""

_KNOWN_FORWARDS = {
    each.forward for each in (_BatchNorm, nn.SyncBatchNorm, BatchNorm, GhostBatchNorm, BatchRenorm, FullNorm)
}


def is_norm_layer(module: nn.Module) -> bool:
    """Return whether a module normalises by batch statistics: by its type, or because it stores running statistics.

    A class of the user's counts if it has tensors ``running_mean`` and ``running_var``. InstanceNorm does not, because
    its statistics are those of one sample, and neither do ``UNKNOWN_STATISTICS``.
    """
    if isinstance(module, NORM_TYPES):
        return True
    if isinstance(module, (_InstanceNorm, *UNKNOWN_STATISTICS)):
        return False
    own = {**vars(module), **module._buffers, **module._parameters}
    mean, variance = own.get("running_mean"), own.get("running_var")
    return isinstance(mean, Tensor) and isinstance(variance, Tensor) and mean.numel() == variance.numel() > 0


def has_unknown_statistics(module: nn.Module) -> bool:
    """Return whether a module has batch or running statistics that no check looks at."""
    tracks = isinstance(module, _InstanceNorm) and module.running_mean is not None
    return tracks or isinstance(module, UNKNOWN_STATISTICS)


def has_known_forward(layer: nn.Module) -> bool:
    """Return whether a layer runs the ``forward`` of PyTorch or bnlib, whose behaviour is known."""
    return type(layer).forward in _KNOWN_FORWARDS


def running_statistics(layer: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Return the running mean and variance as float64 on the CPU, shape (C,) each; None if the layer has none."""
    if layer.running_mean is None or layer.running_var is None:
        return None
    return _numbers(layer.running_mean), _numbers(layer.running_var)


def eps(layer: nn.Module) -> float:
    """Return what the layer adds to the variance; PyTorch's default where a class of the user's does not say."""
    value = getattr(layer, "eps", None)
    return float(value) if isinstance(value, Real) else 1e-5


def gamma(layer: nn.Module) -> Tensor | None:
    """Return the parameter gamma, one value per channel; None if the layer has none."""
    value = getattr(layer, "weight", None)
    return value if isinstance(value, Tensor) and value.dim() == 1 and value.dtype.is_floating_point else None


def newest_weight(layer: nn.Module) -> object:
    """Return the weight of the newest batch in the running statistics: a number, a function of the step, or None."""
    value = layer.alpha if isinstance(layer, FullNorm) else getattr(layer, "momentum", None)
    return value if isinstance(value, Real) or callable(value) else None


def batches_tracked(layer: nn.Module) -> int | None:
    """Return the number of batches in the running statistics; None if the layer does not count them."""
    count = getattr(layer, "num_batches_tracked", None)
    return int(count) if isinstance(count, (Tensor, int)) else None


def _numbers(values: Tensor) -> Tensor:
    return (values.dequantize() if values.is_quantized else values).detach().flatten().cpu().double()
