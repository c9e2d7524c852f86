"""The types of outputs and running statistics in half precision; ``again.py`` asks for them.

Written from the documentation of the frameworks, without a look at the adapters of the first script. A function trains
a new layer for one step in the situation that it is given, and returns the type of the output and of the running
statistics. A situation in which it cannot is answered by the type of the error.
"""

from __future__ import annotations

import contextlib

import again_more
import numpy as np

TEN = np.array([[9.0], [11.0], [9.0], [11.0]], np.float32)


def torch(situation):
    """PyTorch: ``Module.bfloat16`` casts parameters and buffers; autocast chooses the type of each operation."""
    import torch

    layer = torch.nn.BatchNorm1d(num_features=1).train()
    x = torch.tensor(TEN, dtype=torch.float32 if "autocast" in situation else torch.bfloat16)
    if situation == "layer.bfloat16()":
        layer = layer.bfloat16()
    cast = torch.autocast(device_type="cpu", dtype=torch.bfloat16)
    with cast if "autocast" in situation else contextlib.nullcontext():
        y = layer(x)
    assert layer.running_var.dtype == layer.running_mean.dtype
    return y.dtype, layer.running_mean.dtype


def keras(situation):
    """Keras: ``dtype`` is a type or the name of a policy, such as mixed_bfloat16, and the layer casts its inputs."""
    import keras

    if situation.startswith("dtype="):
        layer = keras.layers.BatchNormalization(dtype=situation.partition("=")[2].strip("'"))
        x = keras.ops.convert_to_tensor(TEN, dtype="float32")
    else:
        layer = keras.layers.BatchNormalization()
        x = keras.ops.convert_to_tensor(TEN, dtype="bfloat16")
    y = layer(x, training=True)
    return keras.backend.standardize_dtype(y.dtype), keras.backend.standardize_dtype(layer.moving_variance.dtype)


def arguments_of_flax(situation):
    """Return the input and the arguments ``dtype`` (of the result) and ``param_dtype`` (of the parameters)."""
    import jax.numpy as jnp

    if situation == "input bfloat16":
        return jnp.asarray(TEN, jnp.bfloat16), {}
    return jnp.asarray(TEN), {each.partition("=")[0]: jnp.bfloat16 for each in situation.split(", ")}


def flax_linen(situation):
    """flax.linen: initialised with a float32 input, then one step."""
    import flax.linen as nn
    import jax

    x, arguments = arguments_of_flax(situation)
    layer = nn.BatchNorm(use_running_average=False, **arguments)
    variables = layer.init(jax.random.key(1), TEN)
    y, changed = layer.apply(variables, x, mutable=["batch_stats"])
    return y.dtype, changed["batch_stats"]["var"].dtype


def flax_nnx(situation):
    """flax.nnx: the layer has its statistics from the start."""
    from flax import nnx

    x, arguments = arguments_of_flax(situation)
    layer = nnx.BatchNorm(1, use_running_average=False, rngs=nnx.Rngs(1), **arguments)
    y = layer(x)
    return y.dtype, nnx.state(layer, nnx.BatchStat)["var"][...].dtype


def equinox(situation, mode):
    """Equinox: ``dtype`` is that of the running statistics, the weight and the bias."""
    import equinox
    import jax
    import jax.numpy as jnp

    arguments = {"dtype": jnp.bfloat16} if situation.startswith("dtype") else {}
    make = equinox.nn.make_with_state(equinox.nn.BatchNorm)
    layer, state = make(input_size=1, axis_name="samples", mode=mode, **arguments)
    step = jax.vmap(layer, axis_name="samples", in_axes=(0, None), out_axes=(0, None))
    y, state = step(jnp.asarray(TEN, jnp.bfloat16), state)
    kept = {leaf.dtype for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)}
    (kept,) = kept
    return y.dtype, kept


def haiku(situation):
    """Haiku: the parameters and averages are made by ``init``; a policy casts inputs, parameters and outputs."""
    import haiku
    import jax
    import jax.numpy as jnp
    import jmp

    full, half = jnp.asarray(TEN), jnp.asarray(TEN, jnp.bfloat16)
    first, then = {"input bfloat16": (full, half), "init and input bfloat16": (half, half)}.get(situation, (full, full))
    if situation.startswith("policy"):
        policy = jmp.Policy(param_dtype=jnp.float32, compute_dtype=jnp.bfloat16, output_dtype=jnp.bfloat16)
        haiku.mixed_precision.set_policy(haiku.BatchNorm, policy)
    try:
        net = haiku.transform_with_state(
            lambda x: haiku.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.9)(x, is_training=True)
        )
        params, state = net.init(jax.random.key(1), first)
        y, state = net.apply(params, state, None, then)
    finally:
        haiku.mixed_precision.clear_policy(haiku.BatchNorm)
    return y.dtype, next(values["average"].dtype for name, values in state.items() if name.endswith("var_ema"))


def mlx(situation):
    """MLX: ``Module.set_dtype`` casts the parameters of a module."""
    import mlx.core as mx
    import mlx.nn

    layer = mlx.nn.BatchNorm(num_features=1).train()
    if situation == "set_dtype":
        layer.set_dtype(mx.bfloat16)
    y = layer(mx.array(TEN, dtype=mx.bfloat16))
    mx.eval(y)
    return y.dtype, layer.running_var.dtype


