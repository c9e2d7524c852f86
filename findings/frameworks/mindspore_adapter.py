"""MindSpore on the CPU: mindspore.nn.BatchNorm1d."""

from importlib.metadata import version

import mindspore
import numpy as np
import protocol
from mindspore import Tensor, nn


class Layer:
    """See ``protocol``."""

    def __init__(self, channels: int) -> None:
        self.norm = nn.BatchNorm1d(channels)

    def train(self, x: np.ndarray) -> np.ndarray:
        self.norm.set_train(True)
        return self.norm(Tensor(x)).asnumpy()

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        self.norm.set_train(False)
        return self.norm(Tensor(x)).asnumpy()

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return self.norm.moving_mean.asnumpy().copy(), self.norm.moving_variance.asnumpy().copy()


def versions() -> dict[str, str]:
    return {"mindspore": version("mindspore")}


def _half() -> dict[str, str]:
    plain, converted = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    converted.to_float(mindspore.float16)
    found = {}
    for name, norm, x in (
        ("input float16", plain, Tensor(protocol.FOUR, mindspore.float16)),
        ("to_float(float16)", converted, Tensor(protocol.FOUR)),
    ):
        norm.set_train(True)
        found[name] = norm(x).dtype, norm.moving_mean.dtype
    return protocol.types(found)


def _frozen() -> dict[str, str]:
    layer = Layer(1)
    for parameter in layer.norm.trainable_params():
        parameter.requires_grad = False
    layer.train(protocol.FOUR)
    moved = layer.statistics()[0].any()
    fixed = nn.BatchNorm1d(1, use_batch_statistics=False)
    fixed.set_train(True)
    fixed(Tensor(protocol.FOUR))
    return {
        "requires_grad = False": "statistics move" if moved else "statistics rest",
        "use_batch_statistics=False": "statistics move" if fixed.moving_mean.asnumpy().any() else "statistics rest",
    }


OTHER = {
    "momentum argument": lambda: protocol.argument(nn.BatchNorm1d, "momentum"),
    "channel axis": lambda: 1,
    "half precision": _half,
    "frozen": _frozen,
    "names in a checkpoint": lambda: list(nn.BatchNorm1d(1).parameters_dict()),
}

if __name__ == "__main__":
    protocol.main(__import__("mindspore_adapter"))
