#!/usr/bin/env bash
# torch 2.13.0: gradient checkpointing of a block with batch norm updates the running statistics twice per step. Whether
# torch.compile removes the second update depends on the order: compile(checkpoint(block)) updates once,
# checkpoint(compile(block)) twice, and so does compile(checkpoint(block)) if the block has a graph break.
# Expected: the same number of updates in all cases.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

print("torch", torch.__version__)


class Breaking(nn.Sequential):
    """A block with a line that the compiler leaves to Python."""

    def forward(self, x):
        y = super().forward(x)
        torch._dynamo.graph_break()
        return y.clone()


def updates(make, block=nn.Sequential):
    torch._dynamo.reset()
    model = block(nn.Linear(1, 1), nn.BatchNorm1d(1))
    call = make(model)
    for _ in range(3):
        call(torch.tensor([[9.0], [11.0]], requires_grad=True)).sum().backward()
    return model[1].num_batches_tracked.item()


def compiled(function):
    return torch.compile(function, backend="aot_eager")


def checkpointed(function):
    return lambda x: checkpoint(function, x, use_reentrant=False)


found = {
    "checkpoint": updates(checkpointed),
    "compile(checkpoint)": updates(lambda model: compiled(checkpointed(model))),
    "checkpoint(compile)": updates(lambda model: checkpointed(compiled(model))),
    "compile(checkpoint), graph break": updates(lambda model: compiled(checkpointed(model)), Breaking),
}
for name, number in found.items():
    print(f"{name}: {number} updates in 3 steps")
assert list(found.values()) == [6, 3, 6, 6], found
PY
