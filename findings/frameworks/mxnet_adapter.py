"""MXNet: mxnet.gluon.nn.BatchNorm, whose statistics move in the backward pass."""

from importlib.metadata import version

import numpy as np
import protocol

np.bool = bool  # MXNet 1.9.1 uses this name, which NumPy removed in version 1.24

import mxnet as mx  # noqa: E402
from mxnet.gluon import nn  # noqa: E402


class Layer:
    """See ``protocol``."""

    def __init__(self, channels: int, **arguments) -> None:
        self.norm = nn.BatchNorm(in_channels=channels, **arguments)
        self.norm.initialize()

    def train(self, x: np.ndarray, backward: bool = True) -> np.ndarray:
        x = mx.nd.array(x, dtype=x.dtype)
        x.attach_grad()
        with mx.autograd.record():
            output = self.norm(x)
        if backward:
            output.backward()
        return output.asnumpy()

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return self.norm(mx.nd.array(x)).asnumpy()

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return self.norm.running_mean.data().asnumpy(), self.norm.running_var.data().asnumpy()


def versions() -> dict[str, str]:
    return {"mxnet": version("mxnet")}


def _half() -> dict[str, str]:
    half, plain, converted = protocol.FOUR.astype(np.float16), Layer(1), Layer(1)
    converted.norm.cast("float16")
    pairs = {"input float16": plain, "cast('float16')": converted}
    return protocol.types({key: (each.train(half).dtype, each.statistics()[0].dtype) for key, each in pairs.items()})


def _moves(layer: Layer, backward: bool = True) -> str:
    layer.train(protocol.FOUR, backward)
    return "statistics move" if layer.statistics()[0].any() else "statistics rest"


def _frozen() -> dict[str, str]:
    frozen = Layer(1)
    for parameter in (frozen.norm.gamma, frozen.norm.beta):
        parameter.grad_req = "null"
    return {
        "grad_req = 'null'": _moves(frozen),
        "use_global_stats=True": _moves(Layer(1, use_global_stats=True)),
        "no backward pass": _moves(Layer(1), backward=False),
    }


OTHER = {
    "momentum argument": lambda: protocol.argument(nn.BatchNorm, "momentum"),
    "channel axis": lambda: protocol.argument(nn.BatchNorm, "axis")["default"],
    "half precision": _half,
    "frozen": _frozen,
    "names in a checkpoint": lambda: list(Layer(1).norm._collect_params_with_prefix()),
}

if __name__ == "__main__":
    protocol.main(__import__("mxnet_adapter"))
