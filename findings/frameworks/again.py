"""Ask the batch norms of the frameworks again, with code that was written from their documentation alone.

The answers in ``data/frameworks.json`` come from the adapters beside this file. A fault of an adapter would look like
a property of its framework, so this file asks the same questions with code that shares nothing with the adapters.
``tests/unit/test_frameworks_again.py`` compares the two results.

    python findings/frameworks/again.py NAME            asks one framework, with the packages of this Python
    python findings/frameworks/again.py                 installs and asks all, one after another: writes again.json
    python findings/frameworks/again.py --in FOLDER     uses the environments in FOLDER, and keeps those it makes there

There is one function per framework. It makes a layer with the framework's defaults and trains it on batches, arrays of
shape (N, C), or (4, 4, 4, 4), where every axis can be the channels. It returns the running mean and variance before
the first batch, the output for the last batch in training mode, the running mean and variance after it, and the
output for the last batch at inference.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
RESULT = HERE / "again.json"
TEN = np.array([[9.0], [11.0], [9.0], [11.0]], np.float32)
"""Mean 10; variance 1 if the sum is divided by 4, and 4/3 if it is divided by 3."""


def torch(batches):
    """torch.nn.BatchNorm1d and BatchNorm2d."""
    import torch

    norm = torch.nn.BatchNorm2d if batches[0].ndim == 4 else torch.nn.BatchNorm1d
    layer = norm(batches[0].shape[1])
    start = layer.running_mean.tolist(), layer.running_var.tolist()
    for batch in batches:
        trained = layer(torch.from_numpy(batch)).detach().numpy()
    end = layer.running_mean.tolist(), layer.running_var.tolist()
    return start, trained, end, layer.eval()(torch.from_numpy(batches[-1])).detach().numpy()


def keras(batches):
    """keras.layers.BatchNormalization on the backend of KERAS_BACKEND."""
    import keras

    array = keras.ops.convert_to_numpy
    layer = keras.layers.BatchNormalization()
    layer.build(batches[0].shape)
    start = array(layer.moving_mean).tolist(), array(layer.moving_variance).tolist()
    for batch in batches:
        trained = array(layer(batch, training=True))
    end = array(layer.moving_mean).tolist(), array(layer.moving_variance).tolist()
    return start, trained, end, array(layer(batches[-1], training=False))


def flax_linen(batches):
    """flax.linen.BatchNorm."""
    import flax.linen as nn
    import jax

    layer = nn.BatchNorm()
    variables = layer.init(jax.random.key(0), batches[0], use_running_average=False)
    params, statistics = variables["params"], variables["batch_stats"]
    start = statistics["mean"], statistics["var"]
    for batch in batches:
        trained, changed = layer.apply(
            {"params": params, "batch_stats": statistics}, batch, use_running_average=False, mutable=["batch_stats"]
        )
        statistics = changed["batch_stats"]
    variables = {"params": params, "batch_stats": statistics}
    at_inference = layer.apply(variables, batches[-1], use_running_average=True)
    return start, trained, (statistics["mean"], statistics["var"]), at_inference


def flax_nnx(batches):
    """flax.nnx.BatchNorm."""
    from flax import nnx

    layer = nnx.BatchNorm(batches[0].shape[-1], rngs=nnx.Rngs(0))
    start = layer.mean[...], layer.var[...]
    layer.train()
    for batch in batches:
        trained = layer(batch)
    layer.eval()
    return start, trained, (layer.mean[...], layer.var[...]), layer(batches[-1])


def equinox(batches, mode):
    """equinox.nn.BatchNorm, which sees one sample and takes the batch from the axis of vmap."""
    import equinox
    import jax

    layer, state = equinox.nn.make_with_state(equinox.nn.BatchNorm)(batches[0].shape[1], axis_name="batch", mode=mode)
    index = layer.batch_state_index if mode == "batch" else layer.ema_state_index
    start = state.get(index)
    for batch in batches:
        trained, state = jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(batch, state)
    inference = equinox.nn.inference_mode(layer)
    at_inference, _ = jax.vmap(inference, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(batches[-1], state)
    return start, trained, state.get(index), at_inference


def haiku(batches):
    """haiku.BatchNorm. It has no default for decay_rate; 0.9 is the value in Haiku's own residual networks."""
    import haiku
    import jax

    def network(x, is_training):
        return haiku.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.9)(x, is_training)

    def averages(state):
        return state["batch_norm/~/mean_ema"]["average"], state["batch_norm/~/var_ema"]["average"]

    layer = haiku.transform_with_state(network)
    params, state = layer.init(jax.random.key(0), batches[0], True)
    start = averages(state)
    for batch in batches:
        trained, state = layer.apply(params, state, None, batch, True)
    return start, trained, averages(state), layer.apply(params, state, None, batches[-1], False)[0]


