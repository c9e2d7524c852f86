"""Replace the normalisation layers of a model, as ``torch.nn.SyncBatchNorm.convert_sync_batchnorm`` does."""

from __future__ import annotations

import re
import warnings
from inspect import signature
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from bnlib.arguments import check_flags, check_kind, suggestion
from bnlib.norm.conversion_plan import Patterns, Step, select, table
from bnlib.norm.dynamic_tanh import DynamicTanh
from bnlib.norm.eps_bound import keep_function
from bnlib.norm.evonorm import EvoNormS0
from bnlib.norm.filter_response_norm import FilterResponseNorm
from bnlib.norm.full_norm import FullNorm
from bnlib.norm.replacement import LAYERS, ORIGINAL, check_replaceable, listed_class, remembered, replacement

__all__ = ["LAYERS", "convert"]

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
    model: nn.Module,
    to: type[nn.Module] | str = FullNorm,
    *,
    only: Patterns = None,
    skip: Patterns = None,
    strict: bool = True,
    dry_run: bool = False,
    **options: Any,
) -> nn.Module:
    """Replace every batch normalisation layer of a model by a layer of another class.

    Layers that are not batch normalisation, such as LayerNorm, and frozen batch normalisation, whose weights are
    buffers, stay as they are.

    The following stay the same: what the model computes in eval mode, the names and the order of the ``state_dict``,
    the parameters (the same objects, so an existing optimiser keeps working), ``running_mean``, ``running_var`` and
    ``num_batches_tracked``, device and dtype, train or eval mode, a layer that is used in several places, and the
    arguments that both classes have, such as ``eps``. Arguments that only the new class has get their defaults.

    FullNorm uses ``eps`` as a lower bound of the variance, to which the other layers add it. To keep the outputs,
    ``convert`` multiplies ``weight`` by sqrt(max(v, eps) / (v + eps)), where v is the running variance, and divides by
    it in the other direction. The factor is close to 1, except for channels whose variance is near ``eps``, where it
    can be 0.71. If the layer has no weight of its own, ``running_var`` is changed; then the outputs are the same until
    training moves it. Apart from this the numbers in the running statistics are copied, although the classes define
    ``running_var`` differently: PyTorch averages the unbiased variances of the batches, FullNorm estimates the biased
    variance of all data, and BatchRenorm averages standard deviations.

    A subclass of one of the ``LAYERS`` that does more than normalise, such as a layer with an activation, keeps its
    forward: the new layer runs it, and takes over its call of ``torch.nn.functional.batch_norm``. Its class is a
    subclass of ``to``.

    A converted layer remembers what it was. ``to="original"``, or the class that it had, gives that layer back, with
    its class, its arguments and, if nothing was trained, its exact numbers; only a FullNorm loses its running
    gradients. ``torch.nn.BatchNorm1d``, ``2d`` and ``3d`` stand for one class here: a layer that was one of them keeps
    its number of dimensions. A layer that never was one, such as a FullNorm in a model that you have built with it,
    becomes the one that ``to`` names. A ``state_dict`` does not contain this memory.

    The statistics of a converted FullNorm get the dtype of its parameters or, if it has none, of the model's first
    parameter. ``process_group=None`` stays None, which means all processes for SyncBatchNorm, and this process alone
    for FullNorm.

    Convert the model before you wrap it (``torch.compile``, DistributedDataParallel). Convert the whole model if its
    parts share a layer. ``convert`` finds layers that are submodules; it does not find layers in a plain list.

    Arguments:
        model: the model, changed in place; or a single normalisation layer, which is not changed.
        to: class of the new layers, one of ``bnlib.norm.replacement.LAYERS``, or its name, such as ``"FullNorm"``
            or ``"full_norm"`` (``"SyncBatchNorm"`` is the one of bnlib); or ``"original"``: what each layer was before.
        only: the layers to convert, as one or a list of: names of layers, names of parts of the model that contain
            them, patterns such as ``"layer?.*"``, classes, and names of classes. None converts all layers.
        skip: the layers to leave as they are, given in the same way.
        strict: raise an error if any layer cannot be converted; False converts the other layers and warns.
        dry_run: print what would be done with each normalisation layer as a table, and change nothing.
        options: arguments of ``to`` for every new layer, e.g. ``alpha=0.1``; they override those of the old layer.

    Returns:
        The model, or the new layer if ``model`` is a normalisation layer.

    Raises:
        TypeError: if an argument is of another type, or ``to`` has no such option.
        ValueError: if ``to`` is not in ``LAYERS``, if an option would change something that must stay the same, if
            ``only`` or ``skip`` names nothing, or, with ``strict``, if layers cannot be converted; the message lists
            them with the reasons. The constructor of ``to`` may raise other errors about ``options``. After an error
            the model is unchanged.

    Warns:
        UserWarning: with ``strict=False``, which layers were not converted.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, eps=1e-3), nn.LayerNorm(4))
        >>> gamma = model[1].weight
        >>> layer = bnlib.convert(model, to=bnlib.FullNorm, alpha=0.1)[1]
        >>> layer.weight is gamma, layer.eps, layer.alpha
        (True, 0.001, 0.1)
        >>> bnlib.convert(model, to="original", dry_run=True) is model
        layer  class      channels  becomes      note
        1      FullNorm   4         BatchNorm1d
        2      LayerNorm                         stays: is not batch normalisation
        1 of 2 normalisation layers would be converted, 0 cannot be.
        True
    """
    check_kind("model", model, nn.Module, "an nn.Module")
    check_flags(strict=strict, dry_run=dry_run)
    to = _layer_class(to)
    _check_options(to, options)
    steps = _plan(model, to, only, skip, options)
    if dry_run:
        print(table(steps))
        return model
    if problems := [step for step in steps if step.refused]:
        name = to if isinstance(to, str) else to.__name__
        report = "\n".join([f"cannot convert to {name}:", *map(str, problems)])
        if strict:
            raise ValueError(
                f"{report}\nThe model is unchanged. Pass strict=False or skip=[...] to convert the other layers."
            )
        warnings.warn(f"{report}\nThese layers were not converted.", stacklevel=2)

    layers = {step.layer: step.new for step in steps if step.new is not None}
    keep_function(layers.items(), model)
    for parent in list(model.modules()):
        # Not named_children, which skips the second name of a layer that has two.
        for name, child in list(parent._modules.items()):
            if child in layers:
                parent.add_module(name, layers[child])
    return layers.get(model, model)


