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
    norm = nn.BatchNorm(1)
    output = norm(mx.array(protocol.FOUR).astype(mx.bfloat16))
    found = {"input bfloat16: output": str(output.dtype), "input bfloat16: statistics": str(norm.running_mean.dtype)}
    norm = nn.BatchNorm(1)
    norm.set_dtype(mx.bfloat16)
    output = norm(mx.array(protocol.FOUR).astype(mx.bfloat16))
    return found | {"set_dtype: output": str(output.dtype), "set_dtype: statistics": str(norm.running_mean.dtype)}


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
