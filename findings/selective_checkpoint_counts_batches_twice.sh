#!/usr/bin/env bash
# torch 2.13.0: a selective checkpoint whose policy saves the outputs of batch norm (CheckpointPolicy.MUST_SAVE) moves
# the running statistics once per step, as it should, but num_batches_tracked twice. With momentum=None the counter is
# the weight of a batch, so the running mean of batches with the means 10, 20 and 30 is 16.67 in place of 20.
# Expected: an operation that is saved is not counted again.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import functools

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

print("torch", torch.__version__)


def save_batch_norm(context, operation, *arguments, **options):
    saved = "batch_norm" in str(operation)
    return CheckpointPolicy.MUST_SAVE if saved else CheckpointPolicy.PREFER_RECOMPUTE


def train(momentum, selective):
    layer = nn.BatchNorm1d(1, momentum=momentum)
    contexts = functools.partial(create_selective_checkpoint_contexts, save_batch_norm)
    for factor in (1, 2, 3):
        x = factor * torch.tensor([[9.0], [11.0], [9.0], [11.0]]).requires_grad_()
        y = checkpoint(layer, x, use_reentrant=False, context_fn=contexts) if selective else layer(x)
        y.square().sum().backward()
    return layer.num_batches_tracked.item(), round(layer.running_mean.item(), 2)


found = {(momentum, each): train(momentum, each) for momentum in (0.1, None) for each in (False, True)}
for (momentum, selective), (count, mean) in found.items():
    kind = "selective checkpoint" if selective else "no checkpoint"
    print(f"momentum={momentum}, {kind}: num_batches_tracked {count}, running mean {mean}")
assert found[0.1, False] == (3, 5.61) and found[0.1, True] == (6, 5.61), found
assert found[None, False] == (3, 20.0) and found[None, True] == (6, 16.67), found
PY