def mlx(batches):
    """mlx.nn.BatchNorm."""
    import mlx.core as mx
    import mlx.nn

    layer = mlx.nn.BatchNorm(batches[0].shape[-1])
    start = layer.running_mean.tolist(), layer.running_var.tolist()
    layer.train()
    for batch in batches:
        trained = layer(mx.array(batch))
        mx.eval(trained, layer.state)
    end = layer.running_mean.tolist(), layer.running_var.tolist()
    layer.eval()
    return start, np.array(trained), end, np.array(layer(mx.array(batches[-1])))


def paddle(batches):
    """paddle.nn.BatchNorm1D and BatchNorm2D."""
    import paddle

    norm = paddle.nn.BatchNorm2D if batches[0].ndim == 4 else paddle.nn.BatchNorm1D
    layer = norm(batches[0].shape[1])
    statistics = layer.state_dict()
    start = statistics["_mean"].tolist(), statistics["_variance"].tolist()
    layer.train()
    for batch in batches:
        trained = layer(paddle.to_tensor(batch)).numpy()
    end = statistics["_mean"].tolist(), statistics["_variance"].tolist()
    layer.eval()
    return start, trained, end, layer(paddle.to_tensor(batches[-1])).numpy()


def mindspore(batches):
    """mindspore.nn.BatchNorm1d and BatchNorm2d in the default mode."""
    import mindspore

    mindspore.set_device("CPU")
    norm = mindspore.nn.BatchNorm2d if batches[0].ndim == 4 else mindspore.nn.BatchNorm1d
    layer = norm(batches[0].shape[1])
    start = layer.moving_mean.asnumpy().tolist(), layer.moving_variance.asnumpy().tolist()
    layer.set_train(True)
    for batch in batches:
        trained = layer(mindspore.Tensor(batch)).asnumpy()
    end = layer.moving_mean.asnumpy().tolist(), layer.moving_variance.asnumpy().tolist()
    layer.set_train(False)
    return start, trained, end, layer(mindspore.Tensor(batches[-1])).asnumpy()


def tinygrad(batches):
    """tinygrad.nn.BatchNorm."""
    from tinygrad import Context, Tensor
    from tinygrad.nn import BatchNorm

    layer = BatchNorm(batches[0].shape[1])
    start = layer.running_mean.tolist(), layer.running_var.tolist()
    with Context(TRAINING=1):
        for batch in batches:
            trained = layer(Tensor(batch)).numpy()
            Tensor.realize(layer.running_mean, layer.running_var)
    end = layer.running_mean.tolist(), layer.running_var.tolist()
    return start, trained, end, layer(Tensor(batches[-1])).numpy()


