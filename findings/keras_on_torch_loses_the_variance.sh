#!/usr/bin/env bash
# Keras 3.15.1: BatchNormalization gives other outputs on the PyTorch backend than on the JAX backend if the mean is large
# compared with the deviation. For the float32 values 9999 and 10001 (variance 1) the outputs in training mode are -1 and
# 1 on JAX, and -31.6 and 31.6 on PyTorch: there the variance is computed as E[x^2] - E[x]^2 and comes out as 0.
# Expected: the same outputs on both backends, up to rounding.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check keras==3.15.1 torch==2.13.0 jax==0.10.2 numpy==2.4.6
cat > "$folder/outputs.py" <<'PY'
import keras
import numpy as np

x = np.array([[9_999.0], [10_001.0]] * 32, np.float32)
norm = keras.layers.BatchNormalization()
output = keras.ops.convert_to_numpy(norm(keras.ops.convert_to_tensor(x), training=True))
print(keras.__version__, keras.backend.backend(), "largest output", round(float(np.abs(output).max()), 2))
expected = {"jax": (0.9, 1.1), "torch": (10, 40)}[keras.backend.backend()]
assert expected[0] < np.abs(output).max() < expected[1], output[:2]
PY
for backend in jax torch; do KERAS_BACKEND=$backend "$folder/venv/bin/python" "$folder/outputs.py"; done
