#!/usr/bin/env bash
# MindSpore 2.10.0 asks for numpy>=1.25.0, so pip installs NumPy 2, but its library was built for NumPy 1. Batch norm in
# training mode then raises SystemError on its first call in a process, and returns right outputs on every later call. So
# a program that catches the error and goes on, or whose first batch is a warm-up, hides it. Expected: that no call works
# or all do. With NumPy 1.26.4 all work.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mindspore==2.10.0 numpy==2.4.6
cat > "$folder/calls.py" <<'PY'
import mindspore
import numpy as np

norm = mindspore.nn.BatchNorm1d(1)
norm.set_train(True)
x = mindspore.Tensor(np.array([[9.0], [11.0], [9.0], [11.0]], dtype=np.float32))
found = []
for _ in range(3):
    try:
        found.append(norm(x).asnumpy().ravel().round(3).tolist())
    except SystemError as error:
        found.append(f"SystemError, caused by {error.__cause__!r}")
print("MindSpore", mindspore.__version__, "NumPy", np.__version__, *found, sep="\n")
assert found[0] == "SystemError, caused by ImportError('numpy.core.multiarray failed to import')", found
assert found[1] == found[2] == [-1.0, 1.0, -1.0, 1.0], found
PY
"$folder/venv/bin/python" -W ignore "$folder/calls.py"
