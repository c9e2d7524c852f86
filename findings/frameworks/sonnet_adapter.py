"""Sonnet 2: sonnet.BatchNorm with scale and offset."""

from importlib.metadata import version

import numpy as np
import protocol
import sonnet as snt
import tensorflow as tf


class Layer:
    """See ``protocol``. Sonnet makes the statistics in the first call, so a first call has no effect on them."""

    def __init__(self, channels: int, dtype: tf.DType = tf.float32) -> None:
        self.norm, self.dtype = snt.BatchNorm(create_scale=True, create_offset=True), dtype
        self.norm(tf.zeros((1, channels), dtype), is_training=False)

    def train(self, x: np.ndarray) -> np.ndarray:
        return self.norm(tf.convert_to_tensor(x, self.dtype), is_training=True).numpy()

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return self.norm(tf.convert_to_tensor(x, self.dtype), is_training=False).numpy()

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return tuple(np.ravel(each.value.numpy()) for each in (self.norm.moving_mean, self.norm.moving_variance))


def versions() -> dict[str, str]:
    return {"dm-sonnet": version("dm-sonnet"), "tensorflow": version("tensorflow")}


def _half() -> dict[str, str]:
    layer = Layer(1, tf.bfloat16)
    output = layer.norm(tf.cast(protocol.FOUR, tf.bfloat16), is_training=True)
    return protocol.types({"input bfloat16": (output.dtype.name, layer.norm.moving_mean.value.dtype.name)})


def _frozen() -> dict[str, str]:
    layer = Layer(1)
    layer.norm(tf.convert_to_tensor(protocol.FOUR), is_training=False, test_local_stats=True)
    return {"is_training=False": "statistics move" if layer.statistics()[0].any() else "statistics rest"}


def _names() -> list[str]:
    return [each.name.partition(":")[0] for each in Layer(1).norm.variables]


def _images() -> float:
    norm = snt.BatchNorm(create_scale=True, create_offset=True)
    norm(tf.convert_to_tensor(protocol.FOUR.reshape(4, 1, 1, 1)), is_training=True)
    return protocol.rounded(float(np.ravel(norm.moving_variance.value.numpy())[0]))


STEPS = 10_000
OTHER = {
    "running variance after 1 step with images": _images,
    "momentum argument": lambda: protocol.argument(snt.BatchNorm.__init__, "decay_rate"),
    "channel axis": lambda: "last (data_format='channels_last')",
    "half precision": _half,
    "frozen": _frozen,
    "names in a checkpoint": _names,
}

if __name__ == "__main__":
    protocol.main(__import__("sonnet_adapter"))
