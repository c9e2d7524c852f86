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
    plain, under_autocast, converted = (nn.BatchNorm1D(1) for _ in range(3))
    found = {"input bfloat16": (plain(x.astype("bfloat16")).dtype, plain._mean.dtype)}
    with paddle.amp.auto_cast(dtype="bfloat16"):
        found["auto_cast to bfloat16"] = under_autocast(x).dtype, under_autocast._mean.dtype
    converted.to(dtype="bfloat16")
    found["layer.to(dtype='bfloat16')"] = converted(x.astype("bfloat16")).dtype, converted._mean.dtype
    return protocol.types(found)


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
