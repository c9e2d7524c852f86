"""More frameworks for ``again.py``, written from their documentation alone: MXNet, Chainer, Objax, BrainState, Keras 2.

The layers are those of ``again_layers.py``, the other questions those of ``again_half.py``, ``again_frozen.py`` and
``again_names.py``.
"""

from __future__ import annotations

import contextlib

import numpy as np

TEN = np.array([[9.0], [11.0], [9.0], [11.0]], np.float32)


def trained(make, statistics, step, inference, batches):
    """Train a new layer on batches and return what ``again_layers.py`` describes."""
    layer = make(batches[0].shape)
    start = [np.array(each, np.float32) for each in statistics(layer)]
    for batch in batches:
        output = np.array(step(layer, batch), np.float32)
    end = [np.array(each, np.float32) for each in statistics(layer)]
    return start, output, end, np.array(inference(layer, batches[-1]), np.float32)


def mxnet_layer(channels, **arguments):
    """Return an initialised mxnet.gluon.nn.BatchNorm."""
    if not hasattr(np, "bool"):
        np.bool = bool  # MXNet 1.9.1 was written for NumPy before 1.24
    import mxnet

    layer = mxnet.gluon.nn.BatchNorm(in_channels=channels, **arguments)
    layer.initialize()
    return layer


def mxnet_statistics(layer):
    """Return copies of running mean and variance as NumPy arrays."""
    return [each.data().asnumpy() for each in (layer.running_mean, layer.running_var)]


def mxnet_step(layer, batch, dtype="float32", backward=True):
    """Train for one step inside ``autograd.record``; the input has a gradient, as behind a layer that is trained."""
    import mxnet

    x = mxnet.nd.array(batch, dtype=dtype)
    x.attach_grad()
    with mxnet.autograd.record():
        y = layer(x)
    if backward:
        y.backward()
    mxnet.nd.waitall()
    return y.asnumpy()


def mxnet(batches):
    """mxnet.gluon.nn.BatchNorm."""
    import mxnet

    def inference(layer, batch):
        return layer(mxnet.nd.array(batch)).asnumpy()

    return trained(lambda shape: mxnet_layer(shape[1]), mxnet_statistics, mxnet_step, inference, batches)


def mxnet_half(situation):
    """MXNet: ``Block.cast`` converts a layer."""
    layer = mxnet_layer(1)
    if situation.startswith("cast"):
        layer.cast("float16")
    y = mxnet_step(layer, TEN, "float16")
    return y.dtype, layer.running_var.data().dtype


def mxnet_frozen(switch):
    """MXNet: ``grad_req`` of the parameters, ``use_global_stats`` of the layer; or no gradient is computed."""
    layer = mxnet_layer(1, use_global_stats=switch == "use_global_stats=True")
    if switch == "grad_req = 'null'":
        layer.gamma.grad_req = layer.beta.grad_req = "null"
    before = mxnet_statistics(layer)
    mxnet_step(layer, TEN, backward=switch != "no backward pass")
    return before, mxnet_statistics(layer)


def mxnet_names():
    """MXNet: ``save_parameters`` writes the names of the layer's attributes."""
    import tempfile

    import mxnet

    with tempfile.NamedTemporaryFile(suffix=".params") as file:
        mxnet_layer(1).save_parameters(file.name)
        return list(mxnet.nd.load(file.name))


def chainer_layer(channels, **arguments):
    """Return a chainer.links.BatchNormalization."""
    import chainer

    return chainer.links.BatchNormalization(channels, **arguments)


def chainer(batches):
    """chainer.links.BatchNormalization; ``chainer.config.train`` is its mode."""
    import chainer

    def run(layer, batch, train):
        with chainer.using_config("train", train):
            return layer(batch).array

    return trained(
        lambda shape: chainer_layer(shape[1]),
        lambda layer: (layer.avg_mean, layer.avg_var),
        lambda layer, batch: run(layer, batch, True),
        lambda layer, batch: run(layer, batch, False),
        batches,
    )


