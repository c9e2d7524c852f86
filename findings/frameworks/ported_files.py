"""Store a trained batch norm in the frameworks' own files, and compare what ``bnlib.port`` reads with the layer.

``ported_networks.py`` calls ``differences``. Each number is the largest difference of an array in the file to that of
the layer in memory, relative to the largest value.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ported_layers import ADAPTERS, CHANNELS, batches, difference, source

from bnlib import port


def trained(framework: str) -> Any:
    """Return the framework's layer with its defaults, trained for some batches."""
    layer = importlib.import_module(ADAPTERS[framework]).Layer(CHANNELS)
    for x in batches(30, seed=3):
        layer.train(x)
    return layer


def msgpack(path: Path, tree: Any) -> Path:
    """Write a tree as ``flax.serialization`` does."""
    from flax import serialization

    path.with_suffix(".msgpack").write_bytes(serialization.to_bytes(tree))
    return path.with_suffix(".msgpack")


def orbax(path: Path, tree: Any) -> Path:
    """Write a tree as Orbax's standard checkpointer does."""
    import orbax.checkpoint

    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)
    return path


def eqx(path: Path, pair: Any) -> tuple[Path, Any]:
    """Write a pair (model, state) as Equinox does, and return what ``port`` takes for it."""
    import equinox

    file = path.with_suffix(".eqx")
    equinox.tree_serialise_leaves(file, pair)
    fresh = importlib.import_module(ADAPTERS["equinox"]).Layer(CHANNELS)
    return file, (fresh.norm, fresh.state)


def state_of(layer: Any) -> Any:
    """Return the state of a flax.nnx module."""
    from flax import nnx

    return nnx.state(layer)


WRITERS: dict[str, tuple[str, Callable[[Path, Any], Any], Callable[[Any], Any]]] = {
    "Flax (linen), .msgpack": ("flax", msgpack, lambda layer: {**layer.variables}),
    "Flax (linen), Orbax": ("flax", orbax, lambda layer: {**layer.variables}),
    "Flax (nnx), Orbax": ("nnx", orbax, lambda layer: state_of(layer.norm)),
    "Equinox, .eqx": ("equinox", eqx, lambda layer: (layer.norm, layer.state)),
}
"""The framework, what writes the file, and what of the layer is written."""


def differences() -> dict[str, float]:
    """Return the largest difference by kind of file; see the module."""
    found = {}
    for title, (framework, write, part) in WRITERS.items():
        layer = trained(framework)
        given = {} if framework == "equinox" else {"eps": 1e-5, "momentum": 0.99}
        with tempfile.TemporaryDirectory() as folder:
            there = port.read(write(Path(folder) / "saved", part(layer)), framework, **given)
        here = port.read(source(framework, layer), framework, **given)
        arrays = ("running_mean", "running_var", "weight")  # the bias is 0
        found[title] = max(difference(getattr(here, each), getattr(there, each)) for each in arrays)
    return found
