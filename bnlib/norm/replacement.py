"""Replace one batch normalisation layer by a layer of another class, which can become the old one again."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from inspect import signature
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrize import is_parametrized

from bnlib.norm.batch_norm import BatchNorm
from bnlib.norm.batch_renorm import BatchRenorm
from bnlib.norm.full_norm import FullNorm
from bnlib.norm.ghost_batch_norm import GhostBatchNorm
from bnlib.norm.kept_forward import KeptForward, check_kept_forward, class_with_forward_of
from bnlib.norm.sync_batch_norm import SyncBatchNorm

FIXED_DIMENSION = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

LAYERS = (BatchNorm, BatchRenorm, FullNorm, GhostBatchNorm, SyncBatchNorm, *FIXED_DIMENSION, nn.SyncBatchNorm)
"""The classes that ``convert`` can replace by each other. To add a class, list it here; its parameters and running
statistics must have the names of torch.nn.BatchNorm's, and its other arguments must be attributes."""

ORIGINAL = "original"


@dataclass
class Conversion:
    """What a converted layer remembers.

    Arguments:
        original: the layer of the first conversion, with its tensors on the meta device.
        changed: the tensors that the last conversion changed, by name: before and after.
        eps: ``eps`` before and after the last conversion.
    """

    original: nn.Module
    changed: dict[str, tuple[Tensor, Tensor]]
    eps: tuple[float, float]


def listed_class(layer: nn.Module) -> type[nn.Module] | None:
    """Return the first of the layer's class and its bases that is in ``LAYERS``."""
    return next((each for each in type(layer).__mro__ if each in LAYERS), None)


def remembered(layer: nn.Module) -> Conversion | None:
    """Return what a layer remembers of its conversion, or None."""
    return vars(layer).get("_conversion")


def check_replaceable(layer: nn.Module, to: type[nn.Module] | str, in_fused: bool) -> None:
    """Raise a ValueError with the reason if the replacement would lose a part of the layer."""
    if isinstance(layer, LazyModuleMixin):
        raise ValueError("is lazy and has seen no data yet, so the number of channels is unknown; call the model first")
    if is_parametrized(layer):
        raise ValueError("has parametrised tensors; see torch.nn.utils.parametrize.remove_parametrizations")
    if listed_class(layer) is None:
        raise ValueError("is of a class that convert does not know, see bnlib.norm.replacement.LAYERS")
    if in_fused:
        raise ValueError("is part of a torch.ao module, which reads its statistics and not only its output")
    if hooks := [name for name, value in vars(layer).items() if name.endswith("_hooks") and value]:
        raise ValueError(f"has hooks ({', '.join(hooks)}), which may depend on its class; remove them first")
    if "forward" in vars(layer):
        raise ValueError("has the additional attributes forward, which the new layer would not have")
    if type(layer) in LAYERS:
        plain = [name for name, value in _added(layer).items() if callable(value) or isinstance(value, Tensor)]
        if lost := plain + _added_tensors_and_modules(layer):
            raise ValueError(f"has the additional attributes {', '.join(lost)}, which the new layer would not have")
    if _template(layer, to) is None and "track_running_stats" not in signature(to).parameters:
        missing = any(value is None for value in layer._buffers.values())
        if missing or not getattr(layer, "track_running_stats", True):
            raise ValueError(f"does not track the running statistics that {to.__name__} needs")


def replacement(layer: nn.Module, to: type[nn.Module] | str, options: dict[str, Any], model: nn.Module) -> nn.Module:
    """Return a layer of class ``to`` with the arguments, parameters and buffers that both classes have.

    Arguments:
        layer: a layer that ``check_replaceable`` accepts.
        to: one of ``LAYERS``, or ``ORIGINAL`` for a layer that was converted before.
        options: further arguments of the new layer.
        model: the model, whose parameters have the dtype of a layer without parameters.

    Raises:
        ValueError: if ``to`` refuses an argument, or cannot normalise within the forward of the layer.
    """
    template = _template(layer, to)
    new = _constructed(layer, to, options, model) if template is None else _copied(layer, template, options)
    new.training = layer.training
    new._parameters.update(layer._parameters)
    new._modules.update(layer._modules)
    _fill_buffers(layer, new)
    for name, value in _added(layer).items():
        if name not in vars(new):
            vars(new)[name] = value
    if template is None:
        before = remembered(layer)
        original = _without_tensors(layer) if before is None else before.original
        vars(new)["_conversion"] = Conversion(original, {}, (layer.eps, new.eps))
        if isinstance(new, KeptForward):
            check_kept_forward(copy.deepcopy(new), _dimensions(new.outer))
    return new


def _template(layer: nn.Module, to: type[nn.Module] | str) -> nn.Module | None:
    """Return the layer, or the one that it was first, if this one is already of the class ``to``."""
    wanted = FIXED_DIMENSION if to in FIXED_DIMENSION else (to,)
    if listed_class(layer) in wanted:
        return layer
    before = remembered(layer)
    if before is not None and (to == ORIGINAL or listed_class(before.original) in wanted):
        return before.original
    return None