def chainer_half(situation):
    """Chainer: ``dtype`` of a link, or of the configuration, where mixed16 keeps parameters in float32."""
    import chainer

    config = {"config.dtype = mixed16": chainer.mixed16}.get(situation, np.float32)
    with chainer.using_config("dtype", config), chainer.using_config("train", True):
        layer = chainer_layer(1, **({"dtype": np.float16} if situation == "dtype=float16" else {}))
        y = layer(TEN.astype(np.float16))
    return y.dtype, layer.avg_var.dtype


def chainer_frozen(switch):
    """Chainer: ``disable_update`` is about the optimiser, ``config.train`` about the mode."""
    import chainer

    layer = chainer_layer(1)
    if switch == "disable_update()":
        layer.disable_update()
    before = [layer.avg_mean.copy(), layer.avg_var.copy()]
    with chainer.using_config("train", switch != "config.train = False"):
        layer(TEN)
    return before, [layer.avg_mean, layer.avg_var]


def chainer_names():
    """Chainer: ``serializers.save_npz`` writes an archive of NumPy."""
    import io

    import chainer

    file = io.BytesIO()
    chainer.serializers.save_npz(file, chainer_layer(1))
    file.seek(0)
    return np.load(file).files


def objax(batches):
    """objax.nn.BatchNorm0D and BatchNorm2D; the argument ``training`` of a call is the mode."""
    import objax

    return trained(
        lambda shape: (objax.nn.BatchNorm2D if len(shape) == 4 else objax.nn.BatchNorm0D)(shape[1]),
        lambda layer: (np.ravel(layer.running_mean.value), np.ravel(layer.running_var.value)),
        lambda layer, batch: layer(batch, training=True),
        lambda layer, batch: layer(batch, training=False),
        batches,
    )


def objax_half(situation):
    """Objax: inputs alone; the layer has no argument for a type."""
    import jax.numpy as jnp
    import objax

    layer = objax.nn.BatchNorm0D(1)
    y = layer(jnp.asarray(TEN, jnp.bfloat16), training=True)
    return y.dtype, layer.running_var.value.dtype


def objax_frozen(switch):
    """Objax: the argument ``training`` of a call."""
    import objax

    layer = objax.nn.BatchNorm0D(1)
    before = [layer.running_mean.value, layer.running_var.value]
    layer(TEN, training=not switch)
    return before, [layer.running_mean.value, layer.running_var.value]


def objax_names():
    """Objax: the names of ``vars``, which ``save_var_collection`` writes, without the name of the layer."""
    import objax

    return [each.rpartition(".")[2] for each in objax.nn.BatchNorm0D(1).vars().keys()]


@contextlib.contextmanager
def fitting(fit):
    """Set BrainState's training mode."""
    import brainstate

    with brainstate.environ.context(fit=fit):
        yield


def brainstate(batches):
    """brainstate.nn.BatchNorm0d and BatchNorm2d; ``fit`` of the environment is the mode."""
    import brainstate

    def run(layer, batch, fit):
        with fitting(fit):
            return layer(batch)

    return trained(
        lambda shape: (brainstate.nn.BatchNorm2d if len(shape) == 4 else brainstate.nn.BatchNorm0d)(shape[1:]),
        lambda layer: (np.ravel(layer.running_mean.value), np.ravel(layer.running_var.value)),
        lambda layer, batch: run(layer, batch, True),
        lambda layer, batch: run(layer, batch, False),
        batches,
    )


def brainstate_half(situation):
    """BrainState: ``dtype`` of the layer."""
    import brainstate
    import jax.numpy as jnp

    arguments = {"dtype": jnp.bfloat16} if situation.startswith("dtype") else {}
    layer = brainstate.nn.BatchNorm0d((1,), **arguments)
    with fitting(True):
        y = layer(jnp.asarray(TEN, jnp.bfloat16))
    return y.dtype, layer.running_var.value.dtype


