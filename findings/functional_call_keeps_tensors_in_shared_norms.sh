#!/usr/bin/env bash
# torch 2.13.0: torch.func.functional_call promises to call a module with other tensors and leave the module alone. If a
# batch norm (or any layer) is registered under two names, the module has the given tensors for good afterwards: its
# weights are no nn.Parameters any more, and its running statistics are lost.
# Expected: the module as before, as it is with a layer of one name, and with two layers that share one weight.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import torch
from torch import nn

print("torch", torch.__version__)


def tied():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    return nn.Sequential(first, second)


norm = nn.BatchNorm1d(4)
models = {
    "a batch norm with one name": nn.Sequential(nn.BatchNorm1d(4), nn.ReLU()),
    "two layers with one weight": tied(),
    "a batch norm with two names": nn.Sequential(norm, nn.ReLU(), norm),
}
found = {}
for title, model in models.items():
    before = {name: value.clone() for name, value in model.state_dict().items()}
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    other = {name: value.detach() + 1 for name, value in own.items()}
    torch.func.functional_call(model, other, (torch.randn(8, 4),))
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    found[title] = (sum(isinstance(value, nn.Parameter) for value in model.parameters()), changed)
    print(f"{title}: {found[title][0]} nn.Parameters afterwards, changed: {', '.join(changed) or 'nothing'}")
assert found["a batch norm with one name"] == (2, []), found
assert found["two layers with one weight"] == (3, []), found
parameters, changed = found["a batch norm with two names"]
assert parameters == 0 and {"0.weight", "0.running_mean", "2.running_var"} <= set(changed), found
PY
