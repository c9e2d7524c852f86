"""Objax: objax.nn.BatchNorm0D."""

from importlib.metadata import version

import jax.numpy as jnp
import numpy as np
import objax
import protocol


class Layer:
    """See ``protocol``."""

    def __init__(self, channels: int) -> None:
        self.norm = objax.nn.BatchNorm0D(channels)

    def train(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.norm(jnp.asarray(x), training=True))

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.norm(jnp.asarray(x), training=False))

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return tuple(np.asarray(each.value)[0] for each in (self.norm.running_mean, self.norm.running_var))


def versions() -> dict[str, str]:
    return {"objax": version("objax"), "jax": version("jax")}


def _half() -> dict[str, str]:
    layer = Layer(1)
    output = layer.norm(jnp.asarray(protocol.FOUR, jnp.bfloat16), training=True)
    return protocol.types({"input bfloat16": (output.dtype, layer.norm.running_mean.value.dtype)})


def _frozen() -> dict[str, str]:
    layer = Layer(1)
    layer.evaluate(protocol.FOUR)
    return {"training=False": "statistics move" if layer.statistics()[0].any() else "statistics rest"}


OTHER = {
    "momentum argument": lambda: protocol.argument(objax.nn.BatchNorm0D.__init__, "momentum"),
    "channel axis": lambda: 1,
    "half precision": _half,
    "frozen": _frozen,
    "names in a checkpoint": lambda: [key.rpartition(".")[2] for key in Layer(1).norm.vars().keys()],
}

if __name__ == "__main__":
    protocol.main(__import__("objax_adapter"))
