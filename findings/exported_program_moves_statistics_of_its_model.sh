#!/usr/bin/env bash
# torch 2.13.0: the program that torch.export makes of a model in train mode shares its buffers with the model, so
# running the program moves the running statistics of the model. The parameters are shared as well.
# Expected: an exported program is a thing of its own, as a file of it is.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import io

import torch
from torch import nn

print("torch", torch.__version__)
x = torch.tensor([[9.0], [11.0], [9.0], [11.0]])
found = {}
for kind in ("program", "program from a file"):
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    exported = torch.export.export(model, (x,))
    if kind == "program from a file":
        file = io.BytesIO()
        torch.export.save(exported, file)
        file.seek(0)
        exported = torch.export.load(file)
    program = exported.module()
    before = model[1].num_batches_tracked.item()
    for _ in range(3):
        program(x)
    found[kind] = before, model[1].num_batches_tracked.item()
    print(f"{kind}, run three times: num_batches_tracked of the model {found[kind][0]} before, {found[kind][1]} after")
assert found == {"program": (0, 3), "program from a file": (0, 0)}, found
PY
