"""The names of a batch norm's arrays in what a framework saves; ``again.py`` asks for them.

Written from the documentation of the frameworks, without a look at the adapters of the first script. A name inside a
group of names follows the group after a slash.
"""

from __future__ import annotations

import again_more
import numpy as np

TEN = np.array([[9.0], [11.0], [9.0], [11.0]], np.float32)


def torch():
    """PyTorch: the keys of ``state_dict``."""
    import torch

    return list(torch.nn.BatchNorm1d(1).state_dict())


def keras():
    """Keras: the names of ``weights``; a weights file numbers them in this order."""
    import keras

    layer = keras.layers.BatchNormalization()
    layer.build((None, 1))
    return [each.name for each in layer.weights]


def tfjs():
    """TensorFlow.js: ``weightSpecs`` of a saved model, without the name of the layer."""
    import again_layers

    said = again_layers.in_node({"batches": [TEN], "trainable": True, "names": True})
    return [each.rpartition("/")[2] for each in said["names"]]


def sonnet():
    """Sonnet 2: the names of ``variables``, without the number behind the colon."""
    import sonnet

    layer = sonnet.BatchNorm(create_scale=True, create_offset=True)
    layer(TEN, is_training=True)
    return [each.name.partition(":")[0] for each in layer.variables]


def flax_linen():
    """flax.linen: collections and their names."""
    import flax.linen as nn
    import jax

    variables = nn.BatchNorm(use_running_average=False).init(jax.random.key(0), TEN)
    return [f"{collection}/{name}" for collection, names in variables.items() for name in names]


def flax_nnx():
    """flax.nnx: the keys of ``nnx.state``."""
    from flax import nnx

    return list(nnx.state(nnx.BatchNorm(1, rngs=nnx.Rngs(0))))


def equinox(mode):
    """Equinox: a file has no names, only arrays one behind the other; their shapes are the answer."""
    import io

    import equinox

    pair = equinox.nn.make_with_state(equinox.nn.BatchNorm)(1, "batch", mode=mode)
    file = io.BytesIO()
    equinox.tree_serialise_leaves(file, pair)
    length, shapes = file.tell(), []
    file.seek(0)
    while file.tell() < length:
        shapes.append(f"array of shape {np.load(file).shape}")
    return shapes


def haiku():
    """Haiku: names of modules and arrays in ``params`` and ``state``."""
    import haiku
    import jax

    net = haiku.transform_with_state(lambda x: haiku.BatchNorm(True, True, 0.9)(x, is_training=True))
    trees = net.init(jax.random.key(0), TEN)
    return [f"{module}/{name}" for tree in trees for module, names in tree.items() for name in names]


def mlx():
    """MLX: the names of ``parameters``, which ``save_weights`` writes."""
    import mlx.nn
    import mlx.utils

    return [name for name, _ in mlx.utils.tree_flatten(mlx.nn.BatchNorm(1).parameters())]


def paddle():
    """PaddlePaddle: the keys of ``state_dict``."""
    import paddle

    return list(paddle.nn.BatchNorm1D(1).state_dict())


def mindspore():
    """MindSpore: the names of the parameters, which ``save_checkpoint`` writes."""
    import mindspore

    mindspore.set_device("CPU")
    return [each.name for each in mindspore.nn.BatchNorm1d(1).get_parameters()]


def tinygrad():
    """tinygrad: the keys of ``get_state_dict``."""
    from tinygrad.nn import BatchNorm
    from tinygrad.nn.state import get_state_dict

    return list(get_state_dict(BatchNorm(1)))


def onnx():
    """ONNX: the names of the operator's inputs in its specification; a file may use others."""
    from onnx import defs

    return [each.name for each in defs.get_schema("BatchNormalization", 15).inputs][1:]


FRAMEWORKS = {
    "torch": torch,
    "keras-jax": keras,
    "keras-torch": keras,
    "keras-tensorflow": keras,
    "tfjs": tfjs,
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
    "onnxruntime": onnx,
    "openvino": onnx,
    "onnx-reference": onnx,
} | again_more.NAMES
