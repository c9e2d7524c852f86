#!/usr/bin/env bash
# torch 2.13.0, CPU: torch.compiler.is_compiling() can be True in the forward pass of a torch.autograd.Function and False
# in the backward pass of the same call. If the backward pass holds something that torch.compile does not trace, such as
# an update of a Python dictionary, torch.compile does not give up the Function as a whole: it compiles `forward` by
# itself and runs `backward` as it is. So a Function that saves one tensor more when it is compiled reads its saved
# tensors shifted by one, without an error.
# Expected: the same answer in both passes, or an error.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PY'
import torch
from torch.autograd import Function

print("torch", torch.__version__)
seen = {}


class Scaled(Function):
    """3 x; the factor is saved, and in compiled code one more tensor in front of it."""

    @staticmethod
    def forward(ctx, x):
        seen["forward"] = torch.compiler.is_compiling()
        extra = [torch.zeros(())] if torch.compiler.is_compiling() else []
        ctx.save_for_backward(*extra, torch.tensor(3.0))
        return 3 * x

    @staticmethod
    def backward(ctx, g):
        seen["backward"] = torch.compiler.is_compiling()
        factor = ctx.saved_tensors[1 if torch.compiler.is_compiling() else 0]
        return factor * g


def gradient(function):
    x = torch.ones(2, requires_grad=True)
    function(x).sum().backward()
    return x.grad.tolist()


for name, function in {"eager": Scaled.apply, "compiled": torch.compile(lambda x: Scaled.apply(x), backend="eager")}.items():
    found = gradient(function)
    print(f"{name}: is_compiling {seen}, gradient of 3 x: {found}")
    expected = {"eager": (False, False, [3.0, 3.0]), "compiled": (True, False, [0.0, 0.0])}[name]
    assert (seen["forward"], seen["backward"], found) == expected, (seen, found)
PY
