"""Count the errors of logistic regression with BN by the strength of the input that marks the class, in both modes.

The data are those of figure 3 of Lian and Liu (2019): a sample of class i is noise of variance 1, and to its input i a
number from 0 to 50, the signal, is added.
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
"""Number of classes, of training samples and of test samples, by scale."""
BATCH_SIZE, EPOCHS, LEARNING_RATE = 20, 20, 0.1
SIGNAL_EDGES = (0, 5, 10, 20, 50)
"""Edges of the intervals of the signal into which the test samples are divided."""


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return both networks with the number of classes and samples of the scale, and three seeds."""
    return {(norm, *SIZES[scale]): range(3) for norm in NORMS}


def measure(norm: str, classes: int, samples: int, tests: int, *, seed: int, device) -> dict[str, float | list[float]]:
    """Train with SGD, then measure the share of errors in both modes.

    Returns:
        ``train``: training samples, in train mode, in shuffled batches. ``test``: test samples, in eval mode.
        ``test_by_signal``: the same, for each interval of ``SIGNAL_EDGES``. ``test_train_mode``: test samples, in train
        mode, in batches of test samples.
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
        train_error = _train_mode_error(model, data.train_x, data.train_y)
        test_train_mode_error = _train_mode_error(model, data.test_x, data.test_y)
    signal = data.test_x.gather(1, data.test_y[:, None])[:, 0]
    by_signal = [wrong[(signal >= a) & (signal < b)].mean().item() for a, b in itertools.pairwise(SIGNAL_EDGES)]
    return {
        "train": train_error,
        "test": wrong.mean().item(),
        "test_by_signal": by_signal,
        "test_train_mode": test_train_mode_error,
    }


def _train_mode_error(model, x: Tensor, y: Tensor) -> float:
    """Return the share of errors in batches in the order of the data, which is random."""
    pairs = zip(x.split(BATCH_SIZE), y.split(BATCH_SIZE), strict=True)
    return torch.cat([model(inputs).argmax(1) != labels for inputs, labels in pairs]).float().mean().item()


def normalised_signal(numbers: Sequence[float], batches: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Normalise an input to which a number was added in one sample of each batch, as BN does in both modes.

    In train mode the other samples of the batch are noise. In eval mode the statistics are those of the paper's data,
    where one sample of 1,000 has a number, uniform on (0, 50), at this input.

    Returns:
        the normalised value in train mode, shape (batches, numbers), and in eval mode, shape (numbers,).

    Example:
        >>> train, evaluation = normalised_signal([10, 50])
        >>> train.mean(0).round(1), evaluation.round(1)
        (array([4. , 4.3]), array([ 7.4, 36.9]))
    """
    values = np.repeat(np.random.default_rng(0).standard_normal((batches, 1, BATCH_SIZE)), len(numbers), axis=1)
    values[:, :, 0] += numbers
    train = (values[:, :, 0] - values.mean(2)) / values.std(2)
    classes, largest = 1000, SIGNAL_EDGES[-1]
    mean = largest / 2 / classes
    variance = 1 + largest**2 / 3 / classes - mean**2
    return train, (np.array(numbers) - mean) / np.sqrt(variance)


EXPERIMENT = Measurement(
    name="objective.errors_by_input_scale",
    question="Which samples does logistic regression with BN misclassify, and in which mode?",
    source="Lian and Liu 2019, figure 3",
    axes=("norm", "classes", "samples", "tests"),
    cells=cells,
    measure=measure,
)


@cache
def load(scale: Scale = "quick") -> dict[str, dict[str, np.ndarray]]:
    """Return the committed result, by norm."""
    return {norm: values for (norm, *_), values in EXPERIMENT.load(scale).items()}


def error_rows(scale: Scale = "paper") -> list[dict]:
    """Return the errors on training and new samples (%), one number per seed, in train and in eval mode."""
    headers = {
        "train": ("training samples", "train mode"),
        "test_train_mode": ("new samples", "train mode"),
        "test": ("new samples", "eval mode"),
    }
    return [
        {"network": norm} | {header: 100 * found[key] for key, header in headers.items()}
        for norm, found in load(scale).items()
    ]