def onnx(batches, engine):
    """ONNX's operator BatchNormalization. Scale 1, bias 0, mean 0 and variance 1 are inputs: ours, not defaults."""
    import onnx.reference

    def model(names, **attributes):
        node = onnx.helper.make_node("BatchNormalization", ["x", *"sbmv"], names, **attributes)
        channels = ["C"]
        shape = ["N", "C", "H", "W"][: batches[0].ndim]
        number = onnx.TensorProto.FLOAT
        inputs = [onnx.helper.make_tensor_value_info(each, number, channels) for each in "sbmv"]
        outputs = [onnx.helper.make_tensor_value_info(each, number, channels) for each in names[1:]]
        x, y = (onnx.helper.make_tensor_value_info(each, number, shape) for each in "xy")
        graph = onnx.helper.make_graph([node], "norm", [x, *inputs], [y, *outputs])
        opset = onnx.helper.make_opsetid("", 15)
        return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)

    def session(made):
        onnx.checker.check_model(made)
        if engine == "reference":
            return onnx.reference.ReferenceEvaluator(made)
        import onnxruntime

        return onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])

    zero, one = np.zeros(batches[0].shape[1], np.float32), np.ones(batches[0].shape[1], np.float32)
    mean, variance = zero, one
    training = session(model(["y", "new_mean", "new_variance"], training_mode=1))
    for batch in batches:
        inputs = {"x": batch, "s": one, "b": zero, "m": mean, "v": variance}
        trained, mean, variance = training.run(None, inputs)
    inputs = {"x": batches[-1], "s": one, "b": zero, "m": mean, "v": variance}
    (at_inference,) = session(model(["y"])).run(None, inputs)
    return (zero, one), trained, (mean, variance), at_inference


FRAMEWORKS = {
    "torch": torch,
    "keras-jax": keras,
    "keras-torch": keras,
    "flax-linen": flax_linen,
    "flax-nnx": flax_nnx,
    "equinox-batch": lambda batches: equinox(batches, "batch"),
    "equinox-ema": lambda batches: equinox(batches, "ema"),
    "haiku": haiku,
    "mlx": mlx,
    "paddle": paddle,
    "mindspore": mindspore,
    "tinygrad": tinygrad,
    "onnxruntime": lambda batches: onnx(batches, "onnxruntime"),
    "onnx-reference": lambda batches: onnx(batches, "reference"),
}


def answers(framework):
    """Return the answers of one framework; a question that it refuses is answered by the type of its error."""

    def asked(question):
        try:
            return question()
        except Exception as error:
            print(f"{question.__name__}: {type(error).__name__}: {error}", file=sys.stderr)
            return f"raises {type(error).__name__}"

    def epsilon():
        """From y² = variance / (variance + eps); two variances must agree, or eps is somewhere else."""
        found = []
        for size in (1e-3, 4e-3):
            output = np.max(framework([np.array([[-size], [size]] * 8, np.float32)])[1])
            found.append(size**2 / float(output) ** 2 - size**2)
        return digits(found[0]) if np.isclose(*found, rtol=0.01) else f"not in the square root: {found}"

    def start():
        return [digits(each) for each in framework([TEN])[0]]

    def mean_after():
        return [digits(framework([TEN] * steps)[2][0]) for steps in (1, 10)]

    def variance_after():
        return [digits(framework([TEN] * steps)[2][1]) for steps in (1, 10)]

    @functools.cache
    def after_many():
        return framework([TEN] * 1500 + [TEN + 100])[2]

    def newest():
        """The running mean is 10 after 1,500 batches; a batch of mean 110 then adds 100 times the weight."""
        return digits((np.ravel(after_many()[0])[0] - 10) / 100)

    def stored():
        variance = digits(after_many()[1])
        return {1.0: "biased", 1.333: "unbiased"}.get(variance, f"neither: {variance}")

    def at_inference():
        return digits(np.ravel(framework([TEN])[3])[1])

    def normalises_with():
        """After 200 batches of mean 0, the value 11 in a batch of mean 10 comes out as 1 if the batch is used."""
        output = digits(np.ravel(framework([TEN - 10] * 200 + [TEN])[1])[1])
        return "the batch" if abs(output - 1) < 1e-2 else f"the running averages: {output:.4g} in place of 1"

    def one_value():
        _, trained, statistics, _ = framework([np.array([[5.0]], np.float32)])
        return {"output": [digits(trained)], "statistics": [digits(each) for each in statistics]}

    def not_a_number():
        clean = np.repeat(TEN, 2, axis=1)
        bad = clean.copy()
        bad[0, 0] = np.nan
        _, trained, statistics, _ = framework([bad])
        later = framework([bad, clean])[2]
        return {
            "output": where_nan(trained),
            "statistics": where_nan(statistics),
            "after a clean batch": where_nan(later),
        }

    def offset():
        return digits(np.max(np.abs(framework([np.array([[9_999.0], [10_001.0]] * 32, np.float32)])[1])))

    def axis():
        """The axis of the channels is the one along which each output has mean 0."""
        x = np.random.default_rng(0).normal(size=(4, 4, 4, 4)).astype(np.float32)
        output = np.asarray(framework([x])[1])
        means = {axis: np.abs(np.moveaxis(output, axis, 0).reshape(4, -1).mean(1)).max() for axis in (1, 2, 3)}
        return [axis for axis in means if means[axis] < 1e-5]

    questions = {
        "eps": epsilon,
        "weight of the new batch": newest,
        "running statistics at the start": start,
        "running mean after 1 and 10 steps": mean_after,
        "running variance after 1 and 10 steps": variance_after,
        "variance that is stored": stored,
        "output at inference after 1 step": at_inference,
        "training mode normalises with": normalises_with,
        "one value per channel": one_value,
        "NaN in one channel": not_a_number,
        "offset of 10,000": offset,
        "axis of the channels in four dimensions": axis,
    }
    return {name: asked(question) for name, question in questions.items()}


