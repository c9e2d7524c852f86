"""A registry of all normalisations by name: how to apply each to a layer, and its properties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from bnlib.arguments import Names, shown
from bnlib.norm.batch_norm import BatchNorm
from bnlib.norm.batch_renorm import BatchRenorm
from bnlib.norm.cosine import CosineLinear
from bnlib.norm.cross_iteration_batch_norm import CrossIterationBatchNorm
from bnlib.norm.dynamic_tanh import DynamicTanh
from bnlib.norm.evonorm import EvoNormS0
from bnlib.norm.filter_response_norm import FilterResponseNorm
from bnlib.norm.full_norm import FullNorm
from bnlib.norm.ghost_batch_norm import GhostBatchNorm
from bnlib.norm.moving_average_batch_norm import MovingAverageBatchNorm
from bnlib.norm.online_norm import OnlineNorm
from bnlib.norm.rms_norm import RMSNorm
from bnlib.norm.weight_centralisation import weight_centralise
from bnlib.norm.weight_standardisation import weight_standardise

_INSTANCE_NORMS = {nn.Conv1d: nn.InstanceNorm1d, nn.Conv2d: nn.InstanceNorm2d, nn.Conv3d: nn.InstanceNorm3d}
_CONVOLUTIONS = tuple(_INSTANCE_NORMS)


@dataclass(frozen=True)
class Norm:
    """A normalisation that can be applied to a Linear or Conv1d to Conv3d layer.

    Most normalisations are a layer of their own behind the Linear or convolutional layer; they have ``make_layer``. The
    others change the layer itself, for example its weights; they have ``modify_layer``.

    Arguments:
        name: key of the normalisation in ``NORMS``.
        title: name for readers.
        make_layer: takes the number of output channels and returns the normalisation layer, which takes
            ``(N, C)`` and ``(N, C, *spatial)``; None if the layer itself must be changed.
        modify_layer: takes the layer and returns the normalised one; used if ``make_layer`` is None.
        layer_types: types of layers that the normalisation can be applied to.
        batch_independent: whether, in train mode, the output for a sample does not depend on the other samples in the
            batch.
        eval_matches_train: whether eval mode, right after a training step on a batch, gives that step's output.
        includes_activation: whether the normalisation contains its activation, so that no other should follow.
        trains_on_one_sample: whether the weights get a gradient from a batch of one sample without spatial dimensions,
            at least once the layer has seen some batches.
        paper: link to the paper.

    Example:
        >>> block = bnlib.NORMS["group_norm"].apply(nn.Conv2d(3, 8, 3))
        >>> [type(layer).__name__ for layer in block], block[1].num_groups
        (['Conv2d', 'GroupNorm'], 2)
        >>> [name for name, norm in bnlib.NORMS.items() if not norm.trains_on_one_sample]
        ['batch_norm', 'ghost_batch_norm', 'batch_renorm']
    """

    name: str
    title: str
    make_layer: Callable[[int], nn.Module] | None = None
    modify_layer: Callable[[nn.Module], nn.Module] | None = None
    layer_types: tuple[type[nn.Module], ...] = (nn.Linear, *_CONVOLUTIONS)
    batch_independent: bool = True
    eval_matches_train: bool = True
    trains_on_one_sample: bool = True
    includes_activation: bool = False
    paper: str | None = None

    def apply(self, layer: nn.Module) -> nn.Module:
        """Return ``layer`` with this normalisation; the result contains ``layer``, or is ``layer`` changed in place.

        What is added has the device, the mode and the dtype of the layer (float32 at least if it has running
        statistics). Cosine normalisation takes the weights of the layer, and leaves its bias out.

        Raises:
            TypeError: if the layer is not one of ``layer_types``, or its weights cannot be normalised.
        """
        if not isinstance(layer, self.layer_types):
            types = ", ".join(kind.__name__ for kind in self.layer_types)
            raise TypeError(f"layer must be one of {types} for {self.name}, got {type(layer).__name__}")
        before, make = set(layer.modules()), self.make_layer
        applied = self.modify_layer(layer) if make is None else nn.Sequential(layer, make(_channels(layer)))
        _follow(layer, applied, before)
        return applied


def _follow(layer: nn.Module, applied: nn.Module, before: set[nn.Module]) -> None:
    """Put what was added to a layer on its device, into its precision and into its mode."""
    if isinstance(applied, nn.Sequential):
        own = layer.weight.dtype if layer.weight.is_floating_point() else torch.get_default_dtype()
        for added in applied[1:]:
            # Running statistics in half precision would be too coarse.
            statistics = any(value.is_floating_point() for value in added.buffers())
            added.to(layer.weight.device, torch.promote_types(own, torch.float32) if statistics else own)
    for module in applied.modules():
        if module not in before:
            module.training = layer.training


def _check_weight(layer: nn.Module, or_parametrised: bool = True) -> None:
    """Raise a TypeError if the weights of a layer are not there, or not where they can be changed."""
    parametrised = parametrize.is_parametrized(layer, "weight")
    if not parametrised and is_lazy(layer.weight):
        raise TypeError(f"layer must have weights, got {shown(layer)}, which is lazy; call it first")
    if not parametrised and "weight" not in layer._parameters:
        raise TypeError(
            f"layer must have its weight as a parameter, got {shown(layer)}, whose weight is computed by a hook, as by "
            "torch.nn.utils.prune; remove the hook first"
        )
    if parametrised and not or_parametrised:
        raise TypeError(
            f"layer must have weights that are not parametrised, got {type(layer).__name__}; see "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )


def _channels(layer: nn.Module) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _groups(num_features: int) -> int:
    # At least four channels per group: without spatial dimensions, two channels would always become -1 and 1.
    groups = [number for number in range(1, 33) if num_features % number == 0 and num_features // number >= 4]
    return max(groups, default=1)


def _group_norm(num_features: int) -> nn.GroupNorm:
    return nn.GroupNorm(_groups(num_features), num_features)


def _evonorm_s0(num_features: int) -> EvoNormS0:
    return EvoNormS0(_groups(num_features), num_features)


def _filter_response_norm(layer: nn.Module) -> nn.Sequential:
    # A vector has one position per channel, the case for which the paper learns eps.
    vectors = isinstance(layer, nn.Linear)
    return nn.Sequential(layer, FilterResponseNorm(_channels(layer), learn_eps=vectors))


def _layer_norm(num_features: int) -> nn.GroupNorm:
    # nn.LayerNorm needs the spatial size, and it learns a separate gamma and beta for each position.
    return nn.GroupNorm(1, num_features)


def _instance_norm(layer: nn.Module) -> nn.Sequential:
    # Not for Linear: nn.InstanceNorm1d interprets (N, C) as one sample with N channels.
    kind = next(norm for conv, norm in _INSTANCE_NORMS.items() if isinstance(layer, conv))
    return nn.Sequential(layer, kind(layer.out_channels, affine=True))


def _weight_norm(layer: nn.Module) -> nn.Module:
    _check_weight(layer, or_parametrised=False)
    return weight_norm(layer)


def _cosine(layer: nn.Linear) -> CosineLinear:
    _check_weight(layer, or_parametrised=False)
    hooks = [name for name, value in vars(layer).items() if name.endswith("_hooks") and value]
    if hooks or "forward" in vars(layer) or type(layer).forward is not nn.Linear.forward:
        what = f"hooks ({', '.join(hooks)})" if hooks else "a forward of its own"
        raise TypeError(
            f"layer must be a plain Linear for cosine, which takes its place, got {shown(layer)} with {what}"
        )
    # On the meta device, because the weights exist already and no random numbers should be drawn.
    cosine = CosineLinear(layer.in_features, layer.out_features, device="meta")
    cosine.weight = layer.weight
    return cosine


def _standardised(layer: nn.Module) -> nn.Sequential:
    # Weights of variance 1 make the output grow with the fan-in, so the paper also adds another normalisation.
    _check_weight(layer)
    return nn.Sequential(weight_standardise(layer), _group_norm(_channels(layer)))


def _moving_average(layer: nn.Module) -> nn.Sequential:
    # The norm subtracts no mean, so the paper centralises the weights.
    _check_weight(layer)
    return nn.Sequential(weight_centralise(layer), MovingAverageBatchNorm(_channels(layer)))


_BY_BATCH = {"batch_independent": False, "eval_matches_train": False, "trains_on_one_sample": False}

NORMS: dict[str, Norm] = Names(
    {
        norm.name: norm
        for norm in (
            Norm("none", "without normalisation", modify_layer=lambda layer: layer),
            Norm("batch_norm", "Batch Norm", BatchNorm, **_BY_BATCH, paper="https://arxiv.org/abs/1502.03167"),
            Norm(
                "ghost_batch_norm",
                "Ghost Batch Norm",
                GhostBatchNorm,
                **_BY_BATCH,
                paper="https://arxiv.org/abs/1705.08741",
            ),
            Norm(
                "full_norm",
                "Full Norm",
                FullNorm,
                batch_independent=False,
                paper="https://proceedings.mlr.press/v89/lian19a.html",
            ),
            Norm("batch_renorm", "Batch Renorm", BatchRenorm, **_BY_BATCH, paper="https://arxiv.org/abs/1702.03275"),
            Norm(
                "moving_average_batch_norm",
                "Moving Average BN",
                modify_layer=_moving_average,
                **_BY_BATCH | {"trains_on_one_sample": True},
                paper="https://arxiv.org/abs/2001.06838",
            ),
            Norm(
                "online_norm",
                "Online Norm",
                OnlineNorm,
                **_BY_BATCH | {"trains_on_one_sample": True},
                paper="https://arxiv.org/abs/1905.05894",
            ),
            Norm(
                "cross_iteration_batch_norm",
                "Cross-Iteration BN",
                modify_layer=CrossIterationBatchNorm,
                **_BY_BATCH | {"trains_on_one_sample": True},
                paper="https://arxiv.org/abs/2002.05712",
            ),
            Norm("layer_norm", "Layer Norm", _layer_norm, paper="https://arxiv.org/abs/1607.06450"),
            Norm("rms_norm", "RMSNorm", RMSNorm, paper="https://arxiv.org/abs/1910.07467"),
            Norm("group_norm", "Group Norm", _group_norm, paper="https://arxiv.org/abs/1803.08494"),
            Norm(
                "instance_norm",
                "Instance Norm",
                modify_layer=_instance_norm,
                layer_types=_CONVOLUTIONS,
                paper="https://arxiv.org/abs/1607.08022",
            ),
            Norm(
                "filter_response_norm",
                "FRN + TLU",
                modify_layer=_filter_response_norm,
                includes_activation=True,
                paper="https://arxiv.org/abs/1911.09737",
            ),
            Norm(
                "evonorm_s0",
                "EvoNorm-S0",
                _evonorm_s0,
                includes_activation=True,
                paper="https://arxiv.org/abs/2004.02967",
            ),
            Norm("dynamic_tanh", "Dynamic tanh", DynamicTanh, paper="https://arxiv.org/abs/2503.10622"),
            Norm("weight_norm", "Weight Norm", modify_layer=_weight_norm, paper="https://arxiv.org/abs/1602.07868"),
            Norm(
                "weight_standardisation",
                "Weight standardisation + Group Norm",
                modify_layer=_standardised,
                paper="https://arxiv.org/abs/1903.10520",
            ),
            Norm(
                "cosine",
                "Cosine normalisation",
                modify_layer=_cosine,
                layer_types=(nn.Linear,),
                paper="https://arxiv.org/abs/1702.05870",
            ),
        )
    }
)
"""All normalisations by name, in the order in which the book shows them."""
