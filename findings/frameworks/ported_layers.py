"""Carry one batch norm from PyTorch to each framework and back with ``bnlib.port``, and compare outputs and statistics.

``ported_networks.py`` calls ``carried``. A layer of PyTorch is trained, written to the framework, trained there, read
back, and both take one more batch. ``outputs there`` and ``outputs here`` are the largest differences of outputs at
inference, and ``statistics`` that of the running statistics after the last batch, all relative to the largest value.
"""

from __future__ import annotations

import importlib
import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ["EQUINOX_MODE"] = "batch"

import numpy as np
import torch
from torch import nn

import bnlib
from bnlib import port

CHANNELS, SIZE, BATCHES = 5, 16, 100
ADAPTERS = {
    "keras": "keras_adapter",
    "flax": "flax_linen_adapter",
    "nnx": "flax_nnx_adapter",
    "equinox": "equinox_adapter",
    "haiku": "haiku_adapter",
    "onnx": "onnx_adapter",
}
FIXED = {"haiku": {"momentum": 0.9}, "onnx": {}}
"""Adapters that make layers with eps=1e-5 and momentum=0.9 only, and what must be said to read them."""


def batches(count: int, seed: int) -> list[np.ndarray]:
    """Return batches of values whose channels have different means and variances."""
    generator = np.random.default_rng(seed)
    scale = np.logspace(-2, 1, CHANNELS)
    return [(generator.normal(size=(SIZE, CHANNELS)) * scale + scale).astype(np.float32) for _ in range(count)]


def trained_layer(framework: str) -> nn.Module:
    """Return a layer of PyTorch with statistics, gamma and beta of its own."""
    settings = {"eps": 1e-5, "momentum": 0.1} if framework in FIXED else {"eps": 1e-2, "momentum": 0.2}
    layer = nn.BatchNorm1d(CHANNELS, **settings)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(0.5, 2, CHANNELS))
        layer.bias.copy_(torch.linspace(-1, 1, CHANNELS))
        for x in batches(100, seed=0):
            layer(torch.from_numpy(x))
    return layer.eval()


def made(framework: str, layer: nn.Module):
    """Return the framework's layer with the state of PyTorch's."""
    adapter = importlib.import_module(ADAPTERS[framework])
    written = port.write(port.read(layer, "torch"), framework)
    there = adapter.Layer(CHANNELS)
    if framework == "keras":
        there.norm = adapter.keras.layers.BatchNormalization(**written.arguments)
        there.norm.build((None, CHANNELS))
        there.norm.set_weights(list(written.arrays.values()))
    elif framework == "flax":
        there = adapter.Layer(CHANNELS, **written.arguments)
        there.variables = written.arrays
    elif framework == "nnx":
        there = adapter.Layer(CHANNELS, **written.arguments)
        state = adapter.nnx.state(there.norm)
        adapter.nnx.update(there.norm, port.write(port.read(layer, "torch"), "nnx", into=state).arrays)
    elif framework == "equinox":
        there = adapter.Layer(CHANNELS, eps=layer.eps, momentum=written.arguments["momentum"])
        whole = (there.norm, there.state)
        there.norm, there.state = port.write(port.read(layer, "torch"), "equinox", into=whole).arrays
    elif framework == "haiku":
        whole = (there.parameters, there.state)
        there.parameters, there.state = port.write(port.read(layer, "torch"), "haiku", into=whole).arrays
    else:
        there.state = dict(zip(("scale", "bias", "mean", "variance"), written.arrays.values(), strict=True))
    return there


def source(framework: str, there):
    """Return what ``port.read`` takes."""
    if framework == "haiku":
        return there.parameters, there.state
    if framework == "equinox":
        return there.norm, there.state
    if framework == "onnx":
        return list(there.state.values())
    return there.variables if framework == "flax" else there.norm


def settings(framework: str, layer: nn.Module) -> dict[str, float]:
    """Return what must be said to read the layer, because its source does not hold it."""
    if framework == "flax":
        return {"eps": layer.eps, "momentum": 1 - layer.momentum}
    return FIXED.get(framework, {})


def difference(first, second) -> float:
    """Return the largest difference, relative to the largest value."""
    first, second = (np.asarray(each, np.float64) for each in (first, second))
    return float(np.abs(first - second).max() / np.abs(first).max())


def carried(framework: str) -> dict[str, float]:
    """Carry a layer there and back; see the module."""
    here = trained_layer(framework)
    there, (test, last) = made(framework, here), batches(2, seed=1)
    outputs_there = difference(here(torch.from_numpy(test)).detach(), there.evaluate(test))
    for x in batches(BATCHES, seed=2):
        there.train(x)
    given = settings(framework, here)
    back = bnlib.BatchNorm(CHANNELS)
    port.load(back, port.read(source(framework, there), framework, **given))
    outputs_here = difference(there.evaluate(test), back.eval()(torch.from_numpy(test)).detach())
    port.load(back, port.read(source(framework, there), framework, **given), values_per_channel=SIZE)
    there.train(last)
    back.train()(torch.from_numpy(last))
    after = port.read(source(framework, there), framework, **given)
    ours = port.read(back, "torch").with_variance(after.variance, SIZE)
    parts = [difference(getattr(after, part), getattr(ours, part)) for part in ("running_mean", "running_var")]
    return {"outputs there": outputs_there, "outputs here": outputs_here, "statistics": max(parts)}