def digits(values):
    """Round the first value to four digits; JSON has no NaN and no infinity, so these become text."""
    value = float(np.ravel(values)[0])
    return float(f"{value:.4g}") if np.isfinite(value) else str(value)


def where_nan(values):
    """Say which of two channels, the last axis, has a NaN; the first channel is the one that was given it."""
    first, second = np.isnan(np.reshape(np.asarray(values), (-1, 2))).any(0).tolist()
    return {(True, True): "both", (True, False): "that one", (False, True): "the other", (False, False): "none"}[
        first, second
    ]


def ask(name):
    """Return versions, date and answers of a framework whose packages this Python has."""
    packages = [re.split(r"[\[=]", each)[0] for each in listed()[name]["packages"]]
    return {
        "versions": {package: importlib.metadata.version(package) for package in packages},
        "date": datetime.date.today().isoformat(),
        "answers": answers(FRAMEWORKS[name]),
    }


def listed():
    """Return names, packages and settings of the frameworks."""
    return tomllib.loads((HERE / "frameworks.toml").read_text())


def ask_in_environment(name, folder):
    """Ask a framework in an environment of its own, which is made unless it exists."""
    python = folder / name / "bin" / "python"
    if not python.exists():
        venv.create(folder / name, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *listed()[name]["packages"]], check=True)
    settings = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", **listed()[name].get("environment", {})}
    command = [python, __file__, name]
    ran = subprocess.run(command, env=os.environ | settings, stdout=subprocess.PIPE, check=True)
    return json.loads(ran.stdout[ran.stdout.index(b"{") :])


def main():
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=FRAMEWORKS, help="a framework whose packages are installed")
    parser.add_argument("--in", dest="folder", type=Path, help="folder of the environments, one per framework")
    chosen = parser.parse_args()
    if chosen.name:
        json.dump(ask(chosen.name), sys.stdout, indent=1)
        return
    found = {}
    for name in FRAMEWORKS:
        print(name, file=sys.stderr)
        with tempfile.TemporaryDirectory() as temporary:
            found[name] = ask_in_environment(name, chosen.folder or Path(temporary))
    RESULT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
