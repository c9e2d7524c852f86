"""The same pictures in ever new company: what a network in train mode answers depends on the batch."""

from __future__ import annotations

import copy

import torch
from torch import nn

from bnlib.samplers import check_batch_size


@torch.no_grad()
def answers(model: nn.Module, x: torch.Tensor, batch_size: int, repeats: int = 200, seed: int = 0) -> torch.Tensor:
    r"""Classes that a copy of ``model`` in train mode gives each sample, in ``repeats`` random batches.

    Each repeat deals all samples into batches of ``batch_size``; the last one is filled up with samples that were
    dealt already. ``model`` is not changed, nor are its running statistics.

    Shape:
        x: (n, \*); returns int64 (n, ``repeats``).

    Raises:
        ValueError: ``batch_size`` outside 1..n.
    """
    check_batch_size(batch_size, len(x))
    model = copy.deepcopy(model).train()
    generator = torch.Generator().manual_seed(seed)
    out = torch.empty(len(x), repeats, dtype=torch.int64)
    for repeat in range(repeats):
        order = torch.randperm(len(x), generator=generator)
        dealt = torch.cat([order, order[: -len(x) % batch_size]])
        for batch in dealt.split(batch_size):
            out[batch, repeat] = model(x[batch]).argmax(1)
    return out
