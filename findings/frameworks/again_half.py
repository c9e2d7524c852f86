"""The types of outputs and running statistics in half precision, asked from the documentation alone; see ``again.py``.

A function returns pairs (type of the output, type of the running statistics) by situation: inputs in half precision for
a layer with the framework's defaults, and a layer that was made for half precision or converted to it.
"""

from __future__ import annotations

import re

import numpy as np

TEN = np.array([[9.0], [11.0], [9.0], [11.0]], np.float32)


def torch():
    """PyTorch: a layer converted by ``Module.bfloat16``, and autocast."""
    import torch

    def types(layer, x):
        return layer(x).dtype, layer.running_mean.dtype

    x = torch.from_numpy(TEN)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = types(torch.nn.BatchNorm1d(1), x)
    return {
        "input bfloat16": types(torch.nn.BatchNorm1d(1), x.bfloat16()),
        "float32 under autocast": under_autocast,
        "layer.bfloat16()": types(torch.nn.BatchNorm1d(1).bfloat16(), x.bfloat16()),
    }


def keras():
    """Keras: the argument ``dtype`` takes a type or a policy."""
    import keras

    def types(**arguments):
        layer = keras.layers.BatchNormalization(**arguments)
        y = layer(keras.ops.cast(TEN, "bfloat16") if not arguments else keras.ops.convert_to_tensor(TEN), training=True)
        return keras.backend.standardize_dtype(y.dtype), layer.moving_mean.dtype

    policies = ("mixed_bfloat16", "bfloat16", "float16")
    return {"input bfloat16": types()} | {f"dtype={policy!r}": types(dtype=policy) for policy in policies}


