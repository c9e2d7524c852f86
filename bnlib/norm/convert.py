"""Swapping the normalisation layers of a model, as ``torch.nn.SyncBatchNorm.convert_sync_batchnorm`` does."""

from __future__ import annotations

import re
import warnings
from inspect import signature
from itertools import chain

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrize import is_parametrized

from bnlib.norm.batch_norm import BatchNorm
from bnlib.norm.batch_renorm import BatchRenorm
from bnlib.norm.full_norm import FullNorm
from bnlib.norm.sync_batch_norm import SyncBatchNorm

_RANKED = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

LAYERS = (BatchNorm, BatchRenorm, FullNorm, SyncBatchNorm, *_RANKED, nn.SyncBatchNorm)
"""What ``convert`` swaps for one another. A class joins by being listed, if its parameters and running statistics have
torch.nn.BatchNorm's names and its other arguments are attributes."""

_ONE_SAMPLE = (
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
)


def convert(model: nn.Module, to: type[nn.Module] = FullNorm, *, strict: bool = True, **options: object) -> nn.Module:
    """Replace every batch-normalisation layer of a model by a layer of another class, at the same place.

    What stays: names and the order of the ``state_dict``, ``weight`` and ``bias`` (the very same parameters, so that
    an optimiser made before goes on), ``running_mean``, ``running_var`` and ``num_batches_tracked``, device, dtype,
    each layer's train or eval mode, sharing of a layer between places, and the arguments that both classes have, such
    as ``eps``. An argument that only the new class has takes its default; what only the old one had (a ``momentum``,
    FullNorm's averages of gradients) is gone.

    The running statistics are taken over as numbers, though the classes mean different things by ``running_var``: torch
    averages the batches' unbiased variances, FullNorm estimates the biased variance of all data, BatchRenorm averages
    standard deviations. FullNorm also holds them in longer types and bounds the variance by ``eps`` where the others
    add it, so that outputs in eval mode differ by a factor of about 1 + eps / (2 variance). Converting there and
    back gives the ``state_dict`` to the last bit; what was FullNorm gets statistics of the type of its parameters or,
    if it has none, of the model's first. ``process_group=None`` stays None, which for SyncBatchNorm means all
    processes and for FullNorm this one.

    Convert before wrapping the model (``torch.compile``, DistributedDataParallel), and not a part of a model if a layer
    is shared with the rest. Layers are found where they are submodules: in a plain list the old one stays.

    Arguments:
        model: changed in place, unless it is a normalisation layer itself.
        to: class of the new layers, one of ``bnlib.norm.convert.LAYERS``. The model does not say the rank of
            what flows through it: where ``torch.nn.BatchNorm1d`` and ``2d`` are both wanted, convert part by part.
        strict: raise if any layer cannot be converted; False converts the others and warns.
        options: arguments of ``to`` for every new layer, e.g. ``alpha=0.1``; they go before those of the old layer.

    Returns:
        The model, or the new layer if the model is a layer.

    Raises:
        ValueError: ``to`` is not among ``LAYERS``, an option would change what stays, or, in ``strict`` mode, layers
            cannot be converted; the message names each of these with its reason. Other errors about ``options`` are
            those of ``to``. The model has not been changed.

    Warns:
        UserWarning: layers that were left as they are, with ``strict=False``.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, eps=1e-3))
        >>> gamma = model[1].weight
        >>> layer = bnlib.convert(model, to=bnlib.FullNorm, alpha=0.1)[1]
        >>> layer.weight is gamma, layer.eps, layer.alpha
        (True, 0.001, 0.1)
    """
    if to not in LAYERS:
        raise ValueError(f"to must be one of {', '.join(each.__name__ for each in LAYERS)}, got {to!r}")
    if kept := options.keys() & {"num_features", "affine", "bias", "track_running_stats", "device", "dtype"}:
        raise ValueError(f"options must leave {', '.join(sorted(kept))} to the layers, got {options}")
    to(1, device="meta", **options)  # An option that is wrong for all layers is no fault of any.

    layers, problems = {}, []
    in_fused = {child for each in model.modules() if _is_fused(each) for child in each.children()}
    for name, layer in model.named_modules():
        if _is_norm(layer):
            try:
                _check(layer, to, layer in in_fused)
                layers[layer] = _rebuilt(layer, to, options, model)
            except ValueError as reason:
                problems.append(f"  {name or 'the model'} ({type(layer).__name__}): {reason}")
    if problems:
        report = "\n".join([f"cannot convert to {to.__name__}:", *problems])
        if strict:
            raise ValueError(f"{report}\nNothing was changed; strict=False converts the other layers.")
        warnings.warn(f"{report}\nThese were left as they are.", stacklevel=2)

    for parent in list(model.modules()):
        # Not named_children, which passes over the second name of a layer.
        for name, child in list(parent._modules.items()):
            if child in layers:
                parent.add_module(name, layers[child])
    return layers.get(model, model)


