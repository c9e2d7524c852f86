"""Keras 2: tf_keras.layers.BatchNormalization."""

from importlib.metadata import version

import numpy as np
import protocol
import tensorflow as tf
import tf_keras


class Layer:
    """See ``protocol``."""

    def __init__(self, channels: int, **arguments) -> None:
        self.norm = tf_keras.layers.BatchNormalization(**arguments)
        self.norm.build((None, channels))

    def train(self, x: np.ndarray) -> np.ndarray:
        return self.norm(tf.convert_to_tensor(x), training=True).numpy()

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return self.norm(tf.convert_to_tensor(x), training=False).numpy()

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return self.norm.moving_mean.numpy(), self.norm.moving_variance.numpy()


def versions() -> dict[str, str]:
    return {"tf-keras": version("tf-keras"), "tensorflow": version("tensorflow")}


def _half() -> dict[str, str]:
    def kinds(policy: str | None) -> tuple:
        layer = Layer(1, **({"dtype": policy} if policy else {}))
        output = layer.norm(protocol.FOUR if policy else tf.cast(protocol.FOUR, tf.bfloat16), training=True)
        return output.dtype.name, tf.as_dtype(layer.norm.moving_mean.dtype).name

    situations = {"input bfloat16": lambda: kinds(None)}
    for policy in ("mixed_bfloat16", "bfloat16", "float16"):
        situations[f"dtype={policy!r}"] = lambda policy=policy: kinds(policy)
    return protocol.types(situations)


def _frozen() -> dict[str, str]:
    layer = Layer(1)
    layer.norm.trainable = False
    layer.train(protocol.FOUR)
    moved = layer.statistics()[0].any()
    return {"trainable = False, training=True": "statistics move" if moved else "statistics rest"}


def _names() -> list[str]:
    return [each.name.partition(":")[0].split("/")[-1] for each in Layer(1).norm.weights]


def _images() -> float:
    layer = Layer(1)
    layer.norm = tf_keras.layers.BatchNormalization()
    layer.train(protocol.FOUR.reshape(4, 1, 1, 1))
    return protocol.rounded(float(layer.statistics()[1][0]))


OTHER = {
    "running variance after 1 step with images": _images,
    "momentum argument": lambda: protocol.argument(tf_keras.layers.BatchNormalization, "momentum"),
    "channel axis": lambda: protocol.argument(tf_keras.layers.BatchNormalization, "axis")["default"],
    "half precision": _half,
    "frozen": _frozen,
    "names in a checkpoint": _names,
}

if __name__ == "__main__":
    protocol.main(__import__("tf_keras_adapter"))
