#!/usr/bin/env bash
# torch 2.13.0: torch.optim.swa_utils.update_bn sets momentum=None while it runs. If a batch raises an error, such as a
# last batch of one sample, momentum stays None, and a second call without an error takes this None for the momentum of
# the layer and keeps it. Expected: that the momentum of the layer is there again after an error.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

print("torch", torch.__version__)
batches = torch.tensor([[9.0], [11.0], [9.0], [11.0], [9.0]]).split(4)
layer = nn.BatchNorm1d(1).eval()
found = {"before": (layer.momentum, layer.training)}
try:
    update_bn(batches, layer)
except ValueError as error:
    print(type(error).__name__, error)
found["after the error"] = (layer.momentum, layer.training)
update_bn(batches[:1], layer)
found["after a second call"] = (layer.momentum, layer.training)
for name, (momentum, training) in found.items():
    print(f"{name}: momentum {momentum}, {'train' if training else 'eval'} mode")
assert list(found.values()) == [(0.1, False), (None, True), (None, True)], found
PY
