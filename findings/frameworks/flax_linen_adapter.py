"""Flax, the older interface: flax.linen.BatchNorm."""

from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import protocol
from flax import linen


class Layer:
    """See ``protocol``."""

    def __init__(self, channels: int, **options) -> None:
        self.options = options
        norm = linen.BatchNorm(use_running_average=True, **options)
        self.variables = norm.init(jax.random.key(0), jnp.zeros((1, channels)))

    def train(self, x: np.ndarray) -> np.ndarray:
        norm = linen.BatchNorm(use_running_average=False, **self.options)
        output, changed = norm.apply(self.variables, jnp.asarray(x), mutable=["batch_stats"])
        self.variables = {**self.variables, **changed}
        return np.asarray(output)

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        norm = linen.BatchNorm(use_running_average=True, **self.options)
        return np.asarray(norm.apply(self.variables, jnp.asarray(x)))

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        found = self.variables["batch_stats"]
        return np.asarray(found["mean"]), np.asarray(found["var"])


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
    before, norm = layer.statistics(), linen.BatchNorm(use_running_average=True)
    _, changed = norm.apply(layer.variables, jnp.asarray(protocol.FOUR), mutable=["batch_stats"])
    layer.variables = {**layer.variables, **changed}
    found = "statistics rest" if np.array_equal(before, layer.statistics()) else "statistics move"
    return {"use_running_average=True": found}


def _slow_variance() -> float:
    layer = Layer(1, use_fast_variance=False)
    x = np.array([[9_999.0], [10_001.0]] * 32, np.float32)
    return float(f"{np.abs(layer.train(x)).max():.4g}")


OTHER = {
    "momentum argument": lambda: protocol.argument(linen.BatchNorm, "momentum"),
    "channel axis": lambda: linen.BatchNorm(use_running_average=True).axis,
    "half precision": _half,
    "frozen": _frozen,
    "names in a checkpoint": lambda: {group: list(names) for group, names in Layer(1).variables.items()},
    "offset of 10,000 with use_fast_variance=False": _slow_variance,
}

if __name__ == "__main__":
    protocol.main(__import__("flax_linen_adapter"))
