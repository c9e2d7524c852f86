"""What freezes the running statistics, and the names of a layer's arrays; ``again.py`` asks for both.

Written from the documentation of the frameworks, without a look at the adapters of the first script. A function makes a
new layer, sets one of the framework's switches, or none, and trains for one step. It returns the running statistics
before and after the step.
"""

from __future__ import annotations

import sys

import again_more
import numpy as np

TEN = np.array([[9.0], [11.0], [9.0], [11.0]], np.float32)


def torch(switch):
    """PyTorch: ``requires_grad_`` is about gradients, ``eval`` about the mode."""
    import torch

    layer = torch.nn.BatchNorm1d(1).train()
    if switch == "requires_grad_(False)":
        layer.requires_grad_(False)
    if switch == "eval()":
        layer.eval()
    before = [each.clone() for each in (layer.running_mean, layer.running_var)]
    layer(torch.tensor(TEN))
    return before, [layer.running_mean, layer.running_var]


def keras(switch):
    """Keras: ``trainable`` of a layer; the call asks for training mode."""
    import keras

    layer = keras.layers.BatchNormalization()
    layer.build(TEN.shape)
    layer.trainable = not switch
    before = [keras.ops.convert_to_numpy(each).copy() for each in layer.weights]
    layer(TEN, training=True)
    return before, [keras.ops.convert_to_numpy(each) for each in layer.weights]


def tfjs(switch):
    """TensorFlow.js: the same switch."""
    import again_layers

    said = again_layers.in_node({"batches": [TEN], "trainable": not switch})
    return [said["mean0"], said["var0"]], [said["mean"], said["var"]]


def sonnet(switch):
    """Sonnet 2: ``is_training`` says whether the averages are updated; the first call makes the variables."""
    import sonnet

    layer = sonnet.BatchNorm(create_scale=True, create_offset=True)
    layer(TEN, is_training=False)
    before = [each.numpy() for each in layer.variables]
    layer(TEN, is_training=not switch)
    return before, [each.numpy() for each in layer.variables]


def flax_linen(switch):
    """flax.linen: ``use_running_average``, with a collection that may change."""
    import flax.linen as nn
    import jax

    layer = nn.BatchNorm(use_running_average=bool(switch))
    variables = layer.init(jax.random.key(0), TEN)
    _, changed = layer.apply(variables, TEN, mutable=["batch_stats"])
    return jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(changed["batch_stats"])


def flax_nnx(switch):
    """flax.nnx: ``train`` and ``eval`` set ``use_running_average``."""
    from flax import nnx

    layer = nnx.BatchNorm(1, rngs=nnx.Rngs(0))
    layer.train()
    if switch:
        layer.eval()
    before = [np.array(layer.mean[...]), np.array(layer.var[...])]
    layer(TEN)
    return before, [layer.mean[...], layer.var[...]]


def equinox(switch, mode):
    """Equinox: the argument ``inference`` of the layer."""
    import equinox
    import jax

    make = equinox.nn.make_with_state(equinox.nn.BatchNorm)
    layer, state = make(1, "batch", mode=mode, inference=bool(switch))
    before = jax.tree.leaves(state)
    _, state = jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(TEN, state)
    return before, jax.tree.leaves(state)


def haiku(switch):
    """Haiku: ``is_training``; ``init`` runs in training mode, because the layer needs averages to evaluate."""
    import haiku
    import jax

    net = haiku.transform_with_state(lambda x, training: haiku.BatchNorm(True, True, 0.9)(x, is_training=training))
    params, state = net.init(jax.random.key(0), TEN, True)
    _, changed = net.apply(params, state, None, TEN + 1, not switch)
    return jax.tree.leaves(state), jax.tree.leaves(changed)


def mlx(switch):
    """MLX: ``freeze`` says that no gradients are computed."""
    import mlx.core as mx
    import mlx.nn

    layer = mlx.nn.BatchNorm(1)
    layer.train()
    if switch:
        layer.freeze()
    before = [np.array(layer.running_mean), np.array(layer.running_var)]
    mx.eval(layer(mx.array(TEN)))
    return before, [np.array(layer.running_mean), np.array(layer.running_var)]


