"""Keras 2, MXNet, Chainer, Objax and BrainState, asked by ``again.py``.

Written from their docstrings and guides alone, without a look at the adapters of the first script or at its answers.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np

TEN = np.array([[9.0], [11.0], [9.0], [11.0]], np.float32)


def tf_keras_layer(**arguments):
    """Return a layer of Keras 2, for which the attributes of the same names as its variables are documented."""
    import tf_keras

    return tf_keras.layers.BatchNormalization(**arguments)


def tf_keras(batches):
    """``training=True`` normalises with the batch and updates ``moving_mean`` and ``moving_variance``."""
    layer = tf_keras_layer()
    layer.build(batches[0].shape)

    def moving():
        return layer.moving_mean.numpy().tolist(), layer.moving_variance.numpy().tolist()

    start = moving()
    outputs = [layer(batch, training=True).numpy() for batch in batches]
    return start, outputs[-1], moving(), layer(batches[-1], training=False).numpy()


def tf_keras_half(situation):
    """``dtype`` is the name of a policy, which says the types of the computation and of the variables."""
    import tensorflow

    policy = {} if situation == "input bfloat16" else {"dtype": situation.split("'")[1]}
    layer = tf_keras_layer(**policy)
    kind = tensorflow.float16 if situation == "dtype='float16'" else tensorflow.bfloat16
    output = layer(tensorflow.cast(TEN, kind), training=True)
    return output.dtype, layer.moving_variance.dtype


def tf_keras_frozen(switch):
    """A layer with ``trainable = False`` is documented to run in inference mode."""
    layer = tf_keras_layer()
    layer.build(TEN.shape)
    layer.trainable = switch is None
    before = [each.numpy() for each in (layer.moving_mean, layer.moving_variance)]
    layer(TEN, training=True)
    return before, [each.numpy() for each in (layer.moving_mean, layer.moving_variance)]


def tf_keras_names():
    """Names of ``weights`` without the layer before them and the number behind them."""
    layer = tf_keras_layer()
    layer.build(TEN.shape)
    return [each.name.rpartition("/")[2].partition(":")[0] for each in layer.weights]


def mxnet_layer(channels):
    """Return a layer of Gluon whose arrays exist."""
    import mxnet

    layer = mxnet.gluon.nn.BatchNorm(in_channels=channels)
    layer.initialize()
    return layer


def mxnet_running(layer):
    """Return the running mean and variance as arrays."""
    return [each.data().asnumpy() for each in (layer.running_mean, layer.running_var)]


def mxnet_step(layer, batch, backward=True):
    """Train for one step, in the order of the docstring of ``autograd.record``; return the output as an array."""
    import mxnet

    x = mxnet.nd.array(batch, dtype=batch.dtype)
    x.attach_grad()
    with mxnet.autograd.record():
        y = layer(x)
    if backward:
        y.backward()
    return y.asnumpy()


def mxnet(batches):
    """Outside ``autograd.record`` a layer predicts."""
    import mxnet

    layer = mxnet_layer(batches[0].shape[1])
    start = mxnet_running(layer)
    for batch in batches:
        trained = mxnet_step(layer, batch)
    return start, trained, mxnet_running(layer), layer(mxnet.nd.array(batches[-1])).asnumpy()


def mxnet_half(situation):
    """``Block.cast`` changes the type of the parameters."""
    layer = mxnet_layer(1)
    if situation.startswith("cast"):
        layer.cast("float16")
    output = mxnet_step(layer, TEN.astype(np.float16))
    return output.dtype, mxnet_running(layer)[1].dtype


def mxnet_frozen(switch):
    """``grad_req`` says whether a parameter has a gradient; ``use_global_stats`` normalises with the running ones."""
    import mxnet

    layer = mxnet_layer(1)
    if switch == "use_global_stats=True":
        layer = mxnet.gluon.nn.BatchNorm(in_channels=1, use_global_stats=True)
        layer.initialize()
    if switch == "grad_req = 'null'":
        for parameter in layer.collect_params().values():
            parameter.grad_req = "null"
    before = mxnet_running(layer)
    mxnet_step(layer, TEN, backward=switch != "no backward pass")
    return before, mxnet_running(layer)


def mxnet_names():
    """The names in a file of ``save_parameters``."""
    import mxnet

    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "parameters")
        mxnet_layer(1).save_parameters(file)
        return list(mxnet.nd.load(file))


def chainer(batches):
    """``config.train``, which is true unless it is changed, chooses between training and testing mode."""
    import chainer

    link = chainer.links.BatchNormalization(batches[0].shape[1])
    start = link.avg_mean.tolist(), link.avg_var.tolist()
    for batch in batches:
        trained = link(batch).array
    end = link.avg_mean.tolist(), link.avg_var.tolist()
    with chainer.using_config("train", False):
        return start, trained, end, link(batches[-1]).array


def chainer_half(situation):
    """``config.dtype`` is the type of new arrays, and ``mixed16`` keeps those of batch norm in float32."""
    import chainer

    mixed = chainer.using_config("dtype", chainer.mixed16) if "mixed16" in situation else contextlib.nullcontext()
    with mixed:
        link = chainer.links.BatchNormalization(1, dtype=np.float16 if situation == "dtype=float16" else None)
        output = link(TEN.astype(np.float16)).array
    return output.dtype, link.avg_var.dtype


def chainer_frozen(switch):
    """``disable_update`` is about update rules, so an optimizer takes the step."""
    import chainer

    link = chainer.links.BatchNormalization(1)
    optimizer = chainer.optimizers.SGD().setup(link)
    if switch == "disable_update()":
        link.disable_update()
    before = [link.avg_mean.copy(), link.avg_var.copy()]
    with chainer.using_config("train", switch != "config.train = False"):
        optimizer.update(lambda: chainer.functions.sum(link(TEN) ** 2))
    return before, [link.avg_mean, link.avg_var]


def chainer_names():
    """The names in a file of ``save_npz``."""
    import chainer

    file = io.BytesIO()
    chainer.serializers.save_npz(file, chainer.links.BatchNormalization(1))
    file.seek(0)
    return np.load(file).files


def objax_layer(batch):
    """Return a layer for vectors or images of the channels that the second axis has."""
    import objax

    return (objax.nn.BatchNorm2D if batch.ndim == 4 else objax.nn.BatchNorm0D)(batch.shape[1])


def objax_running(layer):
    """Return running mean and variance; all arrays in ``vars`` that are no ``TrainVar`` are statistics."""
    import objax

    states = {name: each.value for name, each in layer.vars().items() if not isinstance(each, objax.TrainVar)}
    return [np.ravel(next(states[name] for name in states if kind in name)) for kind in ("mean", "var")]


def objax(batches):
    """The argument ``training`` chooses the mode."""
    from jax import numpy

    layer = objax_layer(batches[0])
    start = objax_running(layer)
    for batch in batches:
        trained = layer(numpy.asarray(batch), training=True)
    return start, np.asarray(trained), objax_running(layer), np.asarray(layer(numpy.asarray(batch), training=False))


def objax_half(situation):
    """Objax has no argument for the type."""
    from jax import numpy

    assert situation == "input bfloat16"
    layer = objax_layer(TEN)
    return layer(numpy.asarray(TEN, numpy.bfloat16), training=True).dtype, objax_running(layer)[1].dtype


def objax_frozen(switch):
    """``training=False`` is evaluation mode."""
    from jax import numpy

    layer = objax_layer(TEN)
    before = objax_running(layer)
    layer(numpy.asarray(TEN), training=switch is None)
    return before, objax_running(layer)


def objax_names():
    """The keys of ``vars``, which ``save_var_collection`` stores, without the class in brackets before them."""
    names, _ = zip(*objax_layer(TEN).vars().items(), strict=True)
    return [name.rpartition(".")[2] for name in names]


def brainstate_layer(batch, **arguments):
    """Return a layer for vectors or images; ``in_size`` is the shape of one sample."""
    from brainstate import nn

    return (nn.BatchNorm2d if batch.ndim == 4 else nn.BatchNorm0d)(batch.shape[1:], **arguments)


def brainstate_running(layer):
    """Return running mean and variance, which the docstring calls ``running_mean`` and ``running_var``."""
    return [np.ravel(getattr(layer, name).value) for name in ("running_mean", "running_var")]


def brainstate_call(layer, batch, fit):
    """Call a layer in the mode that ``fit`` in the environment chooses."""
    import brainstate
    from jax import numpy

    with brainstate.environ.context(fit=fit):
        return layer(numpy.asarray(batch))


def brainstate(batches):
    """``fit`` in the environment chooses the mode."""
    layer = brainstate_layer(batches[0])
    start = brainstate_running(layer)
    for batch in batches:
        trained = np.asarray(brainstate_call(layer, batch, fit=True))
    return start, trained, brainstate_running(layer), np.asarray(brainstate_call(layer, batches[-1], fit=False))


def brainstate_half(situation):
    """The layer has an argument ``dtype``."""
    from jax import numpy

    layer = brainstate_layer(TEN, **({"dtype": numpy.bfloat16} if situation == "dtype=bfloat16" else {}))
    output = brainstate_call(layer, numpy.asarray(TEN, numpy.bfloat16), fit=True)
    return output.dtype, brainstate_running(layer)[1].dtype


def brainstate_frozen(switch):
    """``fit=False`` is evaluation."""
    layer = brainstate_layer(TEN)
    before = brainstate_running(layer)
    brainstate_call(layer, TEN, fit=switch is None)
    return before, brainstate_running(layer)


def brainstate_names():
    """The paths of ``states``; a state whose value is a dictionary is a group."""
    found = []
    for path, state in brainstate_layer(TEN).states().items():
        name = "/".join(map(str, path if isinstance(path, tuple) else (path,)))
        found += [f"{name}/{key}" for key in state.value] if isinstance(state.value, dict) else [name]
    return found


LAYERS = {"tf-keras": tf_keras, "mxnet": mxnet, "chainer": chainer, "objax": objax, "brainstate": brainstate}

MOMENTUM = {
    "tf": ("momentum", 0.99),
    "mxnet": ("momentum", 0.9),
    "chainer": ("decay", 0.9),
    "objax": ("momentum", 0.999),
    "brainstate": ("momentum", 0.99),
}
KERAS = ("input bfloat16", "dtype='mixed_bfloat16'", "dtype='bfloat16'", "dtype='float16'")
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