def _constructed(layer: nn.Module, to: type[nn.Module], options: dict[str, Any], model: nn.Module) -> nn.Module:
    """Return a new layer with the arguments that the layer, or the one that it was first, has in common with ``to``."""
    before = remembered(layer)
    arguments: dict[str, Any] = {}
    for source in (() if before is None else (before.original,)) + (layer,):
        arguments |= {name: getattr(source, name) for name in _shared_arguments(source, to)}
    tensors = [*layer._parameters.values(), *layer._buffers.values()]
    # The dtype of FullNorm's statistics is not that of its input.
    typed = chain(layer.parameters(), layer.buffers() if isinstance(layer, _NormBase) else (), model.parameters())
    outer = _class_of_forward(layer)
    new = (to if outer is None else class_with_forward_of(outer, to))(
        **(arguments | options),
        device=next((each.device for each in tensors if each is not None), None),
        dtype=next((each.dtype for each in typed if each.is_floating_point()), None),
    )
    if isinstance(layer, KeptForward):
        new._outer_attributes = layer._outer_attributes
    elif isinstance(new, KeptForward):
        inherited = vars(nn.Module())
        new._outer_attributes = {name: value for name, value in vars(layer).items() if name not in inherited}
    return new


def _copied(layer: nn.Module, template: nn.Module, options: dict[str, Any]) -> nn.Module:
    """Return a copy of ``template`` with the arguments that it has in common with the layer."""
    new = _shallow_copy(template)
    if template is not layer:
        for name in _shared_arguments(layer, listed_class(template)):
            setattr(new, name, getattr(layer, name))
        _follow_dtype(new, layer)
    for name, value in options.items():
        setattr(new, name, value)
    return new


def _shallow_copy(layer: nn.Module) -> nn.Module:
    """Return a layer with the same tensors and submodules, which can be replaced in the one without the other."""
    new = object.__new__(type(layer))
    for name, value in vars(layer).items():
        vars(new)[name] = copy.copy(value) if isinstance(value, (dict, set)) else value
    return new


def _shared_arguments(layer: nn.Module, to: type[nn.Module]) -> set[str]:
    """Return the arguments of ``to`` that are attributes of the layer, except those that its tensors decide."""
    both = signature(listed_class(layer)).parameters.keys() & signature(to).parameters.keys()
    return both - {"bias", "device", "dtype"}


def _class_of_forward(layer: nn.Module) -> type[nn.Module] | None:
    """Return the class whose forward does more than normalise, or None if the layer has no such forward."""
    if isinstance(layer, KeptForward):
        return layer.outer
    return None if type(layer).forward is listed_class(layer).forward else type(layer)


def _dimensions(outer: type[nn.Module]) -> int:
    return 2 if issubclass(outer, nn.BatchNorm1d) else 5 if issubclass(outer, nn.BatchNorm3d) else 4


def _fill_buffers(layer: nn.Module, new: nn.Module) -> None:
    """Give ``new`` the buffers of the layer, except those that only the class of the layer has."""
    own = listed_class(layer)(1, device="meta")._buffers.keys() - new._buffers.keys()
    for name, value in layer._buffers.items():
        like = new._buffers.get(name)
        same_kind = isinstance(layer, _NormBase) and isinstance(new, _NormBase)
        if name not in own:
            as_it_is = value is None or like is None or same_kind
            new._buffers[name] = value if as_it_is else value.to(like.dtype)
    new._non_persistent_buffers_set |= layer._non_persistent_buffers_set & new._buffers.keys()
    for name in new._buffers.keys() - layer._buffers.keys():  # of a FullNorm that returns: what it estimated is lost
        like = new._buffers[name]
        if like is not None:
            new._buffers[name] = torch.zeros_like(like, device=layer.running_mean.device)


def _follow_dtype(new: nn.Module, layer: nn.Module) -> None:
    """Give the buffers of an original layer the dtype to which the model was moved since its conversion, if it was."""
    now, then = layer.weight, new.weight
    if now is None:
        now, then = layer.running_var, new.running_var.to(torch.promote_types(new.running_var.dtype, torch.float32))
    if now.dtype != then.dtype:
        shortest = torch.float32 if isinstance(new, FullNorm) else now.dtype
        for name, value in new._buffers.items():
            if value is not None and value.is_floating_point():
                new._buffers[name] = value.to(torch.promote_types(now.dtype, shortest))


def _without_tensors(layer: nn.Module) -> nn.Module:
    """Return a copy of the layer whose own tensors are on the meta device, without submodules."""
    new = _shallow_copy(layer)
    for held in (new._parameters, new._buffers):
        held.update({name: value.detach().to("meta") for name, value in held.items() if value is not None})
    new._modules = {}
    return new


def _added(layer: nn.Module) -> dict[str, Any]:
    """Return the plain attributes that the class in ``LAYERS`` does not have."""
    return {name: value for name, value in vars(layer).items() if name not in vars(_fresh(layer))}


def _added_tensors_and_modules(layer: nn.Module) -> list[str]:
    """Return the names of parameters, buffers and submodules that the class in ``LAYERS`` does not have."""
    fresh = _fresh(layer)
    here, there = (each._parameters.keys() | each._buffers.keys() | each._modules.keys() for each in (layer, fresh))
    return sorted(here - there)


def _fresh(layer: nn.Module) -> nn.Module:
    return listed_class(layer)(1, device="meta")
