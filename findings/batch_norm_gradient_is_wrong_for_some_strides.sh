#!/usr/bin/env bash
# torch 2.13.0, CPU: the gradient of torch.nn.BatchNorm2d in train mode is wrong, without an error, if a dimension of
# size 1 leaves open whether the input or the gradient at the output is channels-last. Three ordinary programs: an image
# in the order height, width, channels, permuted to a batch of one; sequences with transpose(1, 2).unsqueeze(-1) in front
# of the layer; and sequences with squeeze(-1).transpose(1, 2) and a linear layer behind it.
# Expected: the gradients of the formula, as with .contiguous() on the input, or on the gradient.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import torch
from torch import nn

print("torch", torch.__version__)


def formula(x):
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


def batch_norm(x):
    return nn.BatchNorm2d(3)(x)


def of_contiguous(x):
    return batch_norm(x.contiguous())


class Contiguous(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y):
        return y.view_as(y)

    @staticmethod
    def backward(ctx, g):
        return g.contiguous()


def with_contiguous_gradient(x):
    return Contiguous.apply(batch_norm(x))


torch.manual_seed(0)
head, weights = nn.Linear(3, 2), torch.randn(1, 3, 5, 4)
weights_of_sequences, weights_of_head = torch.randn(8, 3, 10, 1), torch.randn(8, 10, 2)
# The input, a loss of the layer's output, and what to do instead.
programs = {
    "an image (H, W, C), permuted": (
        torch.randn(5, 4, 3).permute(2, 0, 1)[None], lambda y: (y * weights).sum(), of_contiguous),
    "transpose(1, 2).unsqueeze(-1) in front": (
        torch.randn(8, 10, 3).transpose(1, 2).unsqueeze(-1), lambda y: (y * weights_of_sequences).sum(), of_contiguous),
    "squeeze(-1).transpose(1, 2) and a linear layer behind": (
        torch.randn(8, 3, 10, 1), lambda y: (head(y.squeeze(-1).transpose(1, 2)) * weights_of_head).sum(),
        with_contiguous_gradient),
}
for title, (x, loss, instead) in programs.items():
    found = {}
    for layer in (batch_norm, instead, formula):
        given = x.detach().requires_grad_()  # the strides stay
        y = layer(given)
        found[layer] = torch.autograd.grad(loss(y), given)[0]
        output = formula(x)
        assert torch.allclose(y, output, atol=1e-5), "the outputs are right"
    size = found[formula].abs().max()
    wrong = (found[batch_norm] - found[formula]).abs().max() / size
    repaired = (found[instead] - found[formula]).abs().max() / size
    print(f"{title}: the gradient is off by {wrong:.0%} of its largest value, with .contiguous() by {repaired:.0e}")
    assert wrong > 0.3, (title, wrong)
    assert repaired < 1e-4, (title, repaired)
PY
