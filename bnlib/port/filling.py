"""Fill the batch norms of an Equinox model or of an ONNX graph."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from bnlib.extras import optional
from bnlib.port.conventions import convention
from bnlib.port.conversion import check_neutral
from bnlib.port.found import Found, Source
from bnlib.port.objects import equinox_norms
from bnlib.port.state import BatchNormState


def equinox_places(into: Any) -> Source:
    """Return the batch norms of a pair (model, state) of Equinox, whether they have seen a batch or not.

    Raises:
        TypeError: if it is no such pair.
    """
    if not (isinstance(into, tuple) and len(into) == 2 and hasattr(into[1], "get")):
        raise TypeError(f"into must be a pair (model, state) with framework='equinox', got a {type(into).__name__}")
    model, state = into
    found = [Found(name, {"running_mean": state.get(_index(layer))[0]}) for name, layer in equinox_norms(model)]
    return Source(found, True)


def _index(layer: Any) -> Any:
    return layer.ema_state_index if layer.mode == "ema" else layer.batch_state_index


def fill_equinox(into: Any, filled: Mapping[str, BatchNormState], counts: Mapping[str, int]) -> tuple[Any, list[str]]:
    """Return a copy of a pair (model, state) whose batch norms have the given states, and notes on what did not fit.

    Arguments:
        into: the pair.
        filled: the states by the names of the layers in the model.
        counts: the number that each layer's counter of batches gets.

    Raises:
        ValueError: if a layer without gamma or beta would have to hold one that changes the output.
    """
    equinox, numpy = optional("equinox", "filling a model of Equinox"), optional("jax.numpy", "filling a model")
    model, state = into
    layers, notes = dict(equinox_norms(model)), []
    for name, each in filled.items():
        layer = layers[name]
        values = {"weight": each.weight, "bias": each.bias}
        for (role, value), neutral in zip(values.items(), (1.0, 0.0), strict=True):
            old = getattr(layer, role)
            if old is None:
                check_neutral(role, value, neutral, name)
                continue
            new = numpy.asarray(np.full(each.channels, neutral) if value is None else value, old.dtype)
            model = equinox.tree_at(lambda tree, name=name, role=role: getattr(at(tree, name), role), model, new)
        ema, index = layer.mode == "ema", _index(layer)
        pair = zip((each.running_mean, each.running_var), state.get(index), strict=True)
        state = state.set(index, tuple(numpy.asarray(new, old.dtype) for new, old in pair))
        if ema:
            state = state.set(layer.ema_first_time_index, numpy.asarray(False))
        else:  # computed from the old counter, because Equinox also compares whether a type is weak
            state = state.set(layer.batch_counter, state.get(layer.batch_counter) * 0 + counts[name])
        notes += _fixed(name, layer, each)
    return (model, state), notes


def at(tree: Any, name: str) -> Any:
    """Return what stands in a model under a path such as ``blocks.0.norm``."""
    for part in name.split(".") if name else ():
        if isinstance(tree, Mapping):
            tree = tree[part] if part in tree else tree[int(part)]
        else:
            tree = tree[int(part)] if part.isdigit() else getattr(tree, part)
    return tree


def _fixed(name: str, layer: Any, state: BatchNormState) -> list[str]:
    """Return notes on settings of a layer that cannot be changed once it is made."""
    wanted = {"eps": state.eps, "momentum": convention("equinox").momentum_for(state.momentum)}
    return [
        f"layer {name or 'BatchNorm'} was made with {key}={getattr(layer, key):g}, the state has {value:g}: make the "
        "model with this one"
        for key, value in wanted.items()
        if value is not None and not np.isclose(getattr(layer, key), value, rtol=1e-6)
    ]


def fill_onnx(into: Any, filled: Mapping[str, BatchNormState], places: Mapping[str, Found]) -> Any:
    """Return a copy of an ONNX model whose nodes BatchNormalization have the given states, eps and momentum included.

    Raises:
        ValueError: if two nodes share an array.
    """
    helper = optional("onnx.helper", "filling an ONNX model")
    numpy_helper = optional("onnx.numpy_helper", "filling an ONNX model")
    model = copy.deepcopy(into)
    constants = {each.name: each for each in model.graph.initializer}
    constants |= {
        node.output[0]: node.attribute[0].t
        for node in model.graph.node
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value"
    }
    nodes = {node.output[0]: node for node in model.graph.node}
    used: dict[str, str] = {}
    for name, state in filled.items():
        for role, (key,) in places[name].keys.items():
            if key in used:
                raise ValueError(
                    f"the nodes {used[key]} and {name} must not share the array {key}, which has one value"
                )
            used[key] = name
            dtype = numpy_helper.to_array(constants[key]).dtype
            constants[key].CopyFrom(numpy_helper.from_array(getattr(state, role).astype(dtype), constants[key].name))
        node = nodes[places[name].facts["output"]]
        kept = [each for each in node.attribute if each.name not in ("epsilon", "momentum")]
        settings = {"epsilon": state.eps, "momentum": convention("onnx").momentum_for(state.momentum)}
        made = [helper.make_attribute(key, float(value)) for key, value in settings.items() if value is not None]
        del node.attribute[:]
        node.attribute.extend([*kept, *made])
    return model
