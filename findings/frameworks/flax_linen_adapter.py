"""Flax, the older interface: flax.linen.BatchNorm."""

import flax_questions
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


def _frozen() -> dict[str, str]:
    layer = Layer(1)
    before, norm = layer.statistics(), linen.BatchNorm(use_running_average=True)
    _, changed = norm.apply(layer.variables, jnp.asarray(protocol.FOUR), mutable=["batch_stats"])
    layer.variables = {**layer.variables, **changed}
    found = "statistics rest" if np.array_equal(before, layer.statistics()) else "statistics move"
    return {"use_running_average=True": found}


versions = flax_questions.versions
OTHER = {
    "momentum argument": lambda: protocol.argument(linen.BatchNorm, "momentum"),
    "channel axis": lambda: linen.BatchNorm(use_running_average=True).axis,
    "half precision": lambda: flax_questions.half_precision(Layer),
    "frozen": _frozen,
    "names in a checkpoint": lambda: {group: list(names) for group, names in Layer(1).variables.items()},
    "offset of 10,000 with use_fast_variance=False": lambda: flax_questions.offset_with_slow_variance(Layer),
}

if __name__ == "__main__":
    protocol.main(__import__("flax_linen_adapter"))
