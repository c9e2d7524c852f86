"""Batch norms in models that are in memory: of PyTorch, Keras, flax.nnx, Equinox and Haiku.

No framework is imported: an object is recognised by its class and asked for its attributes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from bnlib.port.conventions import ROLES
from bnlib.port.found import Found, Source, flatten
from bnlib.port.keras_files import RENORM
from bnlib.port.keras_settings import channel_axis, is_fused

LEAVES = ("builtins", "jax", "jaxlib", "numpy", "torch")
"""Packages whose objects hold no layers."""


def is_class_of(value: Any, package: str, name: str) -> bool:
    """Return whether an object's class, or one of its bases, has this name and comes from this package."""
    return any(each.__module__.split(".")[0] == package and each.__name__ == name for each in type(value).__mro__)


def read_torch_model(model: nn.Module) -> Source:
    """Return the layers of a PyTorch model that have running statistics."""
    found = []
    for name, layer in torch_norms(model):
        arrays = {role: getattr(layer, role) for role in ("weight", "bias", "running_mean", "running_var")}
        arrays["count"] = layer.num_batches_tracked
        kept = {role: array for role, array in arrays.items() if array is not None}
        found.append(Found(name, kept, facts={"eps": layer.eps, "momentum": layer.momentum, "channel_axis": 1}))
        if type(layer).__name__ in ("BatchRenorm", "GhostBatchNorm", "FullNorm", "DomainBatchNorm"):
            found[-1].notes.append(
                f"the layer is a {type(layer).__name__}: what it has beyond batch norm is not carried"
            )
    return Source(found, True, [name for name, _ in model.named_modules() if name])


def torch_norms(model: nn.Module) -> list[tuple[str, Any]]:
    """Return the batch norms of a PyTorch model with their names; instance norms are none."""
    return [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, _NormBase) and "Instance" not in type(layer).__name__ and layer.running_mean is not None
    ]


def read_keras_model(model: Any) -> Source:
    """Return the batch norms of a model or layer of Keras 3 or Keras 2, with the names of the models around them."""
    found = []
    for name, layer in _keras_layers(model, ()):
        named = {each.name.rpartition("/")[2].partition(":")[0]: each for each in layer.weights}
        arrays = {ROLES[key]: each.numpy() for key, each in named.items() if key in ROLES}
        rank = getattr(getattr(layer, "input_spec", None), "ndim", None)
        axis = channel_axis(layer.axis, rank)
        facts = {"eps": layer.epsilon, "momentum": layer.momentum, "channel_axis": axis}
        if getattr(layer, "fused", False) and is_fused(axis, rank):
            facts["variance"] = "unbiased"
        notes = [RENORM] if getattr(layer, "renorm", False) else []
        found.append(Found("/".join(name) or layer.name, arrays, facts=facts, notes=notes))
    return Source(found, True, [getattr(each, "path", each.name) for each in model.weights])


def is_keras(model: Any) -> bool:
    """Return whether an object is a layer or a model of Keras 3, or of Keras 2, which TensorFlow calls tf_keras."""
    return any(is_class_of(model, package, "Layer") for package in ("keras", "tf_keras"))