def paddle(situation):
    """PaddlePaddle: ``auto_cast`` chooses the type of each operation, ``Layer.to`` casts parameters and buffers."""
    import paddle

    layer = paddle.nn.BatchNorm1D(num_features=1)
    x = paddle.to_tensor(TEN, dtype="float32" if situation.startswith("auto_cast") else "bfloat16")
    if situation.startswith("layer.to"):
        layer = layer.to(dtype="bfloat16")
    layer.train()
    with paddle.amp.auto_cast(enable=situation.startswith("auto_cast"), dtype="bfloat16"):
        y = layer(x)
    return y.dtype, layer.state_dict()["_variance"].dtype


def mindspore(situation):
    """MindSpore: ``Cell.to_float`` casts the inputs of a layer, its parameters included."""
    import mindspore

    mindspore.set_device("CPU")
    layer = mindspore.nn.BatchNorm1d(num_features=1)
    x = mindspore.Tensor(TEN, mindspore.float32 if situation.startswith("to_float") else mindspore.float16)
    if situation.startswith("to_float"):
        layer = layer.to_float(mindspore.float16)
    y = layer.set_train(True)(x)
    return y.dtype, layer.moving_variance.dtype


def tinygrad(situation):
    """tinygrad: the layer has no argument for a type, so only the input is in half precision."""
    from tinygrad import Context, Tensor, dtypes
    from tinygrad.nn import BatchNorm

    layer = BatchNorm(1)
    with Context(TRAINING=1):
        y = layer(Tensor(TEN).cast(dtypes.float16)).realize()
        layer.running_var.realize()
    return y.dtype, layer.running_var.dtype


def tfjs(situation):
    """TensorFlow.js: the documentation of ``tf.cast`` lists the types, and a layer has the option ``dtype``."""
    import again_layers

    said = again_layers.in_node({"half": situation, "batches": [TEN]})
    return said["types"]


def sonnet(situation):
    """Sonnet 2: variables are made when the module is connected for the first time, here by a bfloat16 input."""
    import sonnet
    import tensorflow

    layer = sonnet.BatchNorm(create_scale=True, create_offset=True)
    y = layer(tensorflow.cast(TEN, tensorflow.bfloat16), is_training=True)
    return y.dtype.name, layer.moving_variance.value.dtype.name


def onnx(situation, engine):
    """ONNX: the operator has types of their own for x, for scale and bias, and for the statistics."""
    import again_layers
    from onnx import TensorProto

    others = np.float16 if situation == "all float16" else np.float32
    number = {np.float16: TensorProto.FLOAT16, np.float32: TensorProto.FLOAT}
    outputs = ["y", "mean", "variance"]
    run = again_layers.onnx_session(engine, outputs, 2, TensorProto.FLOAT16, number[others], training_mode=1)
    zero, one = np.zeros(1, others), np.ones(1, others)
    y, _, variance = run({"x": TEN.astype(np.float16), "s": one, "b": zero, "m": zero, "v": one})
    return y.dtype, variance.dtype


KERAS = ("input bfloat16", "dtype='mixed_bfloat16'", "dtype='bfloat16'", "dtype='float16'")
FLAX = ("input bfloat16", "dtype=bfloat16", "dtype=bfloat16, param_dtype=bfloat16")
ONNX = ("all float16", "x float16, the others float32")
FRAMEWORKS = {
    "torch": (torch, ("input bfloat16", "float32 under autocast", "layer.bfloat16()")),
    "keras-jax": (keras, KERAS),
    "keras-torch": (keras, KERAS),
    "keras-tensorflow": (keras, KERAS),
    "tfjs": (tfjs, ("input float16", "dtype: 'float16'")),
    "sonnet": (sonnet, ("input bfloat16",)),
    "flax-linen": (flax_linen, FLAX),
    "flax-nnx": (flax_nnx, FLAX),
    "equinox-batch": (lambda situation: equinox(situation, "batch"), FLAX[:2]),
    "equinox-ema": (lambda situation: equinox(situation, "ema"), FLAX[:2]),
    "haiku": (haiku, ("input bfloat16", "init and input bfloat16", "policy that computes in bfloat16")),
    "mlx": (mlx, ("input bfloat16", "set_dtype")),
    "paddle": (paddle, ("input bfloat16", "auto_cast to bfloat16", "layer.to(dtype='bfloat16')")),
    "mindspore": (mindspore, ("input float16", "to_float(float16)")),
    "tinygrad": (tinygrad, ("input float16",)),
    "onnxruntime": (lambda situation: onnx(situation, "onnxruntime"), ONNX),
    "openvino": (lambda situation: onnx(situation, "openvino"), ONNX),
    "onnx-reference": (lambda situation: onnx(situation, "reference"), ONNX),
} | again_more.HALF


def answer(name):
    """Return the types by situation."""
    types, situations = FRAMEWORKS[name]
    found = {}
    for situation in situations:
        try:
            output, statistics = (bits(each) for each in types(situation))
        except Exception as error:
            found[situation] = f"raises {type(error).__name__}"
            continue
        found |= {f"{situation}: output": output, f"{situation}: statistics": statistics}
    return found


def bits(kind):
    """Return the name of a type in the words of NumPy, without the name of its package."""
    for name in ("bfloat16", "float16", "float32", "float64"):
        if name in str(kind).lower():
            return name
    return {"dtypes.half": "float16", "dtypes.float": "float32", "<Type: 'f16'>": "float16"}[str(kind)]