def flax_linen():
    """flax.linen: ``dtype`` is that of the result."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    def types(x, **arguments):
        layer = nn.BatchNorm(use_running_average=False, **arguments)
        y, variables = layer.init_with_output(jax.random.key(0), x)
        return y.dtype, variables["batch_stats"]["mean"].dtype

    x = jnp.asarray(TEN)
    return {
        "input bfloat16": types(x.astype(jnp.bfloat16)),
        "dtype=bfloat16": types(x, dtype=jnp.bfloat16),
        "dtype=bfloat16, param_dtype=bfloat16": types(x, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16),
    }


def flax_nnx():
    """flax.nnx: the same arguments."""
    import jax.numpy as jnp
    from flax import nnx

    def types(x, **arguments):
        layer = nnx.BatchNorm(1, rngs=nnx.Rngs(0), **arguments)
        return layer(x).dtype, layer.mean[...].dtype

    x = jnp.asarray(TEN)
    return {
        "input bfloat16": types(x.astype(jnp.bfloat16)),
        "dtype=bfloat16": types(x, dtype=jnp.bfloat16),
        "dtype=bfloat16, param_dtype=bfloat16": types(x, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16),
    }


def equinox(mode):
    """Equinox: ``dtype`` is that of the weight, the bias and the statistics."""
    import equinox
    import jax
    import jax.numpy as jnp

    def types(x, **arguments):
        layer, state = equinox.nn.make_with_state(equinox.nn.BatchNorm)(1, "batch", mode=mode, **arguments)
        try:
            y, state = jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)
        except Exception as error:
            return f"raises {type(error).__name__}"
        index = layer.batch_state_index if mode == "batch" else layer.ema_state_index
        return y.dtype, state.get(index)[0].dtype

    x = jnp.asarray(TEN)
    return {
        "input bfloat16": types(x.astype(jnp.bfloat16)),
        "dtype=bfloat16": types(x.astype(jnp.bfloat16), dtype=jnp.bfloat16),
    }


def haiku():
    """Haiku: the layer takes its types from the inputs, or from a policy of mixed precision."""
    import haiku
    import jax
    import jax.numpy as jnp
    import jmp

    layer = haiku.transform_with_state(lambda x: haiku.BatchNorm(True, True, 0.9)(x, is_training=True))

    def types(first, second):
        params, state = layer.init(jax.random.key(0), first)
        y, state = layer.apply(params, state, None, second)
        return y.dtype, state["batch_norm/~/mean_ema"]["average"].dtype

    x = jnp.asarray(TEN)
    half = x.astype(jnp.bfloat16)
    found = {"input bfloat16": types(x, half), "init and input bfloat16": types(half, half)}
    haiku.mixed_precision.set_policy(haiku.BatchNorm, jmp.get_policy("params=float32,compute=bfloat16,output=bfloat16"))
    return found | {"policy that computes in bfloat16": types(x, x)}


def mlx():
    """MLX: ``Module.set_dtype`` converts the parameters."""
    import mlx.core as mx
    import mlx.nn

    def types(layer):
        y = layer(mx.array(TEN).astype(mx.bfloat16))
        return y.dtype, layer.running_mean.dtype

    converted = mlx.nn.BatchNorm(1)
    converted.set_dtype(mx.bfloat16)
    return {"input bfloat16": types(mlx.nn.BatchNorm(1)), "set_dtype": types(converted)}


def paddle():
    """PaddlePaddle: automatic mixed precision, and a layer that ``Layer.to`` converts."""
    import paddle

    def types(layer, x):
        try:
            return layer(x).dtype, layer.state_dict()["_mean"].dtype
        except Exception as error:
            return f"raises {type(error).__name__}"

    x = paddle.to_tensor(TEN)
    with paddle.amp.auto_cast(dtype="bfloat16"):
        under_autocast = types(paddle.nn.BatchNorm1D(1), x)
    return {
        "input bfloat16": types(paddle.nn.BatchNorm1D(1), x.astype("bfloat16")),
        "auto_cast to bfloat16": under_autocast,
        "layer.to(dtype='bfloat16')": types(paddle.nn.BatchNorm1D(1).to(dtype="bfloat16"), x.astype("bfloat16")),
    }


def mindspore():
    """MindSpore: ``Cell.to_float`` converts the inputs of a layer."""
    import mindspore

    def types(layer, x):
        layer.set_train(True)
        return layer(x).dtype, layer.moving_mean.dtype

    half = mindspore.Tensor(TEN, mindspore.float16)
    converted = mindspore.nn.BatchNorm1d(1).to_float(mindspore.float16)
    return {
        "input float16": types(mindspore.nn.BatchNorm1d(1), half),
        "to_float(float16)": types(converted, mindspore.Tensor(TEN)),
    }


def tinygrad():
    """tinygrad: inputs alone; the layer has no argument for a type."""
    from tinygrad import Context, Tensor
    from tinygrad.nn import BatchNorm

    layer = BatchNorm(1)
    with Context(TRAINING=1):
        y = layer(Tensor(TEN).half())
    return {"input float16": (y.dtype, layer.running_mean.dtype)}


def onnx(engine):
    """ONNX: the operator has one type for x, one for scale and bias, and one for the statistics."""
    import again_layers
    from onnx import TensorProto

    def types(others):
        dtype = np.float16 if others == TensorProto.FLOAT16 else np.float32
        one, zero = np.ones(1, dtype), np.zeros(1, dtype)
        values = {"x": TEN.astype(np.float16), "s": one, "b": zero, "m": zero, "v": one}
        try:
            run = again_layers.onnx_session(engine, ["y", "m2", "v2"], 2, TensorProto.FLOAT16, others, training_mode=1)
            y, mean, _ = run(values)
        except Exception as error:
            return f"raises {type(error).__name__}"
        return y.dtype, mean.dtype

    return {"all float16": types(TensorProto.FLOAT16), "x float16, the others float32": types(TensorProto.FLOAT)}


def sonnet():
    """Sonnet: inputs alone; the layer takes its types from them."""
    import sonnet
    import tensorflow

    layer = sonnet.BatchNorm(True, True)
    y = layer(tensorflow.constant(TEN, tensorflow.bfloat16), is_training=True)
    return {"input bfloat16": (y.dtype.name, layer.moving_mean.value.dtype.name)}


FRAMEWORKS = {
    "torch": torch,
    "keras-jax": keras,
    "keras-torch": keras,
    "keras-tensorflow": keras,
    "sonnet": sonnet,
    "flax-linen": flax_linen,
    "flax-nnx": flax_nnx,
    "equinox-batch": lambda: equinox("batch"),
    "equinox-ema": lambda: equinox("ema"),
    "haiku": haiku,
    "mlx": mlx,
    "paddle": paddle,
    "mindspore": mindspore,
    "tinygrad": tinygrad,
    "onnxruntime": lambda: onnx("onnxruntime"),
    "openvino": lambda: onnx("openvino"),
    "onnx-reference": lambda: onnx("reference"),
}


def answer(name):
    """Return the types by situation, or None if the framework has no half precision on a CPU."""
    if name not in FRAMEWORKS:
        return None
    found = {}
    for situation, types in FRAMEWORKS[name]().items():
        if isinstance(types, str):
            found[situation] = types
        else:
            found |= {
                f"{situation}: {what}": plain(types[place]) for place, what in enumerate(("output", "statistics"))
            }
    return found


def plain(name):
    """Return the name of a type without its package, and with its number of bits."""
    word = re.split(r"[.\s]", str(name).strip("<>'"))[-1].lower()
    return {"float": "float32", "half": "float16"}.get(word, word)
