"""Which samples a classifier with BN gets right on data of large variation, and in which mode.

The data of figure 3 of Lian and Liu (2019): the class is an input that is larger by a number from 0 to 50.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bnlib import BatchNorm
from bnlib.datasets import wide_variation
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import logistic_regression
from bnlib.samplers import shuffled

NORMS = {"without normalisation": None, "batch norm": BatchNorm}
SIZES = {"quick": (200, 2_000, 2_000), "paper": (1_000, 10_000, 2_000)}
"""Classes, training and test samples."""
BATCH_SIZE, EPOCHS, LEARNING_RATE = 20, 20, 0.1
STRENGTHS = (0, 5, 10, 20, 50)
"""Edges of the parts into which the test samples are divided by their number."""


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Both classifiers."""
    return {(norm, *SIZES[scale]): range(3) for norm in NORMS}


def measure(norm: str, classes: int, samples: int, tests: int, *, seed: int, device) -> dict[str, float | list[float]]:
    """Train with SGD, then count errors.

    Returns:
        shares of errors: ``train``, training samples in train mode, in shuffled batches; ``test``, test samples in eval
        mode, and ``by_strength``, the same for each part of ``STRENGTHS``; ``train_mode``, test samples in train mode,
        in batches of test samples.
    """
    data = wide_variation(classes, samples, tests, seed=seed).to(device)
    model = logistic_regression(classes, classes, NORMS[norm], seed=seed).to(device)
    optimiser = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    steps = EPOCHS * (samples // BATCH_SIZE)
    for index in itertools.islice(shuffled(data.train_y.cpu(), BATCH_SIZE, seed), steps):
        optimiser.zero_grad()
        F.cross_entropy(model(data.train_x[index]), data.train_y[index]).backward()
        optimiser.step()
    with torch.no_grad():
        wrong = (model.eval()(data.test_x).argmax(1) != data.test_y).float()
        model.train()
        in_batches = [
            _in_train_mode(model, x, y) for x, y in ((data.train_x, data.train_y), (data.test_x, data.test_y))
        ]
    number = data.test_x.gather(1, data.test_y[:, None])[:, 0]
    parts = [wrong[(number >= low) & (number < high)].mean().item() for low, high in itertools.pairwise(STRENGTHS)]
    return {"train": in_batches[0], "test": wrong.mean().item(), "by_strength": parts, "train_mode": in_batches[1]}


def _in_train_mode(model, x: Tensor, y: Tensor) -> float:
    """Share of errors in batches in the order of the data, which is random."""
    pairs = zip(x.split(BATCH_SIZE), y.split(BATCH_SIZE), strict=True)
    return torch.cat([model(inputs).argmax(1) != labels for inputs, labels in pairs]).float().mean().item()


EXPERIMENT = Measurement(
    name="objective.errors_by_input_scale",
    question="On data of large variation, which samples does a classifier with BN miss, and in which mode?",
    source="Lian and Liu 2019, figure 3",
    axes=("norm", "classes", "samples", "tests"),
    cells=cells,
    measure=measure,
)


@cache
def load(scale: Scale = "quick") -> dict[str, dict[str, np.ndarray]]:
    """The committed result, by norm."""
    return {norm: values for (norm, *_), values in EXPERIMENT.load(scale).items()}


def error_rows(scale: Scale = "paper") -> list[dict]:
    """Return the errors on training and new samples (%), one number per seed, in train and in eval mode."""
    headers = {
        "train": ("training samples", "train mode"),
        "train_mode": ("new samples", "train mode"),
        "test": ("new samples", "eval mode"),
    }
    return [
        {"network": norm} | {header: 100 * found[key] for key, header in headers.items()}
        for norm, found in load(scale).items()
    ]


def error_by_strength_rows(scale: Scale = "paper") -> list[dict]:
    """Return the errors on new samples in eval mode (%), one number per seed, by the number that marks the class."""
    headers = [("number at the position of the class", f"{a} to {b}") for a, b in itertools.pairwise(STRENGTHS)]
    return [
        {"network": norm} | dict(zip(headers, 100 * found["by_strength"].T, strict=True))
        for norm, found in load(scale).items()
    ]
