"""PaddlePaddle: paddle.nn.BatchNorm1D."""

from importlib.metadata import version

import numpy as np
import paddle
import protocol
from paddle import nn


class Layer:
    """See ``protocol``."""

    def __init__(self, channels: int) -> None:
        self.norm = nn.BatchNorm1D(channels)

    def train(self, x: np.ndarray) -> np.ndarray:
        self.norm.train()
        return self.norm(paddle.to_tensor(x)).numpy()

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        self.norm.eval()
        return self.norm(paddle.to_tensor(x)).numpy()

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return self.norm._mean.numpy().copy(), self.norm._variance.numpy().copy()


def versions() -> dict[str, str]:
    return {"paddlepaddle": version("paddlepaddle")}


def _half() -> dict[str, str]:
    x = paddle.to_tensor(protocol.FOUR)

    def kinds(norm: nn.Layer, values: paddle.Tensor) -> tuple:
        return norm(values).dtype, norm._mean.dtype

    def under_autocast() -> tuple:
        with paddle.amp.auto_cast(dtype="bfloat16"):
            return kinds(nn.BatchNorm1D(1), x)

    half = x.astype("bfloat16")
    situations = {
        "input bfloat16": lambda: kinds(nn.BatchNorm1D(1), half),
        "auto_cast to bfloat16": under_autocast,
        "layer.to(dtype='bfloat16')": lambda: kinds(nn.BatchNorm1D(1).to(dtype="bfloat16"), half),
    }
    return protocol.types(situations)


def _frozen() -> dict[str, str]:
    layer = Layer(1)
    for parameter in layer.norm.parameters():
        parameter.stop_gradient = True
    layer.train(protocol.FOUR)
    moved = layer.statistics()[0].any()
    fixed = nn.BatchNorm1D(1, use_global_stats=True)
    fixed.train()
    fixed(paddle.to_tensor(protocol.FOUR))
    return {
        "stop_gradient = True": "statistics move" if moved else "statistics rest",
        "use_global_stats=True": "statistics move" if fixed._mean.numpy().any() else "statistics rest",
    }


OTHER = {
    "momentum argument": lambda: protocol.argument(nn.BatchNorm1D, "momentum"),
    "channel axis": lambda: "1 (data_format='NCL')",
    "half precision": _half,
    "frozen": _frozen,
    "names in a checkpoint": lambda: list(nn.BatchNorm1D(1).state_dict()),
}

if __name__ == "__main__":
    protocol.main(__import__("paddle_adapter"))
