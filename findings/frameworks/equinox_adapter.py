"""Equinox: equinox.nn.BatchNorm, in the mode that the environment variable EQUINOX_MODE names: ema or batch."""

import os
from importlib.metadata import version

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import protocol

MODE = os.environ.get("EQUINOX_MODE", "batch")


@eqx.filter_jit
def _called(norm, state, x, inference):
    norm = eqx.nn.inference_mode(norm, inference)
    return jax.vmap(norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)


class Layer:
    """See ``protocol``."""

    def __init__(self, channels: int, **options) -> None:
        self.norm, self.state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
            channels, axis_name="batch", mode=MODE, **options
        )

    def _call(self, x: np.ndarray, inference: bool):
        return _called(self.norm, self.state, jnp.asarray(x), inference)

    def train(self, x: np.ndarray) -> np.ndarray:
        output, self.state = self._call(x, False)
        return np.asarray(output)

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self._call(x, True)[0])

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        index = self.norm.ema_state_index if MODE == "ema" else self.norm.batch_state_index
        return tuple(np.asarray(each) for each in self.state.get(index))


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("equinox", "jax")}


def _frozen() -> dict[str, str]:
    layer = Layer(1)
    before = layer.statistics()
    _, layer.state = layer._call(protocol.FOUR, True)
    found = "statistics rest" if np.array_equal(before, layer.statistics()) else "statistics move"
    return {"inference=True": found}


def _half() -> dict[str, str]:
    def kinds(**options) -> tuple:
        layer = Layer(1, **options)
        return layer.train(jnp.asarray(protocol.FOUR, jnp.bfloat16)).dtype, layer.statistics()[0].dtype

    return protocol.types({"input bfloat16": kinds, "dtype=bfloat16": lambda: kinds(dtype=jnp.bfloat16)})


def _names() -> list[str]:
    """Return the places of the leaves that ``tree_serialise_leaves`` writes, which leaves out texts."""
    layer = Layer(1)
    leaves = jax.tree_util.tree_leaves_with_path((layer.norm, layer.state))
    return [jax.tree_util.keystr(path) for path, leaf in leaves if not isinstance(leaf, str)]


OTHER = {
    "momentum argument": lambda: protocol.argument(eqx.nn.BatchNorm.__init__, "momentum"),
    "channel axis": lambda: "0 of a sample; samples through vmap",
    "half precision": _half,
    "frozen": _frozen,
    "names in a checkpoint": _names,
}

if __name__ == "__main__":
    protocol.main(__import__("equinox_adapter"))
