"""tinygrad: tinygrad.nn.BatchNorm."""

from importlib.metadata import version

import numpy as np
import protocol
from tinygrad import Context, Tensor, dtypes, nn


class Layer:
    """See ``protocol``."""

    def __init__(self, channels: int) -> None:
        self.norm = nn.BatchNorm(channels)

    def train(self, x: np.ndarray) -> np.ndarray:
        with Context(TRAINING=1):
            output = self.norm(Tensor(x)).numpy()
        self.norm.running_mean.realize()
        self.norm.running_var.realize()
        return output

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return self.norm(Tensor(x)).numpy()

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return self.norm.running_mean.numpy(), self.norm.running_var.numpy()


def versions() -> dict[str, str]:
    return {"tinygrad": version("tinygrad")}


def _half() -> dict[str, str]:
    norm = nn.BatchNorm(1)
    with Context(TRAINING=1):
        output = norm(Tensor(protocol.FOUR).cast(dtypes.float16))
    return protocol.types({"input float16": (output.dtype, norm.running_mean.dtype)})


def _frozen() -> dict[str, str]:
    layer = Layer(1)
    layer.norm.weight.is_param_(False)
    layer.norm.bias.is_param_(False)
    layer.train(protocol.FOUR)
    return {"is_param_(False)": "statistics move" if layer.statistics()[0].any() else "statistics rest"}


OTHER = {
    "momentum argument": lambda: protocol.argument(nn.BatchNorm, "momentum"),
    "channel axis": lambda: 1,
    "half precision": _half,
    "frozen": _frozen,
    "names in a checkpoint": lambda: list(nn.state.get_state_dict(nn.BatchNorm(1))),
}

if __name__ == "__main__":
    protocol.main(__import__("tinygrad_adapter"))
