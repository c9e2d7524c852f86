"""Files of the frameworks that build on JAX: Flax's ``.msgpack``, the folders of Orbax, and Equinox's ``.eqx``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bnlib.arguments import shown
from bnlib.extras import optional

ARRAY, SCALAR = 1, 3
"""The extension types under which ``flax.serialization`` stores arrays, and numbers of NumPy's types."""


def read_msgpack(path: Path) -> Mapping[str, Any]:
    """Return the tree of arrays that ``flax.serialization.to_bytes`` wrote; Flax is not needed.

    Raises:
        ValueError: if the file holds no tree of names.
    """
    msgpack = optional("msgpack", "reading Flax's .msgpack")

    def unpacked(kind: int, data: bytes) -> Any:
        if kind not in (ARRAY, SCALAR):
            return msgpack.ExtType(kind, data)
        shape, dtype, values = msgpack.unpackb(data, raw=True)
        return _array(values, dtype.decode()).reshape(shape)

    loaded = msgpack.unpackb(path.read_bytes(), ext_hook=unpacked, strict_map_key=False)
    if not isinstance(loaded, Mapping):
        raise ValueError(f"source must be a file of named arrays, got {str(path)!r} with a {type(loaded).__name__}")
    return loaded


def _array(values: bytes, dtype: str) -> np.ndarray:
    """Return the numbers of a buffer; bfloat16, which NumPy does not have, is the upper half of a float32."""
    if dtype == "bfloat16":
        return (np.frombuffer(values, np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(values, np.dtype(dtype))


def read_orbax(path: Path) -> Mapping[str, Any]:
    """Return the tree of a folder that a checkpointer of Orbax wrote, read by Orbax itself.

    The arrays become those of NumPy, so that the devices on which they were saved need not be there.
    """
    orbax = optional("orbax.checkpoint", "reading checkpoints of Orbax")
    jax = optional("jax", "reading checkpoints of Orbax")
    with orbax.Checkpointer(orbax.PyTreeCheckpointHandler()) as checkpointer:
        saved = checkpointer.metadata(path.absolute()).item_metadata.tree
        kinds = jax.tree.map(lambda _: orbax.RestoreArgs(restore_type=np.ndarray), saved)
        return checkpointer.restore(path.absolute(), args=orbax.args.PyTreeRestore(restore_args=kinds))


def read_eqx(path: Path, like: Any) -> Any:
    """Return the pair of model and state in a file of ``equinox.tree_serialise_leaves``.

    Arguments:
        path: the file, which has the arrays one after another, without names.
        like: a pair (model, state) of the same structure.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    if not path.exists():
        raise FileNotFoundError(f"source must be an existing file, got {str(path)!r}")
    return optional("equinox", "reading Equinox's .eqx").tree_deserialise_leaves(path, like)


def without_names(path: Path) -> str:
    """Return the message for an ``.eqx`` file without the structure that it needs."""
    return (
        f"source must be a pair (file, (model, state)) with an .eqx file, got {shown(str(path))}: the file has the "
        "arrays one after another without their names; make the model as in the training, with make_with_state"
    )
