"""Keras 3: keras.layers.BatchNormalization, on the backend that the environment variable KERAS_BACKEND names."""

from importlib.metadata import version

import keras
import numpy as np
import protocol


class Layer:
    """See ``protocol``."""

    def __init__(self, channels: int) -> None:
        self.norm = keras.layers.BatchNormalization()
        self.norm.build((None, channels))

    def train(self, x: np.ndarray) -> np.ndarray:
        return keras.ops.convert_to_numpy(self.norm(keras.ops.convert_to_tensor(x), training=True))

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return keras.ops.convert_to_numpy(self.norm(keras.ops.convert_to_tensor(x), training=False))

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return tuple(keras.ops.convert_to_numpy(each) for each in (self.norm.moving_mean, self.norm.moving_variance))


def versions() -> dict[str, str]:
    backend = keras.backend.backend()
    return {"keras": version("keras"), backend: version(backend)}


def _moves(change) -> str:
    layer = Layer(1)
    change(layer.norm)
    layer.train(protocol.FOUR)
    return "statistics move" if layer.statistics()[0].any() else "statistics rest"


def _frozen() -> dict[str, str]:
    def trainable(norm) -> None:
        norm.trainable = False

    return {"trainable = False, training=True": _moves(trainable)}


def _half() -> dict[str, str]:
    found, x = {}, keras.ops.convert_to_tensor(protocol.FOUR)
    for policy in (None, "mixed_bfloat16", "bfloat16", "float16"):
        norm = keras.layers.BatchNormalization(dtype=policy)
        norm.build((None, 1))
        output = norm(x if policy else keras.ops.cast(x, "bfloat16"), training=True)
        pair = (keras.backend.standardize_dtype(each.dtype) for each in (output, norm.moving_mean))
        found[f"dtype={policy!r}" if policy else "input bfloat16"] = tuple(pair)
    return protocol.types(found)


def _names() -> list[str]:
    return [each.path.split("/")[-1] for each in Layer(1).norm.weights]


def _images() -> float:
    layer = Layer(1)
    layer.norm = keras.layers.BatchNormalization()
    layer.train(protocol.FOUR.reshape(4, 1, 1, 1))
    return protocol.rounded(float(layer.statistics()[1][0]))


OTHER = {
    "running variance after 1 step with images": _images,
    "momentum argument": lambda: protocol.argument(keras.layers.BatchNormalization, "momentum"),
    "channel axis": lambda: keras.layers.BatchNormalization().axis,
    "half precision": _half,
    "frozen": _frozen,
    "names in a checkpoint": _names,
}

if __name__ == "__main__":
    protocol.main(__import__("keras_adapter"))
