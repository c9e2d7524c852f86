"""Flax, the newer interface: flax.nnx.BatchNorm."""

from importlib.metadata import version

import jax.numpy as jnp
import numpy as np
import protocol
from flax import nnx


class Layer:
    """See ``protocol``."""

    def __init__(self, channels: int, **options) -> None:
        self.norm = nnx.BatchNorm(channels, rngs=nnx.Rngs(0), **options)

    def train(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.norm(jnp.asarray(x), use_running_average=False))

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.norm(jnp.asarray(x), use_running_average=True))

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(self.norm.mean[...]), np.asarray(self.norm.var[...])


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("flax", "jax")}


def _half() -> dict[str, str]:
    found = {}
    for name, options in {"input bfloat16": {}, "dtype=bfloat16": {"dtype": jnp.bfloat16}}.items():
        layer = Layer(1, **options)
        output = layer.train(jnp.asarray(protocol.FOUR, jnp.bfloat16 if not options else None))
        found |= {f"{name}: output": str(output.dtype), f"{name}: statistics": str(layer.statistics()[0].dtype)}
    return found


def _frozen() -> dict[str, str]:
    layer = Layer(1)
    layer.norm.eval()
    layer.norm(jnp.asarray(protocol.FOUR))
    return {"eval()": "statistics move" if layer.statistics()[0].any() else "statistics rest"}


def _slow_variance() -> float:
    layer = Layer(1, use_fast_variance=False)
    x = np.array([[9_999.0], [10_001.0]] * 32, np.float32)
    return float(f"{np.abs(layer.train(x)).max():.4g}")


OTHER = {
    "momentum argument": lambda: protocol.argument(nnx.BatchNorm.__init__, "momentum"),
    "channel axis": lambda: Layer(1).norm.axis,
    "half precision": _half,
    "frozen": _frozen,
    "names in a checkpoint": lambda: list(nnx.state(Layer(1).norm)),
    "offset of 10,000 with use_fast_variance=False": _slow_variance,
}

if __name__ == "__main__":
    protocol.main(__import__("flax_nnx_adapter"))
