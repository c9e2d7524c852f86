#!/usr/bin/env bash
# The guide of Keras on fine-tuning says: keep BatchNormalization in inference mode by calling the base model with
# `training=False`. In a functional model of Keras 3.15.1, `fit` passes its own training=True to every layer instead, so
# the moving statistics move. Expected: the argument of the call wins, as in the guide, and as in a model that calls its
# layers itself. `trainable = False` does keep the layer in inference mode.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check keras==3.15.1 jax==0.7.2
KERAS_BACKEND=jax "$folder/venv/bin/python" - <<'PY'
import keras
import numpy as np

x = np.random.default_rng(0).normal(5, 2, (64, 3)).astype("float32")


def statistics_move(build, trainable=True):
    layer = keras.layers.BatchNormalization()
    model = build(layer)
    layer.trainable = trainable
    model.compile("sgd", "mse")
    before = keras.ops.convert_to_numpy(layer.moving_mean).copy()
    model.fit(x, x[:, :1], verbose=0)
    return bool((keras.ops.convert_to_numpy(layer.moving_mean) != before).any())


def functional(layer, **mode):
    inputs = keras.Input((3,))
    base = keras.Model(inputs, layer(inputs))
    outer = keras.Input((3,))
    return keras.Model(outer, keras.layers.Dense(1)(base(outer, **mode)))


class Subclass(keras.Model):
    def __init__(self, layer):
        super().__init__()
        self.norm, self.head = layer, keras.layers.Dense(1)

    def call(self, inputs, training=None):
        return self.head(self.norm(inputs, training=False))


def subclass(layer):
    model = Subclass(layer)
    model(x)
    return model


found = {
    "functional, no argument": statistics_move(functional),
    "functional, training=False": statistics_move(lambda layer: functional(layer, training=False)),
    "functional, trainable = False": statistics_move(functional, trainable=False),
    "subclass, training=False": statistics_move(subclass),
}
print("keras", keras.__version__, "on", keras.backend.backend())
for name, moved in found.items():
    print(f"{name}: the moving mean {'moves' if moved else 'stays'}")
assert list(found.values()) == [True, True, False, False]
PY
