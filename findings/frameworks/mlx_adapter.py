"""MLX on the CPU: mlx.nn.BatchNorm."""

from importlib.metadata import version

import mlx.core as mx
import numpy as np
import protocol
from mlx import nn


class Layer:
    """See ``protocol``."""

    def __init__(self, channels: int) -> None:
        self.norm = nn.BatchNorm(channels)

    def train(self, x: np.ndarray) -> np.ndarray:
        self.norm.train()
        return np.array(self.norm(mx.array(x)))

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        self.norm.eval()
        return np.array(self.norm(mx.array(x)))

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.norm.running_mean), np.array(self.norm.running_var)


def versions() -> dict[str, str]:
    return {"mlx": version("mlx")}


def _half() -> dict[str, str]:
    plain, converted, half = nn.BatchNorm(1), nn.BatchNorm(1), mx.array(protocol.FOUR).astype(mx.bfloat16)
    converted.set_dtype(mx.bfloat16)
    layers = {"input bfloat16": plain, "set_dtype": converted}
    return protocol.types({name: (norm(half).dtype, norm.running_mean.dtype) for name, norm in layers.items()})


def _frozen() -> dict[str, str]:
    layer = Layer(1)
    layer.norm.freeze()
    layer.train(protocol.FOUR)
    return {"freeze()": "statistics move" if layer.statistics()[0].any() else "statistics rest"}


NOT_ASKED = {"empty batch": "on the CPU the call often does not return"}
OTHER = {
    "momentum argument": lambda: protocol.argument(nn.BatchNorm, "momentum"),
    "channel axis": lambda: -1,
    "half precision": _half,
    "frozen": _frozen,
    "names in a checkpoint": lambda: sorted(nn.BatchNorm(1).parameters()),
}

if __name__ == "__main__":
    protocol.main(__import__("mlx_adapter"))