def paddle(switch):
    """PaddlePaddle: ``stop_gradient`` of the parameters, ``use_global_stats`` of the layer."""
    import paddle

    layer = paddle.nn.BatchNorm1D(1, use_global_stats=True if switch == "use_global_stats=True" else None)
    layer.train()
    for parameter in layer.parameters():
        parameter.stop_gradient = switch == "stop_gradient = True"
    statistics = [layer.state_dict()[name] for name in ("_mean", "_variance")]
    before = [each.numpy().copy() for each in statistics]
    layer(paddle.to_tensor(TEN))
    return before, [each.numpy() for each in statistics]


def mindspore(switch):
    """MindSpore: ``requires_grad`` of the parameters, ``use_batch_statistics`` of the layer."""
    import mindspore

    mindspore.set_device("CPU")
    use = False if switch == "use_batch_statistics=False" else None
    layer = mindspore.nn.BatchNorm1d(1, use_batch_statistics=use)
    if switch == "requires_grad = False":
        for parameter in layer.get_parameters():
            parameter.requires_grad = False
    before = [layer.moving_mean.asnumpy().copy(), layer.moving_variance.asnumpy().copy()]
    layer.set_train(True)(mindspore.Tensor(TEN))
    return before, [layer.moving_mean.asnumpy(), layer.moving_variance.asnumpy()]


def tinygrad(switch):
    """tinygrad: ``is_param_`` says whether a tensor is a parameter that the optimiser is given."""
    from tinygrad import Context, Tensor
    from tinygrad.nn import BatchNorm

    layer = BatchNorm(1)
    if switch:
        layer.weight.is_param_(False)
        layer.bias.is_param_(False)
    before = [layer.running_mean.numpy(), layer.running_var.numpy()]
    with Context(TRAINING=1):
        layer(Tensor(TEN)).realize()
    return before, [layer.running_mean.numpy(), layer.running_var.numpy()]


def onnx(switch, engine):
    """ONNX: ``training_mode``; without it the operator has one output, so that an engine should refuse three."""
    import again_layers
    from onnx import TensorProto

    zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
    outputs = ["y", "mean", "variance"]
    mode = {"training_mode": 0 if switch else 1}
    try:
        run = again_layers.onnx_session(engine, outputs, 2, TensorProto.FLOAT, TensorProto.FLOAT, **mode)
        _, *after = run({"x": TEN, "s": one, "b": zero, "m": zero, "v": one})
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return None
    return ([zero, one], after) if len(after) == 2 else None


FRAMEWORKS = {
    "torch": (torch, ("requires_grad_(False)", "eval()")),
    "keras-jax": (keras, ("trainable = False, training=True",)),
    "keras-torch": (keras, ("trainable = False, training=True",)),
    "keras-tensorflow": (keras, ("trainable = False, training=True",)),
    "tfjs": (tfjs, ("trainable = false, training: true",)),
    "sonnet": (sonnet, ("is_training=False",)),
    "flax-linen": (flax_linen, ("use_running_average=True",)),
    "flax-nnx": (flax_nnx, ("eval()",)),
    "equinox-batch": (lambda switch: equinox(switch, "batch"), ("inference=True",)),
    "equinox-ema": (lambda switch: equinox(switch, "ema"), ("inference=True",)),
    "haiku": (haiku, ("is_training=False",)),
    "mlx": (mlx, ("freeze()",)),
    "paddle": (paddle, ("stop_gradient = True", "use_global_stats=True")),
    "mindspore": (mindspore, ("requires_grad = False", "use_batch_statistics=False")),
    "tinygrad": (tinygrad, ("is_param_(False)",)),
    "onnxruntime": (lambda switch: onnx(switch, "onnxruntime"), ("training_mode=0",)),
    "openvino": (lambda switch: onnx(switch, "openvino"), ("training_mode=0",)),
    "onnx-reference": (lambda switch: onnx(switch, "reference"), ("training_mode=0",)),
} | again_more.FROZEN


NONE = "the operator returns no statistics"
MOVES = {True: "statistics move", False: "statistics rest"}


def answer(name):
    """Return for each switch whether the statistics move or rest; without a switch they must move."""
    step, switches = FRAMEWORKS[name]
    if not moves(*step(None)):
        raise AssertionError(f"the running statistics of {name} rest without a switch")
    found = {switch: step(switch) for switch in switches}
    return {switch: NONE if pair is None else MOVES[moves(*pair)] for switch, pair in found.items()}


def moves(before, after):
    """Return whether any array is another one than before."""
    return any(not np.array_equal(*pair) for pair in zip(before, after, strict=True))
