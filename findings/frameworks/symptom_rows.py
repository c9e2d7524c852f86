"""Check what the symptom table of chapter 7 says of other frameworks, each in an environment that has it.

    KERAS_BACKEND=jax python findings/frameworks/symptom_rows.py keras time_distributed momentum flax
    KERAS_BACKEND=tensorflow python findings/frameworks/symptom_rows.py tensorflow replicas
    KERAS_BACKEND=tensorflow python findings/frameworks/symptom_rows.py synchronized
    python findings/frameworks/symptom_rows.py equinox
    python findings/frameworks/symptom_rows.py opacus

Checked with Keras 3.15.1 on JAX, PyTorch and TensorFlow 2.21.0, Keras 2 (tf-keras 2.21.0), Flax 0.12.8 on JAX 0.10.2,
Equinox 0.13.8, and Opacus 1.6.0 on PyTorch 2.13.0.
"""

from __future__ import annotations

import re
import sys
import tempfile

import numpy as np

VALUES = (20 + 5 * np.random.default_rng(0).normal(size=(64, 8))).astype(np.float32)
LABELS = (VALUES[:, 0] > 20).astype(np.int32)
IMAGES = np.zeros((4, 3, 8, 8), np.float32)


def refused(action, message: str) -> None:
    """Check that an action fails with a message."""
    try:
        action()
    except Exception as error:
        assert re.search(message, str(error)), error
    else:
        raise AssertionError(f"no error: {message}")


def keras() -> None:
    """Updates of the moving averages, too few of them, axes, groups, several devices, and ``predict``."""
    import keras
    from keras import layers

    def mean(layer):
        return keras.ops.convert_to_numpy(layer.moving_mean)

    class Without(keras.Model):
        def __init__(self):
            super().__init__()
            self.norm, self.last = layers.BatchNormalization(), layers.Dense(2)

        def call(self, x):
            return self.last(self.norm(x))

    class Passing(Without):
        def call(self, x, training=None):
            return self.last(self.norm(x, training=training))

    def fit(model, epochs):
        model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(VALUES, LABELS, epochs=epochs, batch_size=32, verbose=0)
        return model

    assert not mean(fit(Without(), 3).norm).any() and mean(fit(Passing(), 3).norm).all()
    norm = layers.BatchNormalization(momentum=0.9)
    norm(VALUES)
    assert not mean(norm).any()
    for _ in range(50):
        norm(VALUES, training=True)
    assert np.allclose(mean(norm), VALUES.mean(0), rtol=0.01)

    losses = {}
    for momentum in (0.99, 0.9):
        keras.utils.set_random_seed(0)
        norms = [layers.BatchNormalization(momentum=momentum) for _ in range(2)]
        parts = [keras.Input((8,)), norms[0], layers.Dense(16, activation="relu"), norms[1], layers.Dense(2)]
        losses[momentum] = fit(keras.Sequential(parts), 10).evaluate(VALUES, LABELS, verbose=0)
    assert losses[0.99] > 3 * losses[0.9]

    wrong, right = layers.BatchNormalization(), layers.BatchNormalization(axis=1)
    assert [len(mean(each)) for each in (wrong, right) if each(IMAGES) is not None] == [8, 3]
    refused(lambda: layers.GroupNormalization(32)(np.zeros((2, 48), np.float32)), r"\(32\) must be a multiple of .*48")
    assert not np.any(keras.ops.convert_to_numpy(layers.BatchNormalization()(VALUES[:1], training=True)))
    ones = np.ones((4, 3), np.float32)
    assert np.allclose(keras.ops.convert_to_numpy(layers.BatchNormalization()(ones)), 1, atol=1e-3)
    assert not np.any(keras.ops.convert_to_numpy(layers.BatchNormalization()(ones, training=True)))

    entry = keras.Input((8,))
    model = keras.Model(entry, layers.BatchNormalization()(entry))
    assert (
        abs(np.mean(model.predict(VALUES, verbose=0))) > 10 and abs(keras.ops.mean(model(VALUES, training=True))) < 1e-3
    )


