"""Write the files that ``tests/unit/port/`` reads, each by its framework: two batch norms in a row, with their answers.

    PYTHONPATH=../.. python port_files.py    in the environment of ported_networks.py

Beside a file stands ``NAME_answers.npz`` with an input ``x``, the framework's output ``y`` at inference, one more batch
``last``, and the running statistics after it, and ``versions.json`` says which versions wrote the files.
"""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import haiku as hk
import jax
import jax.numpy as jnp
import keras
import numpy as np
import onnx
import torch
from flax import linen, nnx, serialization
from safetensors.torch import save_file
from torch import nn

FILES = Path(__file__).parents[2] / "tests" / "unit" / "port" / "files"
CHANNELS, SIZE, BATCHES = 3, 8, 6
WRITERS = ("torch", "keras", "flax", "dm-haiku", "jax", "onnxscript", "safetensors", "h5py")


def batches() -> list[np.ndarray]:
    """Return batches whose channels have standard deviations of 0.05, 0.5 and 5."""
    generator = np.random.default_rng(0)
    scale = np.array([0.05, 0.5, 5.0])
    return [(generator.normal(1, 1, (SIZE, CHANNELS)) * scale).astype(np.float32) for _ in range(BATCHES + 2)]


def write_answers(name: str, evaluate, train, statistics) -> None:
    """Store the framework's output for the last batch but one, and its statistics after the last one."""
    x, last = batches()[-2:]
    y = np.asarray(evaluate(x))
    train(last)
    arrays = {f"after_{i}": np.ravel(each) for i, each in enumerate(statistics())}
    np.savez(FILES / f"{name}_answers.npz", x=x, y=y, last=last, **arrays)


def write_keras() -> None:
    """A layer with settings of its own, and inside a second model one without gamma."""
    first = keras.layers.BatchNormalization(momentum=0.8, epsilon=2e-3, name="first")
    second = keras.layers.BatchNormalization(scale=False, momentum=0.8, epsilon=2e-3, name="second")
    model = keras.Sequential([keras.Input((CHANNELS,)), first, keras.Sequential([second], name="inner")])
    first.gamma.assign([0.5, 1.0, 2.0])
    second.beta.assign([1.0, 0.0, -1.0])
    for x in batches()[:BATCHES]:
        model(x, training=True)
    model.save(FILES / "keras.keras")

    def statistics():
        return [each.numpy() for layer in (first, second) for each in (layer.moving_mean, layer.moving_variance)]

    write_answers("keras", lambda x: model(x, training=False), lambda x: model(x, training=True), statistics)


class _Linen(linen.Module):
    """Two layers with the same settings."""

    @linen.compact
    def __call__(self, x, train):
        """Normalise twice."""
        for _ in range(2):
            x = linen.BatchNorm(use_running_average=not train, momentum=0.8, epsilon=2e-3)(x)
        return x


def write_flax() -> None:
    """Variables of flax.linen, under the names that Flax gives them, as an ``.npz`` of paths and as msgpack."""
    model = _Linen()
    variables = model.init(jax.random.key(0), jnp.zeros((1, CHANNELS)), False)
    variables["params"]["BatchNorm_0"]["scale"] = jnp.array([0.5, 1.0, 2.0])

    def train(x):
        variables.update(model.apply(variables, x, True, mutable=["batch_stats"])[1])

    for x in batches()[:BATCHES]:
        train(x)
    (FILES / "flax.msgpack").write_bytes(serialization.to_bytes(variables))
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    np.savez(FILES / "flax.npz", **{jax.tree_util.keystr(path, simple=True, separator="/"): a for path, a in leaves})

    def statistics():
        return [variables["batch_stats"][f"BatchNorm_{i}"][part] for i in (0, 1) for part in ("mean", "var")]

    write_answers("flax", lambda x: model.apply(variables, x, False), train, statistics)


def write_nnx() -> None:
    """The state of two layers of flax.nnx, the second without beta, as an ``.npz`` of paths and as msgpack."""
    settings = {"momentum": 0.8, "epsilon": 2e-3, "rngs": nnx.Rngs(0)}
    model = nnx.List([nnx.BatchNorm(CHANNELS, **settings), nnx.BatchNorm(CHANNELS, use_bias=False, **settings)])

    def call(x, average):
        x = jnp.asarray(x)
        for layer in model:
            x = layer(x, use_running_average=average)
        return x

    for x in batches()[:BATCHES]:
        call(x, False)
    pure = nnx.to_pure_dict(nnx.state(model))
    (FILES / "nnx.msgpack").write_bytes(serialization.to_bytes(pure))
    leaves = jax.tree_util.tree_leaves_with_path(pure)
    np.savez(FILES / "nnx.npz", **{jax.tree_util.keystr(path, simple=True, separator="/"): a for path, a in leaves})

    def statistics():
        return [each.get_value() for layer in model for each in (layer.mean, layer.var)]

    write_answers("nnx", lambda x: call(x, True), lambda x: call(x, False), statistics)


def write_haiku() -> None:
    """Parameters and state of Haiku, with ``|`` between the keys, because Haiku's own names have slashes."""

    def two(x, train):
        for _ in range(2):
            x = hk.BatchNorm(True, True, decay_rate=0.8, eps=2e-3)(x, train)
        return x

    model = hk.transform_with_state(two)
    trees = dict(zip((0, 1), model.init(jax.random.key(0), jnp.zeros((1, CHANNELS)), True), strict=True))

    def train(x):
        trees[1] = model.apply(*trees.values(), None, x, True)[1]

    for x in batches()[:BATCHES]:
        train(x)
    flat = {
        f"{i}|{name}|{leaf}": a for i, tree in trees.items() for name, each in tree.items() for leaf, a in each.items()
    }
    np.savez(FILES / "haiku.npz", **flat)

    def statistics():
        names = ("batch_norm", "batch_norm_1")
        return [trees[1][f"{name}/~/{part}_ema"]["average"] for name in names for part in ("mean", "var")]

    write_answers("haiku", lambda x: model.apply(*trees.values(), None, x, False)[0], train, statistics)


def write_torch() -> None:
    """One network of PyTorch, exported to ONNX and saved as safetensors."""
    model = nn.Sequential(*(nn.BatchNorm1d(CHANNELS, momentum=0.2, eps=2e-3) for _ in range(2)))

    def train(x):
        model.train()(torch.from_numpy(x))

    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        for x in batches()[:BATCHES]:
            train(x)
    model.eval()
    save_file(model.state_dict(), FILES / "torch.safetensors")
    program = torch.onnx.export(model, (torch.zeros(2, CHANNELS),), dynamo=True, optimize=False)
    graph = program.model_proto
    for each in (
        graph,
        graph.graph,
        *graph.graph.node,
        *graph.graph.value_info,
        *graph.graph.input,
        *graph.graph.output,
    ):
        del each.metadata_props[:]  # stack traces with the paths of this machine
    onnx.save(graph, FILES / "torch.onnx")

    def statistics():
        return [each.numpy() for layer in model for each in (layer.running_mean, layer.running_var)]

    write_answers("torch", lambda x: model.eval()(torch.from_numpy(x)).detach(), train, statistics)


def main() -> None:
    """Write all files."""
    FILES.mkdir(exist_ok=True, parents=True)
    for write in (write_keras, write_flax, write_nnx, write_haiku, write_torch):
        write()
    versions = {name: version(name) for name in WRITERS}
    (FILES / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")


if __name__ == "__main__":
    main()
