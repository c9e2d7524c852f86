#!/usr/bin/env bash
# torch 2.13.0, onnxscript 0.7.2: torch.onnx.export(dynamo=True) of F.batch_norm(x, mean, variance, training=True) writes
# a BatchNormalization that normalises with the running statistics. There is no message. With None in their place, the
# file normalises with the batch, and so does the file of the older exporter (dynamo=False) in both cases.
# Expected: the outputs of the model.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 \
    onnx==1.23.2 onnxruntime==1.32.0 onnxscript==0.7.2
"$folder/venv/bin/python" - <<'PY'
import io
import warnings
from importlib.metadata import version

import onnxruntime
import torch
from torch import nn
from torch.nn import functional as F

warnings.simplefilter("ignore")
print("torch", torch.__version__, *(f"{name} {version(name)}" for name in ("onnx", "onnxruntime", "onnxscript")))


class Normalise(nn.Module):
    """Normalise with the batch in both modes."""

    def __init__(self, pass_running):
        super().__init__()
        self.register_buffer("mean", torch.tensor([2.71]))
        self.register_buffer("variance", torch.tensor([1.09]))
        self.pass_running = pass_running

    def forward(self, x):
        running = (self.mean, self.variance) if self.pass_running else (None, None)
        return F.batch_norm(x, *running, training=True)


x = torch.tensor([[9.0], [11.0], [9.0], [11.0]])
found = {}
for pass_running in (True, False):
    for dynamo in (True, False):
        model, file = Normalise(pass_running).eval(), io.BytesIO()
        if dynamo:
            torch.onnx.export(model, (x,), dynamo=True, verbose=False).save(file)
        else:
            torch.onnx.export(model, (x,), file, dynamo=False)
        session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
        output = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        found[pass_running, dynamo] = round(float(output[0, 0]), 2)
        given = "running statistics" if pass_running else "None"
        expected = model(x)[0, 0].item()
        print(f"F.batch_norm with {given}, dynamo={dynamo}: {found[pass_running, dynamo]}, model: {expected:.2f}")
assert found == {(True, True): 6.02, (True, False): -1.0, (False, True): -1.0, (False, False): -1.0}, found
PY
