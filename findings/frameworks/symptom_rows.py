"""Check what the symptom table of chapter 7 says of Keras, Flax and Opacus, each in an environment that has it.

    KERAS_BACKEND=jax python findings/frameworks/symptom_rows.py keras flax
    python findings/frameworks/symptom_rows.py opacus

Checked with Keras 3.15.1 on JAX and PyTorch, Flax 0.12.8 on JAX 0.10.2, and Opacus 1.6.0 on PyTorch 2.13.0.
"""

from __future__ import annotations

import re
import sys

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

    entry = keras.Input((8,))
    model = keras.Model(entry, layers.BatchNormalization()(entry))
    assert (
        abs(np.mean(model.predict(VALUES, verbose=0))) > 10 and abs(keras.ops.mean(model(VALUES, training=True))) < 1e-3
    )


def flax() -> None:
    """The collection ``batch_stats``: missing, immutable, returned; and groups."""
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
    group = linen.GroupNorm(num_groups=32)
    refused(lambda: group.init(jax.random.key(0), np.zeros((2, 48))), r"\(32\) does not divide the number of channels")


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
        {"keras": keras, "flax": flax, "opacus": opacus}[name]()
        print(name, "as the table says")
