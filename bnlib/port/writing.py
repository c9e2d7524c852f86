"""Write batch norms as a framework stores them: ``write``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bnlib.arguments import check_kind, check_one_of
from bnlib.port.conventions import FRAMEWORKS, Convention, convention
from bnlib.port.conversion import arguments, check_neutral, converted, values_of
from bnlib.port.filling import equinox_places, fill_equinox, fill_onnx
from bnlib.port.found import Found, Key, Source, is_numbered
from bnlib.port.matching import check_states, grouped, known_order, pairs
from bnlib.port.objects import read_haiku
from bnlib.port.onnx_graphs import read_onnx
from bnlib.port.sources import tree
from bnlib.port.state import BatchNormState

FINISHED = 1e-12
"""Written to a framework that corrects for the start, an average has this share of the start left: none."""


@dataclass(frozen=True)
class Written:
    """What ``write`` returns.

    Arguments:
        arrays: the arrays with the framework's names, in its structure; or the tree that was filled.
        arguments: what to make the layer with, by the names of the framework's arguments; of a network, by layer.
        notes: what was assumed, and what could not be carried.

    Example:
        >>> port.write(port.BatchNormState([0.0], [1.0]), "keras").arguments
        {'epsilon': 1e-05, 'momentum': 0.9, 'scale': False, 'center': False}
    """

    arrays: Any
    arguments: dict[str, Any]
    notes: tuple[str, ...]


def write(
    states: BatchNormState | Mapping[str, BatchNormState],
    framework: str,
    *,
    into: Any = None,
    names: Mapping[str, str] | None = None,
    values_per_channel: int | Mapping[str, int] | None = None,
) -> Written:
    """Return a batch norm with the names, the structure and the conventions of a framework.

    For one layer you get arrays to hand to the framework. With ``into``, a tree of a whole network, you get a copy of
    it in which the batch norms are filled and everything else is as before.

    Arrays of one layer: a flat mapping for Keras, flax.nnx, ONNX, MLX and PyTorch; ``params`` and ``batch_stats`` for
    flax.linen; a pair (params, state) for Haiku; for Equinox ``weight``, ``bias``, ``batch_counter`` and
    ``batch_state_index``, which is the pair for ``state.set``. Counters of Equinox and Haiku are set so high that no
    correction for the start is left, so that the outputs are equal.

    Arguments:
        states: a state, or with ``into`` states by name, as ``norms`` returns them.
        framework: one of ``FRAMEWORKS``.
        into: a ``state_dict``, variables of Flax, the pair of Haiku or Equinox, an ONNX ``ModelProto``, or another
            mapping of arrays.
        names: names in ``into`` by names in ``states``; None matches equal names, or else the order.
        values_per_channel: batch size times positions of the training to come, one number or by layer. It converts the
            running variance to the framework's kind; None copies it as it is stored, for equal outputs.

    Raises:
        TypeError: if an argument is of a wrong type.
        ValueError: if layers are missing or left over, or an argument is out of range.

    Example:
        >>> norm = nn.BatchNorm2d(2, momentum=0.1)
        >>> written = port.write(port.read(norm, "torch"), "flax")
        >>> written.arguments["momentum"], list(written.arrays["batch_stats"])
        (0.9, ['mean', 'var'])
    """
    check_one_of("framework", framework, FRAMEWORKS)
    named = check_states(states)
    if into is None:
        return _one(named, framework, values_per_channel)
    source = _opened(into, framework)
    places = {each.name: each for each in source.found}
    channels = {name: math.prod(np.shape(each.arrays["running_mean"])) for name, each in places.items()}
    ordered = known_order(states) and (source.ordered or is_numbered(list(places)))
    matched, notes = pairs(named, channels, names, ordered)
    new = {
        target: converted(named[origin], framework, values_of(values_per_channel, origin, target))
        for origin, target in matched
    }
    made = {target: arguments(state, convention(framework)) for target, state in new.items()}
    notes += grouped((target, note) for target, state in new.items() for note in state.notes)
    if framework == "equinox":
        tree, fixed = fill_equinox(into, new, {name: finished(state.momentum) for name, state in new.items()})
        return Written(tree, made, (*notes, *fixed))
    if framework == "onnx":
        return Written(fill_onnx(into, new, places), made, tuple(notes))
    leaves: dict[Key, Any] = {}
    for target, state in new.items():
        leaves |= _leaves(state, places[target])
    return Written(filled(into, leaves), made, tuple(notes))


def _one(named: dict[str, BatchNormState], framework: str, values_per_channel: Any) -> Written:
    if len(named) != 1:
        raise ValueError(f"states must be one state unless into= is given, got {len(named)}")
    ((name, state),) = named.items()
    state = converted(state, framework, values_of(values_per_channel, name))
    own = convention(framework)
    return Written(_arrays(state, own), arguments(state, own), state.notes)


def _opened(into: Any, framework: str) -> Source:
    if framework == "haiku":
        return read_haiku(into, None, True)
    if framework == "equinox":
        return equinox_places(into)
    if framework == "onnx":
        if not hasattr(into, "graph"):
            raise TypeError(f"into must be an ONNX ModelProto with framework='onnx', got a {type(into).__name__}")
        return read_onnx(into)
    check_kind("into", into, Mapping, "a mapping of arrays")
    return tree(into, framework)


def _arrays(state: BatchNormState, own: Convention) -> Any:
    values = {role: value for role in ("weight", "bias", "running_mean", "running_var")
              if (value := getattr(state, role)) is not None}  # fmt: skip
    if own.framework == "equinox":
        affine = {role: values[role] for role in ("weight", "bias") if role in values}
        pair = (state.running_mean, state.running_var)
        return affine | {"batch_counter": finished(state.momentum), "batch_state_index": pair}
    if own.framework == "haiku":
        return _haiku(state, values)
    named = {own.names[role]: values[role] for role in own.names if role in values}
    if own.framework == "flax":
        statistics = [own.names[role] for role in ("running_mean", "running_var")]
        return {
            "params": {name: array for name, array in named.items() if name not in statistics},
            "batch_stats": {name: named[name] for name in statistics},
        }
    if "count" in own.names:
        named[own.names["count"]] = np.asarray(counted(state))
    return {name: torch.from_numpy(array) for name, array in named.items()} if own.framework == "torch" else named


def _haiku(state: BatchNormState, values: dict[str, np.ndarray]) -> tuple[dict, dict]:
    name = state.name or "batch_norm"
    affine = {leaf: values[role] for role, leaf in (("weight", "scale"), ("bias", "offset")) if role in values}
    averages = {
        f"{name}/~/{part}_ema": {
            "counter": np.int32(finished(state.momentum)),
            "hidden": values[role],
            "average": values[role],
        }
        for part, role in (("mean", "running_mean"), ("var", "running_var"))
    }
    return {name: affine}, averages


def finished(momentum: float | None) -> int:
    """Return a number of batches after which an average has forgotten its start."""
    return math.ceil(math.log(FINISHED) / math.log1p(-momentum)) if momentum and momentum < 1 else 1


def counted(state: BatchNormState) -> int:
    """Return the number of batches that the statistics have seen, or if it is not known, ``finished``."""
    return finished(state.momentum) if state.count is None else state.count


def _leaves(state: BatchNormState, place: Found) -> dict[Key, Any]:
    """Return the new arrays by their place in the tree.

    Raises:
        ValueError: if the layer of the tree has no place for a gamma or a beta that is not neutral.
    """
    found = {}
    for role in ("weight", "bias", "running_mean", "running_var"):
        value, neutral = getattr(state, role), 1.0 if role == "weight" else 0.0
        if role not in place.keys:
            check_neutral(role, value, neutral, place.name)
            continue
        found[place.keys[role]] = value if value is not None else np.full_like(state.running_mean, neutral)
        key = place.keys[role]
        if key[-1] == "average":
            found[(*key[:-1], "hidden")] = found[key]
            found[(*key[:-1], "counter")] = np.asarray(finished(state.momentum))
    if "count" in place.keys:
        found[place.keys["count"]] = np.asarray(counted(state))
    return found


def filled(node: Any, leaves: Mapping[Key, Any], key: Key = ()) -> Any:
    """Return a copy of a tree in which some leaves are replaced; the new ones have the old shapes and types."""
    if isinstance(node, Mapping):
        copied = {name: filled(node[name], leaves, (*key, name)) for name in node}
        return type(node)(copied) if type(node).__name__ == "State" else copied
    if isinstance(node, list | tuple) and any(place[: len(key)] == key for place in leaves):
        return type(node)(filled(each, leaves, (*key, i)) for i, each in enumerate(node))
    if key not in leaves:
        return node
    if hasattr(node, "get_value"):
        return node.replace(_like(node.get_value(), leaves[key]))
    return _like(node, leaves[key])


def _like(old: Any, new: np.ndarray) -> Any:
    new = np.asarray(new)
    with np.errstate(over="ignore"):
        if isinstance(old, torch.Tensor):
            made = torch.from_numpy(new).to(old.device, old.dtype).reshape(old.shape)
            finite = bool(made.isfinite().all())
        else:
            made = new.astype(np.asarray(old).dtype).reshape(np.shape(old))
            finite = bool(np.isfinite(made).all())
    if not finite and np.isfinite(new).all():
        raise ValueError(f"into must have types that hold {np.abs(new).max():.3g}, got {np.asarray(old).dtype}")
    return made