def _is_norm(module: nn.Module) -> bool:
    """Whether it normalises activations: by its class, by the statistics it holds, or else by the name of its class."""
    held = {*vars(module), *(name for name, _ in module.named_buffers(recurse=False))}
    if isinstance(module, (*LAYERS, _NormBase, *_ONE_SAMPLE)) or held & {"running_mean", "running_var"}:
        return True
    named = re.search("norm(?!al)|normali[sz]ation", type(module).__name__, re.IGNORECASE)
    # A class with layers of its own is judged by these, and one that reparametrises weights is no layer.
    return bool(named) and not module._modules and not type(module).__module__.startswith("torch.nn.utils.")


def _is_fused(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.ao.")


def _check(layer: nn.Module, to: type[nn.Module], in_fused: bool) -> None:
    """Raise ValueError with the reason if something of the layer would be lost."""
    if isinstance(layer, LazyModuleMixin):
        raise ValueError("lazy, and has seen no data yet, so that the number of channels is unknown")
    if is_parametrized(layer):
        raise ValueError("has parametrised tensors; see torch.nn.utils.parametrize.remove_parametrizations")
    if isinstance(layer, _ONE_SAMPLE):
        raise ValueError("normalises each sample by itself, and has no statistics of batches")
    if type(layer) not in LAYERS:
        raise ValueError("of a class that convert does not know, so that its forward may do anything")
    if in_fused:
        raise ValueError("part of a torch.ao module, which reads its statistics and not only its output")
    if type(layer) is not to and type(layer) in _RANKED and to in _RANKED:
        raise ValueError(f"takes input of another rank than {to.__name__}")
    if hooks := [name for name, value in vars(layer).items() if name.endswith("_hooks") and value]:
        raise ValueError(f"has hooks ({', '.join(hooks)}), which may count on its class; remove them first")
    if lost := [name for name, value in _added(layer).items() if callable(value) or isinstance(value, Tensor)]:
        raise ValueError(f"has been given {', '.join(lost)}, which the new layer would not have")
    if "track_running_stats" not in signature(to).parameters:
        missing = any(value is None for value in layer._buffers.values())
        if missing or not getattr(layer, "track_running_stats", True):
            raise ValueError(f"does not track the running statistics that {to.__name__} needs")


def _added(layer: nn.Module) -> dict[str, object]:
    """Return what was put on the layer after it was made."""
    here, fresh = (
        {**vars(each), **each._parameters, **each._buffers, **each._modules}
        for each in (layer, type(layer)(1, device="meta"))
    )
    return {name: value for name, value in here.items() if name not in fresh}


def _rebuilt(layer: nn.Module, to: type[nn.Module], options: dict[str, object], model: nn.Module) -> nn.Module:
    """Return a layer of class ``to`` with all that the layer has in common with it."""
    shared = signature(type(layer)).parameters.keys() & signature(to).parameters.keys() - {"bias", "device", "dtype"}
    arguments = {name: getattr(layer, name) for name in shared} | options
    tensors = [*layer.parameters(), *layer.buffers()]
    # FullNorm's statistics do not tell the type of what it normalises.
    typed = chain(layer.parameters(), layer.buffers() if isinstance(layer, _NormBase) else (), model.parameters())
    new = to(
        **arguments,
        device=tensors[0].device if tensors else None,
        dtype=next((each.dtype for each in typed if each.is_floating_point()), None),
    )
    for name in ("weight", "bias"):
        setattr(new, name, getattr(layer, name))
    for name in layer._buffers.keys() & new._buffers.keys():
        value = getattr(layer, name)
        same_type = value is None or (isinstance(layer, _NormBase) and isinstance(new, _NormBase))
        setattr(new, name, value if same_type else value.to(getattr(new, name)))
    for name, value in _added(layer).items():
        if name not in vars(new):
            setattr(new, name, value)
    return new.train(layer.training)
