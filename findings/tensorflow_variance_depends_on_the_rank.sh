#!/usr/bin/env bash
# Keras 2 (tf-keras 2.21.0) and Sonnet 2.0.2 store the biased running variance for vectors and the unbiased one for
# images, because TensorFlow has a fused operation for images. Four images of one pixel, 9, 11, 9 and 11, are four values
# with the variance 1, or 4/3 if it is divided by 3. Keras 3 stores 1 for both. Expected: one kind of variance per layer.
# So a model of Keras 2 that is fine-tuned in Keras 3 has another running variance, by n/(n - 1) for n values per channel.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tf-keras==2.21.0 tensorflow==2.21.0 keras==3.15.1 \
    dm-sonnet==2.0.2 numpy==2.4.6
cat > "$folder/variances.py" <<'PY'
import keras
import numpy as np
import sonnet
import tf_keras

values = np.array([9, 11, 9, 11], np.float32)
found = {}
for name, shape in (("vectors", (4, 1)), ("images", (4, 1, 1, 1))):
    for package in (tf_keras, keras):
        norm = package.layers.BatchNormalization(momentum=0.0)
        norm(values.reshape(shape), training=True)
        found[package.__name__, name] = float(norm.moving_variance.numpy()[0])
    norm = sonnet.BatchNorm(create_scale=True, create_offset=True)
    norm(values.reshape(shape), is_training=True)
    found["sonnet", name] = float(norm.moving_variance.value.numpy().ravel()[0])
print("tf-keras", tf_keras.__version__, "Keras", keras.__version__, "Sonnet", sonnet.__version__)
for (package, name), variance in found.items():
    print(f"{package}, {name}: running variance {variance:.4f}")
    unbiased = name == "images" and package != "keras"
    assert np.isclose(variance, 4 / 3 if unbiased else 1, rtol=1e-3), found
PY
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/variances.py"
