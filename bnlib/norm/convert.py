"""Replace the normalisation layers of a model, as ``torch.nn.SyncBatchNorm.convert_sync_batchnorm`` does."""

from __future__ import annotations

import re
import warnings
from inspect import signature
from itertools import chain

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrize import is_parametrized

from bnlib.arguments import check_kind, suggestion
from bnlib.norm.batch_norm import BatchNorm
from bnlib.norm.batch_renorm import BatchRenorm
from bnlib.norm.dynamic_tanh import DynamicTanh
from bnlib.norm.evonorm import EvoNormS0
from bnlib.norm.filter_response_norm import FilterResponseNorm
from bnlib.norm.full_norm import FullNorm
from bnlib.norm.ghost_batch_norm import GhostBatchNorm
from bnlib.norm.sync_batch_norm import SyncBatchNorm

_FIXED_DIMENSION = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

LAYERS = (BatchNorm, BatchRenorm, FullNorm, GhostBatchNorm, SyncBatchNorm, *_FIXED_DIMENSION, nn.SyncBatchNorm)
"""The classes that ``convert`` can replace by each other. To add a class, list it here; its parameters and running
statistics must have the names of torch.nn.BatchNorm's, and its other arguments must be attributes."""

_PER_SAMPLE = (
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
    DynamicTanh,
    EvoNormS0,
    FilterResponseNorm,
)


def convert(
    model: nn.Module, to: type[nn.Module] | str = FullNorm, *, strict: bool = True, **options: object
) -> nn.Module:
    """Replace every batch normalisation layer of a model by a layer of another class.

    The following stay the same: the names and the order of the ``state_dict``, the parameters ``weight`` and ``bias``
    (the same objects, so an existing optimiser keeps working), ``running_mean``, ``running_var`` and
    ``num_batches_tracked``, device and dtype, train or eval mode, a layer that is used in several places, and the
    arguments that both classes have, such as ``eps``. Arguments that only the new class has get their defaults. State
    that only the old class had, such as ``momentum`` or FullNorm's running gradients, is lost.

    The numbers in the running statistics are copied, although the classes define ``running_var`` differently: PyTorch
    averages the unbiased variances of the batches, FullNorm estimates the biased variance of all data, and BatchRenorm
    averages standard deviations. FullNorm also stores them with a higher precision, and it uses ``eps`` as a lower
    bound of the variance where the other classes add it. The outputs in eval mode therefore differ by a factor of about
    1 + eps / (2 variance). Converting a model and converting it back restores the ``state_dict`` exactly. The
    statistics of a converted FullNorm get the dtype of its parameters or, if it has none, of the model's first
    parameter. ``process_group=None`` stays None, which means all processes for SyncBatchNorm, and this process alone
    for FullNorm.

    Convert the model before you wrap it (``torch.compile``, DistributedDataParallel). Convert the whole model if its
    parts share a layer. ``convert`` finds layers that are submodules; it does not find layers in a plain list.

    Arguments:
        model: the model, changed in place; or a single normalisation layer, which is not changed.
        to: class of the new layers, one of ``bnlib.norm.convert.LAYERS``, or its name, such as ``"FullNorm"``;
            ``"SyncBatchNorm"`` is the one of bnlib. ``convert`` cannot infer the number of
            spatial dimensions; if a model needs both ``torch.nn.BatchNorm1d`` and ``2d``, convert its parts separately.
        strict: raise an error if any layer cannot be converted; False converts the other layers and warns.
        options: arguments of ``to`` for every new layer, e.g. ``alpha=0.1``; they override those of the old layer.

    Returns:
        The model, or the new layer if ``model`` is a normalisation layer.

    Raises:
        TypeError: if ``model`` is not an ``nn.Module``, or ``to`` has no such option.
        ValueError: if ``to`` is not in ``LAYERS``, if an option would change something that must stay the same, or,
            with ``strict``, if layers cannot be converted; the message lists them with the reasons. The constructor
            of ``to`` may raise other errors about ``options``. After an error the model is unchanged.

    Warns:
        UserWarning: with ``strict=False``, which layers were not converted.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, eps=1e-3))
        >>> gamma = model[1].weight
        >>> layer = bnlib.convert(model, to=bnlib.FullNorm, alpha=0.1)[1]
        >>> layer.weight is gamma, layer.eps, layer.alpha
        (True, 0.001, 0.1)
    """
    check_kind("model", model, nn.Module, "an nn.Module")
    to = _layer_class(to)
    if kept := options.keys() & {"num_features", "affine", "bias", "track_running_stats", "device", "dtype"}:
        raise ValueError(
            f"options must not set {', '.join(sorted(kept))}, which come from the old layers, got {options}"
        )
    known = signature(to).parameters
    if unknown := [name for name in options if name not in known]:
        raise TypeError(
            f"options must be arguments of {to.__name__}, got {unknown[0]!r}{suggestion(unknown[0], known)}"
        )
    to(1, device="meta", **options)  # Raises for an option that is wrong for every layer.

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
            raise ValueError(f"{report}\nThe model is unchanged. Pass strict=False to convert the other layers.")
        warnings.warn(f"{report}\nThese layers were not converted.", stacklevel=2)

    for parent in list(model.modules()):
        # Not named_children, which skips the second name of a layer that has two.
        for name, child in list(parent._modules.items()):
            if child in layers:
                parent.add_module(name, layers[child])
    return layers.get(model, model)