def brainstate_frozen(switch):
    """BrainState: ``fit`` of the environment."""
    import brainstate

    layer = brainstate.nn.BatchNorm0d((1,))
    before = [np.array(layer.running_mean.value), np.array(layer.running_var.value)]
    with fitting(not switch):
        layer(TEN)
    return before, [layer.running_mean.value, layer.running_var.value]


def brainstate_names():
    """BrainState: the paths of ``states``; the weight is a dictionary."""
    import brainstate

    names = []
    for path, state in brainstate.nn.BatchNorm0d((1,)).states().items():
        path = "/".join(map(str, path))
        names += [f"{path}/{key}" for key in state.value] if isinstance(state.value, dict) else [path]
    return names


def tf_keras(batches):
    """tf_keras.layers.BatchNormalization, the layer of Keras 2."""
    import tf_keras

    def built(shape):
        layer = tf_keras.layers.BatchNormalization()
        layer.build(shape)
        return layer

    return trained(
        built,
        lambda layer: (layer.moving_mean.numpy(), layer.moving_variance.numpy()),
        lambda layer, batch: layer(batch, training=True).numpy(),
        lambda layer, batch: layer(batch, training=False).numpy(),
        batches,
    )


def tf_keras_half(situation):
    """Keras 2: ``dtype`` is a type or the name of a policy."""
    import tensorflow
    import tf_keras

    arguments = {"dtype": situation.partition("=")[2].strip("'")} if situation.startswith("dtype") else {}
    layer = tf_keras.layers.BatchNormalization(**arguments)
    y = layer(tensorflow.cast(TEN, "float32" if arguments else "bfloat16"), training=True)
    return y.dtype.name, layer.moving_variance.dtype


def tf_keras_frozen(switch):
    """Keras 2: ``trainable`` of the layer; the call asks for training mode."""
    import tf_keras

    layer = tf_keras.layers.BatchNormalization()
    layer.build(TEN.shape)
    layer.trainable = not switch
    before = [each.numpy() for each in layer.weights]
    layer(TEN, training=True)
    return before, [each.numpy() for each in layer.weights]


def tf_keras_names():
    """Keras 2: the names of ``weights``, without the number behind the colon."""
    import tf_keras

    layer = tf_keras.layers.BatchNormalization()
    layer.build(TEN.shape)
    return [each.name.partition(":")[0].rpartition("/")[2] for each in layer.weights]


KERAS = ("input bfloat16", "dtype='mixed_bfloat16'", "dtype='bfloat16'", "dtype='float16'")
LAYERS = {"tf-keras": tf_keras, "mxnet": mxnet, "chainer": chainer, "objax": objax, "brainstate": brainstate}
MOMENTUM = {
    "tf": ("momentum", 0.99),
    "mxnet": ("momentum", 0.9),
    "chainer": ("decay", 0.9),
    "objax": ("momentum", 0.999),
    "brainstate": ("momentum", 0.99),
}
HALF = {
    "tf-keras": (tf_keras_half, KERAS),
    "mxnet": (mxnet_half, ("input float16", "cast('float16')")),
    "chainer": (chainer_half, ("input float16", "config.dtype = mixed16", "dtype=float16")),
    "objax": (objax_half, ("input bfloat16",)),
    "brainstate": (brainstate_half, ("input bfloat16", "dtype=bfloat16")),
}
FROZEN = {
    "tf-keras": (tf_keras_frozen, ("trainable = False, training=True",)),
    "mxnet": (mxnet_frozen, ("grad_req = 'null'", "use_global_stats=True", "no backward pass")),
    "chainer": (chainer_frozen, ("disable_update()", "config.train = False")),
    "objax": (objax_frozen, ("training=False",)),
    "brainstate": (brainstate_frozen, ("fit=False",)),
}
NAMES = {
    "tf-keras": tf_keras_names,
    "mxnet": mxnet_names,
    "chainer": chainer_names,
    "objax": objax_names,
    "brainstate": brainstate_names,
}
