"""BrainState: brainstate.nn.BatchNorm0d."""

from importlib.metadata import version

import brainstate
import jax.numpy as jnp
import numpy as np
import protocol


class Layer:
    """See ``protocol``."""

    def __init__(self, channels: int, **arguments) -> None:
        self.norm = brainstate.nn.BatchNorm0d((channels,), **arguments)

    def run(self, x, fit: bool):
        with brainstate.environ.context(fit=fit):
            return self.norm(jnp.asarray(x))

    def train(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.run(x, True))

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.run(x, False))

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return tuple(np.ravel(each.value) for each in (self.norm.running_mean, self.norm.running_var))


def versions() -> dict[str, str]:
    return {"brainstate": version("brainstate"), "jax": version("jax")}


def _half() -> dict[str, str]:
    half = jnp.asarray(protocol.FOUR, jnp.bfloat16)

    def kinds(layer: Layer) -> tuple:
        return layer.run(half, True).dtype, layer.norm.running_mean.value.dtype

    return protocol.types(
        {
            "input bfloat16": lambda: kinds(Layer(1)),
            "dtype=bfloat16": lambda: kinds(Layer(1, dtype=jnp.bfloat16)),
        }
    )


def _frozen() -> dict[str, str]:
    layer = Layer(1)
    layer.evaluate(protocol.FOUR)
    return {"fit=False": "statistics move" if layer.statistics()[0].any() else "statistics rest"}


def _names() -> list[str]:
    names = []
    for path, state in Layer(1).norm.states().items():
        inner = state.value if isinstance(state.value, dict) else [None]
        names += ["/".join([*map(str, path), *([key] if key else [])]) for key in inner]
    return names


OTHER = {
    "momentum argument": lambda: protocol.argument(brainstate.nn.BatchNorm0d.__init__, "momentum"),
    "channel axis": lambda: protocol.argument(brainstate.nn.BatchNorm2d.__init__, "feature_axis")["default"],
    "half precision": _half,
    "frozen": _frozen,
    "names in a checkpoint": _names,
}

if __name__ == "__main__":
    protocol.main(__import__("brainstate_adapter"))
