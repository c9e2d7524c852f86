"""Haiku: haiku.BatchNorm with decay_rate=0.9, initialised with the first batch, as a training script does it."""

from importlib.metadata import version

import haiku as hk
import jax
import jax.numpy as jnp
import jmp
import numpy as np
import protocol


class Layer:
    """See ``protocol``."""

    def __init__(self, channels: int) -> None:
        def forward(x, training):
            return hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.9)(x, is_training=training)

        self.forward = hk.transform_with_state(forward)
        first = jnp.asarray(np.repeat(protocol.FOUR, channels, axis=1))
        self.parameters, self.state = self.forward.init(jax.random.key(0), first, True)

    def train(self, x: np.ndarray) -> np.ndarray:
        output, self.state = self.forward.apply(self.parameters, self.state, None, jnp.asarray(x), True)
        return np.asarray(output)

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.forward.apply(self.parameters, self.state, None, jnp.asarray(x), False)[0])

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return tuple(np.asarray(self.state[f"batch_norm/~/{each}_ema"]["average"]) for each in ("mean", "var"))


def versions() -> dict[str, str]:
    return {"dm-haiku": version("dm-haiku"), "jax": version("jax")}


def _after_init(batch: np.ndarray) -> list[float]:
    layer = Layer(1)
    _, layer.state = layer.forward.init(jax.random.key(0), jnp.asarray(batch), True)
    return [protocol.rounded(float(np.ravel(each)[0])) for each in layer.statistics()]


def _half() -> dict[str, str]:
    half = jnp.asarray(protocol.FOUR, jnp.bfloat16)

    def answered(layer: Layer, x) -> tuple:
        output, layer.state = layer.forward.apply(layer.parameters, layer.state, None, x, True)
        return output.dtype, layer.statistics()[0].dtype

    made_in_half = Layer(1)
    made_in_half.parameters, made_in_half.state = made_in_half.forward.init(jax.random.key(0), half, True)
    found = {"input bfloat16": answered(Layer(1), half), "init and input bfloat16": answered(made_in_half, half)}
    policy = jmp.Policy(param_dtype=jnp.float32, compute_dtype=jnp.bfloat16, output_dtype=jnp.bfloat16)
    with hk.mixed_precision.push_policy(hk.BatchNorm, policy):
        found["policy that computes in bfloat16"] = answered(Layer(1), jnp.asarray(protocol.FOUR))
    return protocol.types(found)


def _frozen() -> dict[str, str]:
    layer = Layer(1)
    layer.train(protocol.FOUR)
    before = layer.statistics()
    _, layer.state = layer.forward.apply(layer.parameters, layer.state, None, jnp.asarray(protocol.FOUR - 10), False)
    return {"is_training=False": "statistics rest" if np.array_equal(before, layer.statistics()) else "statistics move"}


OTHER = {
    "momentum argument": lambda: protocol.argument(hk.BatchNorm, "decay_rate"),
    "channel axis": lambda: "last (data_format='channels_last')",
    "who chooses the start": lambda: "init's batch",
    "running statistics after init with a batch": lambda: {
        "mean 10, variance 1": _after_init(protocol.FOUR),
        "zeros": _after_init(0 * protocol.FOUR),
    },
    "half precision": _half,
    "frozen": _frozen,
    "names in a checkpoint": lambda: {
        module: list(names) for tree in (Layer(1).parameters, Layer(1).state) for module, names in tree.items()
    },
}

if __name__ == "__main__":
    protocol.main(__import__("haiku_adapter"))
