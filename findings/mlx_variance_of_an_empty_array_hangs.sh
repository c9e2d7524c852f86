#!/usr/bin/env bash
# MLX 0.32.4 on the CPU: the variance of an empty array that was made from a NumPy array never returns in some processes,
# and is NaN in the others. So nn.BatchNorm can hang on an empty batch in training mode. The variance of mx.zeros((0, 1))
# is always NaN. Expected: NaN, or an error, in every process.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "mlx[cpu]==0.32.4" numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import subprocess
import sys
from importlib.metadata import version

MADE = {"from NumPy": "mx.array(np.zeros((0, 1), np.float32))", "by MLX": "mx.zeros((0, 1))"}
found = dict.fromkeys(MADE, 0)
for name, made in MADE.items():
    code = f"import mlx.core as mx, numpy as np; print({made}.var(axis=0).tolist())"
    for _ in range(20):
        try:
            ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=10, check=True)
            assert ran.stdout == "[nan]\n", ran.stdout
        except subprocess.TimeoutExpired:
            found[name] += 1
    print(f"MLX {version('mlx')}, {name}: {found[name]} of 20 processes did not return within 10 seconds")
assert found["from NumPy"] > 0 == found["by MLX"], found
PY
