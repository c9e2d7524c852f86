"""Flax, the newer interface: flax.nnx.BatchNorm."""

import flax_questions
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


def _frozen() -> dict[str, str]:
    layer = Layer(1)
    layer.norm.eval()
    layer.norm(jnp.asarray(protocol.FOUR))
    return {"eval()": "statistics move" if layer.statistics()[0].any() else "statistics rest"}


versions = flax_questions.versions
OTHER = {
    "momentum argument": lambda: protocol.argument(nnx.BatchNorm.__init__, "momentum"),
    "channel axis": lambda: Layer(1).norm.axis,
    "half precision": lambda: flax_questions.half_precision(Layer),
    "frozen": _frozen,
    "names in a checkpoint": lambda: list(nnx.state(Layer(1).norm)),
    "offset of 10,000 with use_fast_variance=False": lambda: flax_questions.offset_with_slow_variance(Layer),
}

if __name__ == "__main__":
    protocol.main(__import__("flax_nnx_adapter"))