def time_distributed() -> None:
    """``TimeDistributed`` normalises each time step by itself, and ``predict`` uses one moving mean for all steps."""
    import keras
    from keras import layers

    def step_means(outputs):
        return keras.ops.convert_to_numpy(outputs).mean((0, 2))

    steps = (np.random.default_rng(0).normal(size=(64, 4, 3)) + 10 * np.arange(4)[:, None]).astype(np.float32)
    wrapped, plain = (kind(layers.BatchNormalization(momentum=0.9)) for kind in (layers.TimeDistributed, lambda x: x))
    for _ in range(100):
        outputs = [step_means(layer(steps, training=True)) for layer in (wrapped, plain)]
    assert np.allclose(outputs[0], 0, atol=1e-3) and np.allclose(outputs[1], [-1.34, -0.45, 0.45, 1.34], atol=0.1)
    assert np.allclose(step_means(wrapped(steps, training=False)), [-16, -6, 4, 14], atol=1)
    assert np.allclose(step_means(plain(steps, training=False)), outputs[1], atol=0.01)
    assert np.allclose(keras.ops.convert_to_numpy(wrapped.layer.moving_mean), 16, atol=1)  # one for all steps
    merged = keras.ops.reshape(wrapped.layer(steps.reshape(-1, 3), training=True), steps.shape)
    assert np.allclose(step_means(merged), outputs[1], atol=0.01)
    videos = np.random.default_rng(0).normal(5, 2, size=(8, 4, 6, 6, 3)).astype(np.float32)
    assert np.allclose(keras.ops.mean(layers.BatchNormalization()(videos, training=True), (0, 1, 2, 3)), 0, atol=1e-3)


def momentum() -> None:
    """Keras's momentum is the weight of the old value, and with 1 the moving averages do not change."""
    import keras

    for weight in (0.1, 0.9, 1.0):
        norm = keras.layers.BatchNormalization(momentum=weight)
        norm(VALUES, training=True)
        found = keras.ops.convert_to_numpy(norm.moving_mean)
        assert np.allclose(found, (1 - weight) * VALUES.mean(0), rtol=1e-3, atol=1e-6)


def flax() -> None:
    """The collection ``batch_stats``: missing, immutable, returned; the name of an axis; and groups."""
    import jax
    from flax import linen

    class Network(linen.Module):
        @linen.compact
        def __call__(self, x, train):
            return linen.BatchNorm(use_running_average=not train)(x)

    variables = Network().init(jax.random.key(0), VALUES, train=False)
    refused(lambda: Network().apply({"params": variables["params"]}, VALUES, train=False), "the collection is empty")
    refused(lambda: Network().apply(variables, VALUES, train=True), '"batch_stats" is immutable')
    _, new = Network().apply(variables, VALUES, train=True, mutable=["batch_stats"])
    means = [each["batch_stats"]["BatchNorm_0"]["mean"] for each in (variables, new)]
    assert not means[0].any() and means[1].all()
    named = linen.BatchNorm(use_running_average=False, axis_name="batch", axis=-1)
    inputs = VALUES.reshape(4, 16, 8)  # four devices with sixteen samples each

    def step(x):
        return named.apply(variables, x, mutable=["batch_stats"])[0]

    variables = named.init(jax.random.key(0), VALUES)
    refused(lambda: step(VALUES), "unbound axis name: batch")
    together = jax.vmap(step, axis_name="batch")(inputs)
    assert abs(together.mean((0, 1))).max() < 1e-3 < abs(together.mean(1)).max()
    alone = named.clone(axis_name=None)
    assert abs(alone.apply(variables, VALUES, mutable=["batch_stats"])[0].mean(0)).max() < 1e-3
    in_eval_mode = linen.BatchNorm(use_running_average=True, axis_name="batch")
    assert in_eval_mode.apply(variables, VALUES).shape == VALUES.shape
    group = linen.GroupNorm(num_groups=32)
    refused(lambda: group.init(jax.random.key(0), np.zeros((2, 48))), r"\(32\) does not divide the number of channels")


