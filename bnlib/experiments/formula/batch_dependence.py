"""Predict the same images in train mode in many random batches: the prediction depends on the other images.

The networks are trained on digits with batches of 32 images. The size of the batches in which they then predict is
varied.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from bnlib import BatchNorm, datasets
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp
from bnlib.samplers import check_batch_size
from bnlib.training import fit

LAYER_SIZES = (64, 100, 100, 10)
TRAINING = {"batch_size": 32, "lr": 0.1, "epochs": 10}
BATCH_SIZES = (4, 8, 16, 32, 64, 128, 256)
"""Sizes of the batches in which the trained networks predict."""
REPEATS = 200
SEEDS = {"quick": range(5), "paper": range(20)}
IMAGE = 179
"""Index of the test image whose predictions are shown: of the images that network 0 recognises in eval mode, the one
that it predicts differently most often in batches of 8."""


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


@torch.no_grad()
def two_batches(
    model: nn.Module, x: torch.Tensor, image: int = IMAGE, batch_size: int = 8, seed: int = 0
) -> list[tuple[np.ndarray, int]]:
    """Find two random batches that begin with the same image: one with its prediction of eval mode, one with another.

    ``model`` predicts in train mode; it and its running statistics do not change.

    Returns:
        the images of the first random batch with the prediction of eval mode, shape (batch_size, 8, 8), and the class
        predicted for its first image; and the same for the first batch with another prediction.

    Raises:
        RuntimeError: in 1,000 batches there are not both.
    """
    evaluation = copy.deepcopy(model).eval()(x[image, None]).argmax().item()
    model, generator, found = copy.deepcopy(model).train(), torch.Generator().manual_seed(seed), {}
    others = torch.cat([torch.arange(image), torch.arange(image + 1, len(x))])
    for _ in range(1000):
        batch = others[torch.randperm(len(others), generator=generator)][: batch_size - 1]
        images = torch.cat([x[image, None], x[batch]])
        prediction = model(images)[0].argmax().item()
        found.setdefault(prediction == evaluation, (images[:, 0].numpy(), prediction))
        if len(found) == 2:
            return [found[True], found[False]]
    raise RuntimeError(f"image must be predicted in two ways in 1,000 batches of {batch_size}, got {image}, in one way")


@cache
def trained_network(seed: int) -> nn.Module:
    """Train a network with BN on digits as ``TRAINING`` says, with the seed for the initial weights and the batches."""
    model = mlp(LAYER_SIZES, BatchNorm, seed=seed)
    fit(model, datasets.load("digits"), **TRAINING, seed=seed, progress=False)
    return model


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return one cell per size of the batches in which the networks predict."""
    return {(size,): SEEDS[scale] for size in BATCH_SIZES}


def measure(batch_size: int, *, seed: int, device: str) -> dict[str, Any]:
    """Train a network and predict all test images ``REPEATS`` times in train mode, in batches of ``batch_size``.

    Returns:
        ``changed``: share of the images of which at least one prediction differs from eval mode; ``typical_share``:
        share of different predictions for the median image; ``train_mode_error`` and ``eval_mode_error``: test errors;
        ``counts``: how often each of ten classes was predicted for ``IMAGE``.
    """
    data, model = datasets.load("digits"), trained_network(seed)
    train_mode = train_mode_predictions(model, data.test_x, batch_size, REPEATS, seed)
    eval_mode = model.eval()(data.test_x).argmax(1)
    differs = (train_mode != eval_mode[:, None]).float()
    return {
        "changed": differs.amax(1).mean().item(),
        "typical_share": differs.mean(1).median().item(),
        "train_mode_error": (train_mode != data.test_y[:, None]).float().mean().item(),
        "eval_mode_error": (eval_mode != data.test_y).float().mean().item(),
        "counts": train_mode[IMAGE].bincount(minlength=10).tolist(),
    }


EXPERIMENT = Measurement(
    name="formula.batch_dependence",
    question="How often does a network with BN in train mode change its prediction with the other images in the batch?",
    source="chapter 1",
    axes=("batch_size",),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


@dataclass(frozen=True)
class Predictions:
    """Predictions in train mode for ``IMAGE`` at one batch size, and the share of changed images at all batch sizes.

    Attributes:
        image: the image, shape (8, 8).
        label: its class.
        counts: how often network 0 predicted each class, shape (10,).
        batch_sizes: all sizes.
        changed: share of the test images with at least one different prediction, by batch size and seed, shape
            (sizes, seeds).
        errors: test errors in train mode, in the same shape.
    """

    image: np.ndarray
    label: int
    counts: np.ndarray
    batch_sizes: tuple[int, ...]
    changed: np.ndarray
    errors: np.ndarray


def predictions(batch_size: int) -> Predictions:
    """Return the committed predictions at one batch size, for ``figures.draw_predictions``."""
    data = datasets.load("digits")
    changed, errors = (
        np.array([load()[size,][name] for size in BATCH_SIZES]) for name in ("changed", "train_mode_error")
    )
    counts = load()[batch_size,]["counts"][0].astype(int)
    return Predictions(data.test_x[IMAGE, 0].numpy(), int(data.test_y[IMAGE]), counts, BATCH_SIZES, changed, errors)


def prediction_rows(train_mode: torch.Tensor, eval_mode: torch.Tensor, labels: torch.Tensor) -> list[dict]:
    """Compare the classes predicted in train mode, in random batches, with those predicted in eval mode.

    Shape:
        train_mode: (n, repeats), as ``train_mode_predictions`` returns it; eval_mode and labels: (n,).

    Returns:
        rows for ``tables.Table``: both test errors, the share of images of which at least one prediction differs from
        eval mode, and the share of the batches in which the prediction of the median image differs.
    """
    differs = (train_mode != eval_mode[:, None]).float()
    shares = {
        "test error in eval mode": (eval_mode != labels).float().mean(),
        "test error in train mode": (train_mode != labels[:, None]).float().mean(),
        "images with at least one different prediction": differs.amax(1).mean(),
        "batches that change the prediction of the median image": differs.mean(1).median(),
    }
    return [{"quantity": name, "share (%)": 100 * share.item()} for name, share in shares.items()]
