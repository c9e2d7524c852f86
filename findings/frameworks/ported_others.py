"""Carry one batch norm from PyTorch to each framework that ``ported_networks.py`` leaves out, and back.

Each runs in an environment of its own, in which PyTorch is installed as well.

    python ported_others.py                measures and writes the rows "layers" of data/ported_networks.json
    python ported_others.py --keep FOLDER  uses the environments in the folder, and keeps them there
    python ported_others.py NAME           one framework, with the packages of this Python

The numbers are those of ``ported_layers.py``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULT = HERE.parents[1] / "data" / "ported_networks.json"


class Layer:
    """A framework's layer with the state of one of PyTorch's: training, inference, and its arrays by name."""

    def __init__(self, name: str, written, channels: int) -> None:
        self.adapter = importlib.import_module(f"{name}_adapter")
        self.outer = self.adapter.Layer(channels)
        self.outer.norm = MAKERS[name](self.adapter, channels, written.arguments)
        self.name, self.names = name, list(written.arrays)
        SETTERS[name](self.adapter, self.outer.norm, written.arrays)

    def train(self, x):
        """Take one step in training mode."""
        return self.outer.train(x)

    def evaluate(self, x):
        """Return the output at inference."""
        return self.outer.evaluate(x)

    def arrays(self) -> dict:
        """Return the arrays as NumPy arrays."""
        import numpy as np

        def plain(value):
            for word in ("data", "asnumpy", "numpy"):
                value = getattr(value, word)() if callable(getattr(value, word, None)) else value
            return np.array(getattr(value, "array", value))

        norm = self.outer.norm
        named = {each.name: each for each in norm.get_parameters()} if self.name == "mindspore" else {}
        found = {name: named[name] if named else getattr(norm, name) for name in self.names}
        return {name: plain(value) for name, value in found.items() if name != "num_batches_tracked"}


def _initialised(adapter, channels, arguments):
    norm = adapter.nn.BatchNorm(in_channels=channels, **arguments)
    norm.initialize()
    return norm


MAKERS = {
    "mlx": lambda adapter, channels, arguments: adapter.nn.BatchNorm(channels, **arguments),
    "paddle": lambda adapter, channels, arguments: adapter.nn.BatchNorm1D(channels, **arguments),
    "mindspore": lambda adapter, channels, arguments: adapter.nn.BatchNorm1d(channels, **arguments),
    "tinygrad": lambda adapter, channels, arguments: adapter.nn.BatchNorm(channels, **arguments),
    "mxnet": _initialised,
    "chainer": lambda adapter, channels, arguments: adapter.links.BatchNormalization(channels, **arguments),
}


def _set_mlx(adapter, norm, arrays):
    for name, value in arrays.items():
        setattr(norm, name, adapter.mx.array(value))


def _set_paddle(adapter, norm, arrays):
    norm.set_state_dict({name: adapter.paddle.to_tensor(value) for name, value in arrays.items()})


def _set_mindspore(adapter, norm, arrays):
    import mindspore

    for each in norm.get_parameters():
        each.set_data(mindspore.Tensor(arrays[each.name]))


def _set_tinygrad(adapter, norm, arrays):
    from tinygrad import Tensor
    from tinygrad.nn.state import load_state_dict

    load_state_dict(norm, {name: Tensor(value) for name, value in arrays.items()}, strict=False, verbose=False)


def _set_mxnet(adapter, norm, arrays):
    for name, value in arrays.items():
        getattr(norm, name).set_data(adapter.mx.nd.array(value))


def _set_chainer(adapter, norm, arrays):
    for name, value in arrays.items():
        getattr(getattr(norm, name), "array", getattr(norm, name))[...] = value


SETTERS = {
    "mlx": _set_mlx,
    "paddle": _set_paddle,
    "mindspore": _set_mindspore,
    "tinygrad": _set_tinygrad,
    "mxnet": _set_mxnet,
    "chainer": _set_chainer,
}


def carried(name: str) -> dict[str, float]:
    """Carry a layer there and back, in this Python."""
    sys.path.insert(0, str(HERE.parents[1]))
    import ported_layers

    from bnlib import port
    from bnlib.port.conventions import convention

    own = convention(name)

    def made(framework, layer):
        return Layer(framework, port.write(port.read(layer, "torch"), framework), ported_layers.CHANNELS)

    def settings(framework, layer):
        return {"eps": layer.eps, "momentum": own.momentum_for(layer.momentum)}

    ported_layers.made, ported_layers.settings = made, settings
    ported_layers.source = lambda framework, there: there.arrays()
    return {key: float(f"{value:.4g}") for key, value in ported_layers.carried(name).items()}


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=list(MAKERS))
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    chosen = parser.parse_args()
    if chosen.name:
        print(json.dumps(carried(chosen.name)))
        return
    import measure

    listed = tomllib.loads((HERE / "frameworks.toml").read_text())
    torch = [each for each in listed["torch"]["packages"] if each.startswith("torch")]
    with tempfile.TemporaryDirectory() as temporary:
        for name in MAKERS:
            framework = listed[name] | {"packages": [*listed[name]["packages"], *torch]}
            python = measure.environment((chosen.keep or Path(temporary)).resolve(), framework, True)
            settings = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **framework.get("environment", {})}
            ran = subprocess.run([python, __file__, name], env=settings, stdout=subprocess.PIPE, check=True)
            result = json.loads(RESULT.read_text())
            result["layers"][name] = json.loads(ran.stdout.splitlines()[-1])
            print(name, result["layers"][name])
            RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
