#!/usr/bin/env bash
# torch 2.13.0: to stop the second update of batch norm under gradient checkpointing, switch off track_running_stats in
# the second pass. The reentrant implementation allows it, the recommended one (use_reentrant=False) raises.
# Expected: no error. The flag changes neither outputs nor gradients in train mode, only whether buffers are written.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import torch
from torch import nn
from torch.utils.checkpoint import CheckpointError, checkpoint

print("torch", torch.__version__)


class OnceTracked(nn.BatchNorm1d):
    """Update the statistics in the first pass only."""

    def forward(self, x):
        self.passes = getattr(self, "passes", 0) + 1
        self.track_running_stats = self.passes % 2 == 1
        return super().forward(x)


x = torch.randn(8, 4, requires_grad=True)
plain, found = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), {}
plain(x).square().sum().backward()
for reentrant in (True, False):
    model = nn.Sequential(nn.Linear(4, 4), OnceTracked(4))
    model[0].load_state_dict(plain[0].state_dict())
    try:
        checkpoint(model, x, use_reentrant=reentrant).square().sum().backward()
        same = torch.equal(model[1].running_mean, plain[1].running_mean)
        found[reentrant] = f"works, one update: {same}"
    except CheckpointError as error:
        found[reentrant] = "CheckpointError: " + str(error).splitlines()[0]
    print(f"use_reentrant={reentrant}:", found[reentrant])
assert found[True] == "works, one update: True", found
assert "different number of tensors" in found[False], found
PY