def _layer_class(to: type[nn.Module] | str) -> type[nn.Module]:
    """Return the class that ``to`` is or names."""
    by_name = {each.__name__: each for each in reversed(LAYERS)}
    if isinstance(to, str) and to in by_name:
        return by_name[to]
    if not isinstance(to, type) or to not in LAYERS:
        name = to.__name__ if isinstance(to, type) else to
        hint = suggestion(name, by_name.keys() - {name}) if isinstance(name, str) else ""
        if type(to) in LAYERS:
            hint = "; pass the class of the layer, and its arguments as options"
        raise ValueError(f"to must be one of {', '.join(each.__name__ for each in LAYERS)}, got {to!r}{hint}")
    return to


def _is_norm(module: nn.Module) -> bool:
    """Return whether a module normalises activations, judged by its class, its attributes, or the name of its class."""
    held = {*vars(module), *(name for name, _ in module.named_buffers(recurse=False))}
    if isinstance(module, (*LAYERS, _NormBase, *_PER_SAMPLE)) or held & {"running_mean", "running_var"}:
        return True
    named = re.search("norm(?!al)|normali[sz]ation", type(module).__name__, re.IGNORECASE)
    # A module with submodules is judged by those. A parametrisation of weights is not a layer.
    return bool(named) and not module._modules and not type(module).__module__.startswith("torch.nn.utils.")


def _is_fused(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.ao.")


def _check(layer: nn.Module, to: type[nn.Module], in_fused: bool) -> None:
    """Raise a ValueError with the reason if the conversion would lose a part of the layer."""
    if isinstance(layer, LazyModuleMixin):
        raise ValueError("is lazy and has seen no data yet, so the number of channels is unknown; call the model first")
    if is_parametrized(layer):
        raise ValueError("has parametrised tensors; see torch.nn.utils.parametrize.remove_parametrizations")
    if isinstance(layer, _PER_SAMPLE):
        raise ValueError("normalises each sample separately and has no batch statistics")
    if type(layer) not in LAYERS:
        raise ValueError("is of a class that convert does not know, see bnlib.norm.convert.LAYERS")
    if in_fused:
        raise ValueError("is part of a torch.ao module, which reads its statistics and not only its output")
    if type(layer) is not to and type(layer) in _FIXED_DIMENSION and to in _FIXED_DIMENSION:
        raise ValueError(f"takes input with another number of dimensions than {to.__name__}")
    if hooks := [name for name, value in vars(layer).items() if name.endswith("_hooks") and value]:
        raise ValueError(f"has hooks ({', '.join(hooks)}), which may depend on its class; remove them first")
    if lost := [name for name, value in _added(layer).items() if callable(value) or isinstance(value, Tensor)]:
        raise ValueError(f"has the additional attributes {', '.join(lost)}, which the new layer would not have")
    if "track_running_stats" not in signature(to).parameters:
        missing = any(value is None for value in layer._buffers.values())
        if missing or not getattr(layer, "track_running_stats", True):
            raise ValueError(f"does not track the running statistics that {to.__name__} needs")


def _added(layer: nn.Module) -> dict[str, object]:
    """Return the attributes that were added to the layer after its construction."""
    here, fresh = (
        {**vars(each), **each._parameters, **each._buffers, **each._modules}
        for each in (layer, type(layer)(1, device="meta"))
    )
    return {name: value for name, value in here.items() if name not in fresh}


def _rebuilt(layer: nn.Module, to: type[nn.Module], options: dict[str, object], model: nn.Module) -> nn.Module:
    """Return a layer of class ``to`` with the arguments, parameters and buffers that both classes have."""
    shared = signature(type(layer)).parameters.keys() & signature(to).parameters.keys() - {"bias", "device", "dtype"}
    arguments = {name: getattr(layer, name) for name in shared} | options
    tensors = [*layer.parameters(), *layer.buffers()]
    # The dtype of FullNorm's statistics is not that of its input.
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