def _keras_layers(layer: Any, name: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if any(is_class_of(layer, package, "BatchNormalizationBase") for package in ("keras", "tf_keras")) or is_class_of(
        layer, "keras", "BatchNormalization"
    ):
        yield name, layer
    for each in getattr(layer, "layers", None) or getattr(layer, "_layers", None) or ():
        yield from _keras_layers(each, (*name, each.name))


def read_nnx_model(model: Any) -> Source:
    """Return the batch norms of a flax.nnx module, with the settings that its state does not hold."""
    found = []
    for name, layer in _inside(model, "flax", "BatchNorm"):
        arrays = {"running_mean": layer.mean, "running_var": layer.var, "weight": layer.scale, "bias": layer.bias}
        values = {role: each.get_value() for role, each in arrays.items() if each is not None}
        facts = {"eps": layer.epsilon, "momentum": layer.momentum, "channel_axis": layer.axis}
        found.append(Found(name, values, facts=facts))
    return Source(found, True)


def read_equinox(source: Any, debias: bool) -> Source:
    """Return the batch norms of a pair of an Equinox module and its state."""
    if not (isinstance(source, tuple) and len(source) == 2 and hasattr(source[1], "get")):
        raise TypeError(
            "source must be a pair (model, state) with framework='equinox', because Equinox keeps the running "
            f"statistics outside of the model, got a {type(source).__name__}"
        )
    model, state = source
    return Source([_equinox_layer(name, each, state, debias) for name, each in equinox_norms(model)], True)


def equinox_norms(model: Any) -> list[tuple[str, Any]]:
    """Return the batch norms of an Equinox module with their paths in it."""
    return list(_inside(model, "equinox", "BatchNorm"))


def _equinox_layer(name: str, layer: Any, state: Any, debias: bool) -> Found:
    arrays = {role: getattr(layer, role) for role in ("weight", "bias") if getattr(layer, role) is not None}
    facts = {"eps": layer.eps, "momentum": layer.momentum, "channel_axis": 1}
    notes = []
    if layer.mode == "ema":
        if bool(state.get(layer.ema_first_time_index)):
            raise ValueError(f"layer {name or 'BatchNorm'} has seen no batch: in mode 'ema' it has no statistics yet")
        mean, variance = state.get(layer.ema_state_index)
        facts["framework"] = "equinox-ema"
        notes.append(
            "the layer was trained in mode 'ema', where training normalises with the running averages; batch norm in "
            "other frameworks normalises with the batch, so training goes on differently"
        )
    else:
        count = int(state.get(layer.batch_counter))
        mean, variance = (np.asarray(each) for each in state.get(layer.batch_state_index))
        mean, variance, text = without_bias((mean, variance), layer.momentum, count, debias)
        notes += text
        if not text:
            arrays["count"] = count
    return Found(name, arrays | {"running_mean": mean, "running_var": variance}, facts=facts, notes=notes)


def without_bias(averages: tuple, momentum: float, count: int, debias: bool) -> tuple[Any, Any, list[str]]:
    """Return both averages as the layer uses them at inference, divided by 1 - momentum^count, and what that means."""
    scale = 1 - momentum**count if count else 1.0
    if scale > 1 - 1e-9 or not count:
        return *averages, []
    if not debias:
        text = f"the stored averages were taken; at inference the layer divides them by 1 - {momentum:g}^{count}"
        return *averages, [f"{text} = {scale:.4g}, so outputs differ by this until training goes on"]
    text = f"the averages are those of inference, divided by 1 - {momentum:g}^{count} = {scale:.4g}"
    return *(each / np.float32(scale) for each in averages), [
        f"{text}; the next batches weigh less elsewhere than in the source, whose divisor moves with each batch"
    ]


def read_haiku(source: Any, momentum: float | None, debias: bool) -> Source:
    """Return the batch norms of a pair of Haiku's parameters and state."""
    if not (
        isinstance(source, tuple | list) and len(source) == 2 and all(isinstance(each, Mapping) for each in source)
    ):
        raise TypeError(f"source must be a pair (params, state) with framework='haiku', got a {type(source).__name__}")
    parameters, state = source
    found = []
    for key in (key for key in state if str(key).endswith("/~/mean_ema")):
        name = str(key).removesuffix("/~/mean_ema")
        statistics = {"running_mean": state[key], "running_var": state[f"{name}/~/var_ema"]}
        kind = "average" if debias else "hidden"
        arrays = {role: np.ravel(each[kind]) for role, each in statistics.items()}
        keys = {
            role: (1, f"{name}/~/{part}_ema", kind) for role, part in (("running_mean", "mean"), ("running_var", "var"))
        }
        for role, leaf in (("weight", "scale"), ("bias", "offset")):
            if leaf in parameters.get(name, {}):
                arrays[role], keys[role] = np.ravel(parameters[name][leaf]), (0, name, leaf)
        found.append(Found(name, arrays, keys, notes=_haiku_notes(state[key], momentum, debias)))
    return Source(found, False, ["/".join(map(str, key)) for key in flatten(source)])


def _haiku_notes(average: Mapping[str, Any], momentum: float | None, debias: bool) -> list[str]:
    count = int(average["counter"])
    if np.allclose(average["hidden"], average["average"], rtol=1e-6, atol=0):
        return []
    what = "are corrected for their start at 0" if debias else "start at 0 and are not corrected"
    return [f"the averages of {count} batches {what}; the next batches weigh less elsewhere than in the source"]


def _inside(
    model: Any, package: str, name: str, path: str = "", seen: set[int] | None = None
) -> Iterator[tuple[str, Any]]:
    """Yield the layers of a class in a tree of modules, lists and mappings, with their paths."""
    seen = set() if seen is None else seen
    if id(model) in seen:
        return
    seen.add(id(model))
    if is_class_of(model, package, name):
        yield path, model
        return
    if isinstance(model, Mapping):
        children = model.items()
    elif isinstance(model, list | tuple) or (hasattr(model, "__iter__") and hasattr(model, "append")):
        children = enumerate(model)
    elif type(model).__module__.split(".")[0] in LEAVES:
        return
    elif dataclasses.is_dataclass(model):
        children = ((each.name, getattr(model, each.name, None)) for each in dataclasses.fields(model))
    else:
        children = ((key, each) for key, each in getattr(model, "__dict__", {}).items() if not key.startswith("_"))
    for key, child in children:
        yield from _inside(child, package, name, f"{path}.{key}" if path else str(key), seen)
