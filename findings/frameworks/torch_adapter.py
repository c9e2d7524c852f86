"""PyTorch: torch.nn.BatchNorm1d."""

from importlib.metadata import version

import numpy as np
import protocol
import torch
from torch import nn


class Layer:
    """See ``protocol``."""

    def __init__(self, channels: int) -> None:
        self.norm = nn.BatchNorm1d(channels)

    def train(self, x: np.ndarray) -> np.ndarray:
        return self.norm.train()(torch.from_numpy(x)).detach().numpy()

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return self.norm.eval()(torch.from_numpy(x)).detach().numpy()

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return self.norm.running_mean.numpy().copy(), self.norm.running_var.numpy().copy()


def versions() -> dict[str, str]:
    return {"torch": version("torch")}


def _half() -> dict[str, str]:
    plain, under_autocast, converted = (nn.BatchNorm1d(2) for _ in range(3))
    x, half = torch.randn(4, 2), torch.randn(4, 2).bfloat16()
    found = {"input bfloat16": (plain(half).dtype, plain.running_mean.dtype)}
    with torch.autocast("cpu", torch.bfloat16):
        found["float32 under autocast"] = under_autocast(x).dtype, under_autocast.running_mean.dtype
    converted.bfloat16()
    found["layer.bfloat16()"] = converted(half).dtype, converted.running_mean.dtype
    return protocol.types(found)


def _frozen() -> dict[str, str]:
    frozen = nn.BatchNorm1d(1)
    frozen.requires_grad_(False)
    frozen(torch.from_numpy(protocol.FOUR))
    in_eval = nn.BatchNorm1d(1).eval()
    in_eval(torch.from_numpy(protocol.FOUR))
    return {
        "requires_grad_(False)": "statistics move" if frozen.running_mean.item() else "statistics rest",
        "eval()": "statistics move" if in_eval.running_mean.item() else "statistics rest",
    }


OTHER = {
    "momentum argument": lambda: protocol.argument(nn.BatchNorm1d, "momentum"),
    "channel axis": lambda: 1,
    "half precision": _half,
    "frozen": _frozen,
    "names in a checkpoint": lambda: list(nn.BatchNorm1d(1).state_dict()),
}

if __name__ == "__main__":
    protocol.main(__import__("torch_adapter"))
