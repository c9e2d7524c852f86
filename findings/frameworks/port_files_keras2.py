"""Write the files of Keras 2 that ``tests/unit/port/`` reads: batch norms on images and on vectors, with their answers.

    python port_files_keras2.py    in an environment with tf-keras, tensorflow and h5py

Keras 2 stores the unbiased running variance of images, and the biased one of vectors.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tf_keras as keras

FILES = Path(__file__).parents[2] / "tests" / "unit" / "port" / "files"
SIZE, CHANNELS = 2, 3


def batches() -> list[np.ndarray]:
    """Return batches of two images of 2 x 2: eight values per channel, with standard deviations of 0.05, 0.5 and 5."""
    generator = np.random.default_rng(0)
    scale = np.array([0.05, 0.5, 5.0])
    return [(generator.normal(1, 1, (SIZE, 2, 2, CHANNELS)) * scale).astype(np.float32) for _ in range(8)]


def network() -> keras.Model:
    """A norm without gamma, one inside another model, and one on vectors, whose names are in another order."""
    layers = keras.layers
    images = layers.Input((2, 2, CHANNELS), name="images")
    first = layers.BatchNormalization(scale=False, momentum=0.8, epsilon=2e-3, name="stem")(images)
    inner = keras.Sequential([layers.BatchNormalization(momentum=0.8, epsilon=2e-3, name="norm")], name="block")
    vectors = layers.Flatten(name="flat")(inner(first))
    return keras.Model(images, layers.BatchNormalization(momentum=0.5, name="head")(vectors), name="network")


def main() -> None:
    """Write all files."""
    model = network()
    model.get_layer("stem").beta.assign([1.0, 0.0, -1.0])
    model.get_layer("block").layers[0].gamma.assign([0.5, 1.0, 2.0])
    *some, x, last = batches()
    for each in some:
        model(each, training=True)
    model.save(FILES / "keras2.keras")
    model.save(FILES / "keras2.h5", include_optimizer=False)
    model.save_weights(FILES / "keras2_weights.h5")
    y = model(x, training=False)
    model(last, training=True)
    norms = [model.get_layer("stem"), model.get_layer("block").layers[0], model.get_layer("head")]
    statistics = [each.numpy() for norm in norms for each in (norm.moving_mean, norm.moving_variance)]
    after = {f"after_{i}": each for i, each in enumerate(statistics)}
    np.savez(FILES / "keras2_answers.npz", x=x, y=y, last=last, **after)


if __name__ == "__main__":
    main()
