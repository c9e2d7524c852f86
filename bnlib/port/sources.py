"""Open a source: a file, a tree of arrays, a model in memory, or a list of arrays."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bnlib.arguments import shown
from bnlib.extras import optional
from bnlib.port.closed import is_closed, refuse, refuse_objects
from bnlib.port.conventions import Convention, convention
from bnlib.port.found import Found, Key, Source, by_name, flatten, in_order_of_numbers, is_array
from bnlib.port.jax_files import read_eqx, read_msgpack, read_orbax, without_names
from bnlib.port.keras_files import read_keras_file
from bnlib.port.objects import (
    is_class_of,
    is_keras,
    read_equinox,
    read_haiku,
    read_keras_model,
    read_nnx_model,
    read_torch_model,
)
from bnlib.port.onnx_graphs import read_onnx

TORCH_FILES = (".pt", ".pth", ".bin", ".ckpt")
KERAS_FILES = (".h5", ".hdf5", ".keras")
FILES = (".npz", ".safetensors", ".onnx", ".msgpack", *KERAS_FILES, *TORCH_FILES)
"""The endings of files that can be read."""

ORDERED = ("torch", "onnx", "mlx", "paddle", "mindspore", "tinygrad", "mxnet")
"""Frameworks whose checkpoints keep the order of the network; JAX sorts the keys of its trees."""

SORTED = (".safetensors",)
"""Files that sort their arrays by type and name, whatever framework wrote them."""


def opened(source: Any, framework: str, momentum: float | None, without: str | None, debias: bool) -> Source:
    """Return the batch norms of a source of any kind.

    Raises:
        FileNotFoundError: if a file does not exist.
        TypeError: if the source is of a kind that the framework does not have.
        ValueError: if a file has an ending that is not read, or not with this framework.
    """
    if isinstance(source, str | os.PathLike):
        return _file(Path(source), framework, without)
    if framework == "onnx" and hasattr(source, "graph"):
        return read_onnx(source)
    if framework == "equinox":
        if isinstance(source, tuple) and len(source) == 2 and isinstance(source[0], str | os.PathLike):
            source = read_eqx(Path(source[0]), source[1])
        return read_equinox(source, debias)
    if framework == "haiku":
        return read_haiku(source, momentum, debias)
    if isinstance(source, nn.Module):
        return read_torch_model(source)
    if framework == "keras" and is_keras(source):
        return read_keras_model(source)
    if framework == "nnx" and is_class_of(source, "flax", "Module"):
        return read_nnx_model(source)
    if isinstance(source, Mapping):
        return tree(source, framework)
    if isinstance(source, list | tuple) and source and not isinstance(source[0], Mapping):
        return Source([listed(source, convention(framework), without)], True)
    kinds = "a path, a mapping of arrays, a list of arrays, or a model of the framework"
    raise TypeError(f"source must be {kinds}, got {shown(source)}")


def _file(path: Path, framework: str, without: str | None) -> Source:
    kind = path.suffix.lower()
    if kind == ".eqx":
        raise ValueError(without_names(path))
    if path.is_dir() and framework in ("flax", "nnx"):
        return tree(read_orbax(path), framework)
    if is_closed(path, framework):
        refuse(path, framework)
    if kind not in FILES:
        raise ValueError(
            f"source must be a file that ends in {', '.join(FILES)}, or with Flax a folder of Orbax, got {str(path)!r}"
        )
    if not path.exists():
        raise FileNotFoundError(f"source must be an existing file, got {str(path)!r}")
    needed = {".onnx": "onnx", **dict.fromkeys(KERAS_FILES, "keras")}.get(kind, framework)
    if needed != framework or (framework in ("onnx", "equinox", "haiku") and kind != ".onnx"):
        hint = f"framework={needed!r}" if needed != framework else "the objects in memory"
        raise ValueError(f"source must fit framework={framework!r}, got {str(path)!r}; read it with {hint}")
    if kind == ".onnx":
        return read_onnx(path)
    if kind in KERAS_FILES:
        return read_keras_file(path, without)
    return tree(_arrays(path, kind), framework, framework in ORDERED and kind not in SORTED)


def _arrays(path: Path, kind: str) -> Mapping[str, Any]:
    if kind == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    if kind == ".msgpack":
        return read_msgpack(path)
    if kind == ".safetensors":
        return optional("safetensors.torch", "reading safetensors").load_file(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        refuse_objects(path)
    if not isinstance(loaded, Mapping):
        raise ValueError(f"source must be a file of named arrays, got {str(path)!r} with a {type(loaded).__name__}")
    return loaded


def tree(source: Mapping[Any, Any], framework: str, ordered: bool | None = None) -> Source:
    """Return the batch norms of a tree of named arrays; ``ordered`` is that of the framework unless it is given."""
    arrays = flatten(source)
    names = ["/".join(map(str, key)) for key in arrays]
    if framework == "flax":
        return Source(in_order_of_numbers(_linen(arrays)), False, names)
    found = by_name(arrays)
    ordered = framework in ORDERED if ordered is None else ordered
    return Source(found if ordered else in_order_of_numbers(found), ordered, names)


def _linen(arrays: Mapping[Key, Any]) -> list[Found]:
    """Return the batch norms of Flax variables, whose scale and mean stand in two collections."""
    separated = {tuple(part for each in key for part in str(each).split("/")): key for key in arrays}
    joined = {key[1:]: place for key, place in separated.items() if key[0] in ("params", "batch_stats")}
    found = by_name({key: arrays[place] for key, place in joined.items()})
    for each in found:
        each.keys = {role: joined[key] for role, key in each.keys.items()}
    return found


def listed(source: list | tuple, own: Convention, without: str | None) -> Found:
    """Return the batch norm of a list of arrays in the framework's order, as Keras's ``get_weights`` returns them."""
    roles = [role for role in own.names if role != "count"]
    if len(source) == len(roles) - 1 and without is None:
        raise ValueError(
            f"source must have {len(roles)} arrays ({', '.join(own.names[role] for role in roles)}), got 3: "
            "pass without='weight' or without='bias' to say which one the layer lacks"
        )
    if len(source) == len(roles) - 1:
        roles.remove(str(without))
    elif len(source) == len(roles) - 2:
        roles = [role for role in roles if role.startswith("running")]
    if len(source) != len(roles) or not all(is_array(each) for each in source):
        names = ", ".join(own.names[role] for role in roles)
        raise TypeError(f"source must be a list of the arrays {names}, got {shown(source)}")
    return Found("", dict(zip(roles, source, strict=True)), {role: (i,) for i, role in enumerate(roles)})