def _layer_class(to: type[nn.Module] | str) -> type[nn.Module] | str:
    """Return the class that ``to`` is or names, or ``ORIGINAL``."""
    by_name = {each.__name__: each for each in reversed(LAYERS)}
    # The names of ``bnlib.NORMS``, such as full_norm.
    in_registry = {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower(): each for name, each in by_name.items()}
    if isinstance(to, str) and to in {*by_name, *in_registry, ORIGINAL}:
        return (by_name | in_registry).get(to, to)
    if not isinstance(to, type) or to not in LAYERS:
        name = to.__name__ if isinstance(to, type) else to
        hint = suggestion(name, {*by_name, ORIGINAL} - {name}) if isinstance(name, str) else ""
        if type(to) in LAYERS:
            hint = "; pass the class of the layer, and its arguments as options"
        raise ValueError(
            f"to must be one of {', '.join(each.__name__ for each in LAYERS)}, or {ORIGINAL!r}, got {to!r}{hint}"
        )
    return to


def _check_options(to: type[nn.Module] | str, options: dict[str, Any]) -> None:
    if to == ORIGINAL:
        if options:
            raise TypeError(f"options must be left out for to={ORIGINAL!r}, got {options}")
        return
    if kept := options.keys() & {"num_features", "affine", "bias", "track_running_stats", "device", "dtype"}:
        raise ValueError(
            f"options must not set {', '.join(sorted(kept))}, which come from the old layers, got {options}"
        )
    known = signature(to).parameters
    if unknown := [name for name in options if name not in known]:
        arguments = ("only", "skip", "strict", "dry_run", *known)
        raise TypeError(
            f"options must be arguments of {to.__name__}, got {unknown[0]!r}{suggestion(unknown[0], arguments)}"
        )
    to(1, device="meta", **options)  # Raises for an option that is wrong for every layer.


def _plan(
    model: nn.Module, to: type[nn.Module] | str, only: Patterns, skip: Patterns, options: dict[str, Any]
) -> list[Step]:
    """Return what happens to each normalisation layer; the model does not change."""
    names: dict[nn.Module, list[str]] = {}
    for name, layer in model.named_modules(remove_duplicate=False):
        if _is_norm(layer):
            names.setdefault(layer, []).append(name)
    left = select(names, model, only, skip)
    in_fused = {child for each in model.modules() if _is_fused(each) for child in each.children()}
    steps = []
    for layer, (name, *_) in names.items():
        step = Step(name, layer)
        steps.append(step)
        if reason := left.get(layer) or _reason_to_stay(layer, to):
            step.reason = reason
            continue
        try:
            check_replaceable(layer, to, layer in in_fused)
            step.new = replacement(layer, to, options, model)
        except ValueError as reason:
            step.reason, step.refused = str(reason), True
    return steps


def _is_norm(module: nn.Module) -> bool:
    """Return whether a module normalises activations, judged by its class, its attributes, or the name of its class."""
    if isinstance(module, (*LAYERS, _NormBase, *_PER_SAMPLE)) or _holds(module) & {"running_mean", "running_var"}:
        return True
    named = re.search("norm(?!al)|normali[sz]ation", type(module).__name__, re.IGNORECASE)
    # A module with submodules is judged by those. A parametrisation of weights is not a layer.
    return bool(named) and not module._modules and not type(module).__module__.startswith("torch.nn.utils.")


def _holds(module: nn.Module) -> set[str]:
    return {*vars(module), *module._buffers}


def _is_fused(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.ao.")


def _reason_to_stay(layer: nn.Module, to: type[nn.Module] | str) -> str:
    """Return why a normalisation layer stays as it is, or nothing if it is batch normalisation."""
    if listed_class(layer) is not None:
        return "was not converted" if to == ORIGINAL and remembered(layer) is None else ""
    if {"weight", "running_var"} <= layer._buffers.keys():
        return "is frozen batch normalisation, whose weights are buffers"
    named = re.search("batch_?norm", type(layer).__name__, re.IGNORECASE)
    both = {"running_mean", "running_var"} <= _holds(layer)
    per_sample = isinstance(layer, _PER_SAMPLE)
    return "" if (named or both) and not per_sample else "is not batch normalisation"
