"""The files that real frameworks wrote, and what those frameworks answered; see findings/frameworks/port_files*.py."""

import zipfile
from pathlib import Path

import numpy as np
from torch import nn

from bnlib import port

FILES = Path(__file__).parent / "files"
SIZE, EPS, MOMENTUM = 8, 2e-3, 0.2
"""Values per channel of every batch; and the settings with which all frameworks trained, in PyTorch's convention."""


def nested(path: Path, separator: str):
    """The tree whose leaves stand in a file under their paths; numbers are places in a list."""
    tree = {}
    with np.load(path) as archive:
        for name, leaf in archive.items():
            *around, last = (int(part) if part.isdigit() else part for part in name.split(separator))
            inner = tree
            for part in around:
                inner = inner.setdefault(part, {})
            inner[last] = leaf
    return tree


def haiku_pair():
    tree = nested(FILES / "haiku.npz", "|")
    return tree[0], tree[1]


def keras_weights(folder: Path) -> Path:
    """The file of weights that a .keras file contains."""
    with zipfile.ZipFile(FILES / "keras.keras") as archive:
        return Path(archive.extract("model.weights.h5", folder))


def answers(name: str) -> dict[str, np.ndarray]:
    with np.load(FILES / f"{name}_answers.npz") as archive:
        return dict(archive)


def network(norm=nn.BatchNorm1d) -> nn.Sequential:
    return nn.Sequential(norm(3), norm(3)).eval()


# What is read, the framework, the extra arguments, and whose answers they must give.
SOURCES = {
    "keras": (lambda: FILES / "keras.keras", "keras", {}, "keras"),
    "flax": (lambda: FILES / "flax.npz", "flax", {"eps": EPS, "momentum": 0.8}, "flax"),
    "flax, msgpack": (lambda: FILES / "flax.msgpack", "flax", {"eps": EPS, "momentum": 0.8}, "flax"),
    "nnx": (lambda: FILES / "nnx.npz", "nnx", {"eps": EPS, "momentum": 0.8}, "nnx"),
    "nnx, msgpack": (lambda: FILES / "nnx.msgpack", "nnx", {"eps": EPS, "momentum": 0.8}, "nnx"),
    "haiku": (haiku_pair, "haiku", {"eps": EPS, "momentum": 0.8}, "haiku"),
    "onnx": (lambda: FILES / "torch.onnx", "onnx", {}, "torch"),
    "torch": (lambda: FILES / "torch.safetensors", "torch", {"eps": EPS, "momentum": MOMENTUM}, "torch"),
    "paddle": (lambda: FILES / "paddle.npz", "paddle", {"eps": EPS, "momentum": 0.8}, "paddle"),
    "mxnet": (lambda: FILES / "mxnet.npz", "mxnet", {"eps": EPS, "momentum": 0.8}, "mxnet"),
    "mindspore": (lambda: FILES / "mindspore.npz", "mindspore", {"eps": EPS, "momentum": 0.8}, "mindspore"),
}


def states_of(name: str) -> port.Norms:
    source, framework, settings, _ = SOURCES[name]
    return port.norms(source(), framework, **settings)
