"""A batch norm as its framework stores it, before its numbers are brought into one convention."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bnlib.port.conventions import ROLES

Key = tuple[Any, ...]
"""The place of an array in a tree: the keys that lead to it."""


@dataclass
class Found:
    """One batch norm of a source, with its framework's own numbers.

    Arguments:
        name: name of the layer in the source.
        arrays: arrays by role: ``running_mean``, ``running_var``, ``weight``, ``bias``, ``count``.
        keys: place of each array in the source, by role.
        facts: what the source says beside the arrays: ``eps``, ``momentum``, ``channel_axis``, ``variance``,
            ``framework``; of an ONNX node also ``output``.
        notes: what could not be carried.
    """

    name: str
    arrays: dict[str, Any]
    keys: dict[str, Key] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class Source:
    """The batch norms of a source.

    Arguments:
        found: one entry per batch norm.
        ordered: whether they come in the order of the network; a tree whose keys are sorted does not.
        keys: names of all arrays of the source, for messages.
    """

    found: list[Found]
    ordered: bool
    keys: list[str] = field(default_factory=list)


def is_array(value: Any) -> bool:
    """Return whether a leaf of a tree is an array, a number or a list of numbers."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(each, int | float) for each in value)
    return hasattr(value, "shape") and hasattr(value, "dtype")


def flatten(tree: Any, key: Key = ()) -> dict[Key, Any]:
    """Return the arrays of a tree of mappings and lists by their place; what is no array is left out.

    The variables of flax.nnx, which have their array in ``get_value()``, are unpacked.
    """
    if isinstance(tree, Mapping):
        return {place: leaf for name in tree for place, leaf in flatten(tree[name], (*key, name)).items()}
    if hasattr(tree, "get_value"):
        return {key: tree.get_value()}
    if is_array(tree):
        return {key: tree}
    if isinstance(tree, list | tuple):
        return {place: leaf for i, each in enumerate(tree) for place, leaf in flatten(each, (*key, i)).items()}
    return {}


def by_name(arrays: Mapping[Key, Any]) -> list[Found]:
    """Return the batch norms among named arrays: the layers that have a running mean and a running variance."""
    layers: dict[str, Found] = {}
    for key, array in arrays.items():
        layer, role = split(key)
        if role:
            found = layers.setdefault(layer, Found(layer, {}))
            found.arrays[role], found.keys[role] = array, key
    return [each for each in layers.values() if {"running_mean", "running_var"} <= each.arrays.keys()]


def split(key: Key) -> tuple[str, str | None]:
    """Return the layer and the role of an array, by the last part of its name.

    In checkpoints of flax.nnx the name of a variable is followed by ``value``.
    """
    name = "/".join(map(str, key)).removesuffix(":0").removesuffix("/value")
    layer, _, leaf = name.rpartition("/")
    if "." in leaf:
        inner, _, leaf = leaf.rpartition(".")
        layer = f"{layer}/{inner}" if layer else inner
    return layer, ROLES.get(leaf)


def in_order_of_numbers(found: Iterable[Found]) -> list[Found]:
    """Sort by name with numbers as numbers, so that ``BatchNorm_10`` comes after ``BatchNorm_9``."""
    return sorted(found, key=lambda each: natural(each.name))


def natural(name: str) -> list[tuple[bool, int, str]]:
    """Return a key that sorts names with numbers as numbers."""
    parts = re.split(r"(\d+)", name)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def is_numbered(names: list[str]) -> bool:
    """Return whether names differ in their numbers alone, as those that Keras and Flax give by themselves."""
    return len({re.sub(r"_?\d+", "", name) for name in names}) <= 1


def flat_vectors(arrays: Iterable[Any]) -> bool:
    """Return whether arrays are vectors of one length."""
    shapes = {np.shape(each) for each in arrays}
    return len(shapes) == 1 and len(next(iter(shapes))) == 1
