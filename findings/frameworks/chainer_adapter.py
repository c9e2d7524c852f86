"""Chainer: chainer.links.BatchNormalization."""

from importlib.metadata import version

import chainer
import numpy as np
import protocol
from chainer import links


class Layer:
    """See ``protocol``."""

    def __init__(self, channels: int, dtype: type | None = None) -> None:
        self.norm = links.BatchNormalization(channels, dtype=dtype)

    def train(self, x: np.ndarray) -> np.ndarray:
        with chainer.using_config("train", True):
            return self.norm(x).array

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        with chainer.using_config("train", False):
            return self.norm(x).array

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return self.norm.avg_mean.copy(), self.norm.avg_var.copy()


def versions() -> dict[str, str]:
    return {"chainer": version("chainer")}


def _half() -> dict[str, str]:
    def kinds(layer: Layer) -> tuple:
        return layer.train(protocol.FOUR.astype(np.float16)).dtype, layer.norm.avg_mean.dtype

    found = {"input float16": kinds(Layer(1)), "dtype=float16": kinds(Layer(1, np.float16))}
    with chainer.using_config("dtype", chainer.mixed16):
        found["config.dtype = mixed16"] = kinds(Layer(1))
    return protocol.types(found)


def _frozen() -> dict[str, str]:
    frozen, testing = Layer(1), Layer(1)
    frozen.norm.disable_update()
    frozen.train(protocol.FOUR)
    testing.evaluate(protocol.FOUR)
    pairs = {"disable_update()": frozen, "config.train = False": testing}
    return {key: "statistics move" if each.statistics()[0].any() else "statistics rest" for key, each in pairs.items()}


def _names() -> list[str]:
    target: dict = {}
    Layer(1).norm.serialize(chainer.serializers.DictionarySerializer(target))
    return sorted(target)  # their order differs between processes


OTHER = {
    "momentum argument": lambda: protocol.argument(links.BatchNormalization, "decay"),
    "channel axis": lambda: "1 (axis=None)",
    "half precision": _half,
    "frozen": _frozen,
    "names in a checkpoint": _names,
}

if __name__ == "__main__":
    protocol.main(__import__("chainer_adapter"))
