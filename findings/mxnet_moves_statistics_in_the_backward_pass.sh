#!/usr/bin/env bash
# MXNet 1.9.1: a forward pass of BatchNorm in training mode leaves the running statistics alone; the backward pass moves
# them. So passes in training mode that only re-estimate the statistics do nothing, and a pass for a penalty or a metric
# inside record() counts only if its output reaches the loss. Expected: that the forward pass moves them, as in every
# other framework of Appendix C.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mxnet==1.9.1 numpy==1.23.5
cat > "$folder/passes.py" <<'PY'
import numpy as np

np.bool = bool  # MXNet 1.9.1 uses this name, which NumPy removed in version 1.24
import mxnet
from mxnet import autograd, gluon, nd

norm = gluon.nn.BatchNorm(in_channels=1)
norm.initialize()
x = nd.array([[9.0], [11.0], [9.0], [11.0]])


def running_mean():
    nd.waitall()
    return round(norm.running_mean.data().asscalar(), 4)


found = {"at the start": running_mean()}
for _ in range(3):
    with autograd.record():
        y = norm(x)
    y.wait_to_read()
found["after three forward passes"] = running_mean()
y.backward()
found["after the backward pass of the last one"] = running_mean()
print("MXNet", mxnet.__version__, "running mean", found)
assert list(found.values()) == [0.0, 0.0, 1.0], found
PY
"$folder/venv/bin/python" -W ignore "$folder/passes.py"
