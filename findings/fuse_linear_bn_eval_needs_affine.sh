#!/usr/bin/env bash
# torch 2.13.0: fuse_linear_bn_eval raises a TypeError for a batch norm without gamma and beta (affine=False).
# Expected: the folded layer, as from fuse_conv_bn_eval, which takes the missing gamma as 1 and the missing beta as 0.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

print("torch", torch.__version__)
convolution, norm = nn.Conv2d(4, 4, 3).eval(), nn.BatchNorm2d(4, affine=False).eval()
x = torch.randn(2, 4, 5, 5)
difference = (fuse_conv_bn_eval(convolution, norm)(x) - norm(convolution(x))).abs().max().item()
print(f"fuse_conv_bn_eval, affine=False: largest difference {difference:.0e}")
assert difference < 1e-5
try:
    fuse_linear_bn_eval(nn.Linear(4, 4).eval(), nn.BatchNorm1d(4, affine=False).eval())
except TypeError as error:
    print("fuse_linear_bn_eval, affine=False: TypeError:", error)
else:
    raise AssertionError("now it works")
PY