def tensorflow() -> None:
    """``training=True`` in the call of a layer, the order of the arrays, and TFLite; needs tf-keras, too."""
    import keras
    import tensorflow as tf
    import tf_keras

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.norm = keras.layers.BatchNormalization()

        def call(self, x):
            return self.norm(x, training=True)

    def functional(keras):
        entry = keras.Input((8,))
        return keras.Model(entry, keras.layers.BatchNormalization()(entry, training=True))

    for model, wrong in ((Own(), True), (functional(keras), False), (functional(tf_keras), True)):
        alone, together = (model.predict(VALUES[:n], verbose=0)[:1] for n in (1, 64))
        assert (abs(alone - together).max() > 1e-3) == wrong
    layer = keras.layers.BatchNormalization()
    layer(VALUES)
    assert [each.name for each in layer.weights] == ["gamma", "beta", "moving_mean", "moving_variance"]

    model = keras.Sequential([keras.Input((8,)), keras.layers.BatchNormalization(momentum=0.9), keras.layers.Dense(1)])
    for _ in range(50):
        model(VALUES, training=True)
    expected = model.predict(VALUES[:2], verbose=0)
    for training in (False, True):
        archive, folder = keras.export.ExportArchive(), tempfile.mkdtemp()
        archive.track(model)
        entry = [tf.TensorSpec((2, 8), tf.float32)]
        archive.add_endpoint("serve", lambda x, training=training: model(x, training=training), input_signature=entry)
        archive.write_out(folder, verbose=False)
        lite = tf.lite.Interpreter(model_content=tf.lite.TFLiteConverter.from_saved_model(folder).convert())
        lite.allocate_tensors()
        lite.set_tensor(lite.get_input_details()[0]["index"], VALUES[:2])
        lite.invoke()
        found = lite.get_tensor(lite.get_output_details()[0]["index"])
        assert np.allclose(found, expected, atol=1e-3) != training


def replicas(synchronized: bool = False) -> None:
    """Two replicas of MirroredStrategy have moving averages of their own, and saving writes those of the first."""
    import keras
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )

    shifted = VALUES.reshape(2, 32, 8) / 5 + np.array([0, 3], np.float32)[:, None, None]  # one half for each replica
    data = tf.data.Dataset.from_tensors((shifted.reshape(64, 8), shifted.mean(2).reshape(64, 1))).repeat(20)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        norm = keras.layers.BatchNormalization(momentum=0.9, synchronized=synchronized)
        model = keras.Sequential([keras.Input((8,)), norm, keras.layers.Dense(1)])
        model.compile("adam", "mse")
    model.fit(data, verbose=0)
    means = [each.numpy() for each in norm.moving_mean.value.values]
    assert (abs(means[0] - means[1]).max() > 1e-3) != synchronized
    before, file = model.evaluate(data, verbose=0), tempfile.mkdtemp() + "/model.keras"
    model.save(file)
    loaded = keras.models.load_model(file)
    assert np.isclose(before, loaded.evaluate(data, verbose=0), rtol=1e-3) == synchronized
    assert np.allclose(keras.ops.convert_to_numpy(loaded.layers[0].moving_mean), means[0], atol=1e-3)


def synchronized() -> None:
    """With ``synchronized=True`` they have the same."""
    replicas(synchronized=True)


def equinox() -> None:
    """In mode ``ema``, the default, training normalises with running averages."""
    import warnings

    import equinox
    import jax

    for mode, normal in ((None, False), ("batch", True)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer, state = equinox.nn.make_with_state(equinox.nn.BatchNorm)(
                8, "batch", **({"mode": mode} if mode else {})
            )
        assert layer.mode == (mode or "ema")
        call = jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        for shift in (0, 100):
            y, state = call(VALUES + shift, state)
        assert (abs(y.mean()) < 1e-2) == normal


def opacus() -> None:
    """Batch norm is refused, frozen batch norm is not, and ``fix`` makes groups of few values."""
    from opacus.validators import ModuleValidator
    from torch import nn

    model = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))
    refused(lambda: ModuleValidator.validate(model, strict=True), "cannot support training with differential privacy")
    assert ModuleValidator.fix(model)[1].num_groups == 4
    model[1].requires_grad_(False).eval()
    assert not ModuleValidator.validate(model, strict=False)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        checks = (keras, time_distributed, momentum, tensorflow, replicas, synchronized, flax, equinox, opacus)
        {each.__name__: each for each in checks}[name]()
        print(name, "as the table says")
