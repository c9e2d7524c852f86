"""Predict the same images in train mode in many random batches: the prediction depends on the other images."""

from __future__ import annotations

import copy

import torch
from torch import nn

from bnlib.samplers import check_batch_size


@torch.no_grad()
def train_mode_predictions(
    model: nn.Module, x: torch.Tensor, batch_size: int, repeats: int = 200, seed: int = 0
) -> torch.Tensor:
    r"""Return the class that ``model`` in train mode predicts for each sample, in each of ``repeats`` random batches.

    Each repeat shuffles the samples and cuts them into batches of ``batch_size``; the first samples fill up the last
    batch. The predictions come from a copy, so ``model`` and its running statistics do not change.

    Shape:
        x: (n, \*); returns int64 (n, ``repeats``).

    Raises:
        ValueError: ``batch_size`` outside 1..n.
    """
    check_batch_size(batch_size, len(x))
    model = copy.deepcopy(model).train()
    generator = torch.Generator().manual_seed(seed)
    predictions = torch.empty(len(x), repeats, dtype=torch.int64)
    for repeat in range(repeats):
        order = torch.randperm(len(x), generator=generator)
        filled_up = torch.cat([order, order[: -len(x) % batch_size]])
        for batch in filled_up.split(batch_size):
            predictions[batch, repeat] = model(x[batch]).argmax(1)
    return predictions


def prediction_rows(train_mode: torch.Tensor, eval_mode: torch.Tensor, labels: torch.Tensor) -> list[dict]:
    """Compare the classes predicted in train mode, in random batches, with those predicted in eval mode.

    Shape:
        train_mode: (n, repeats), as ``train_mode_predictions`` returns it; eval_mode and labels: (n,).

    Returns:
        rows for ``tables.Table``: both test errors, the share of images of which at least one prediction differs from
        eval mode, and the share of different predictions for the median image.
    """
    differs = (train_mode != eval_mode[:, None]).float()
    shares = {
        "test error in eval mode": (eval_mode != labels).float().mean(),
        "test error in train mode": (train_mode != labels[:, None]).float().mean(),
        "images with at least one different prediction": differs.amax(1).mean(),
        "different predictions for the median image": differs.mean(1).median(),
    }
    return [{"quantity": name, "share (%)": 100 * share.item()} for name, share in shares.items()]
