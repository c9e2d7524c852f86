"""Compare the training objective of BN with the loss in new batches and in eval mode.

With random labels a network can only memorise the training set. With fixed batches it can also memorise which samples
share a batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bnlib import BatchNorm, datasets
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp
from bnlib.objective import model_objective
from bnlib.samplers import FixedBatches, Sampler, shuffled, single_label
from bnlib.training import best_device

NORMS = {"without normalisation": None, "batch norm": BatchNorm}
CONSTRUCTIONS: dict[str, Sampler] = {"shuffled": shuffled, "fixed": FixedBatches(), "one label": single_label}
LABELS = ("true", "random")
EPOCHS = {4: 6, 16: 25, 64: 50}
"""Epochs by batch size: more where an epoch has fewer steps."""
BATCH_SIZES = tuple(EPOCHS)
SIZES, LEARNING_RATE = (64, 100, 100, 10), 0.1
SEEDS = {"quick": range(5), "paper": range(20)}
EVALUATIONS = ("objective", "reshuffled", "evaluation", "test")
"""What ``measure`` returns: training set in train mode (twice) and in eval mode, and test set in eval mode."""


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return each norm with true and random labels, at each construction of batches and each batch size."""
    grid = itertools.product(LABELS, CONSTRUCTIONS, BATCH_SIZES, NORMS)
    return {setting: SEEDS[scale] for setting in grid}


def measure(labels: str, construction: str, batch_size: int, norm: str, *, seed: int, device) -> dict[str, list[float]]:
    """Train with SGD, then measure the mean loss (nats) and the share of errors in four ways.

    Returns:
        ``objective``: training set in train mode, in batches as in training (the same batches if they are fixed).
        ``reshuffled``: training set in train mode, in new, shuffled batches of the same size. ``evaluation``: training
        set in eval mode. ``test``: test set in eval mode. Each is a list of loss and error.
    """
    data, sampler = datasets.load("digits"), CONSTRUCTIONS[construction]
    classes = data.train_y if labels == "true" else _random_labels(data.train_y, data.num_classes, seed)
    model = mlp(SIZES, NORMS[norm], seed=seed).to(device)
    x, y, test_x, test_y = (each.to(device) for each in (data.train_x, classes, data.test_x, data.test_y))
    per_epoch = len(y) // batch_size
    optimiser = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    for index in itertools.islice(sampler(classes, batch_size, seed), EPOCHS[batch_size] * per_epoch):
        optimiser.zero_grad()
        F.cross_entropy(model(x[index]), y[index]).backward()
        optimiser.step()
    # With the same seed, the sampler of fixed batches returns the batches of the training again.
    training, reshuffled = sampler(classes, batch_size, seed), shuffled(classes, batch_size, seed + 1000)
    with torch.no_grad():
        found = {
            "objective": _metrics_in_batches(model, x, y, list(itertools.islice(training, per_epoch))),
            "reshuffled": _metrics_in_batches(model, x, y, list(itertools.islice(reshuffled, per_epoch))),
        }
        model.eval()
        return found | {"evaluation": _mean_metrics(model(x), y), "test": _mean_metrics(model(test_x), test_y)}


def _random_labels(labels: Tensor, num_classes: int, seed: int) -> Tensor:
    return torch.randint(num_classes, labels.shape, generator=torch.Generator().manual_seed(seed))


def _misclassified(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs.argmax(1) != labels).float()


_METRICS = (partial(F.cross_entropy, reduction="none"), _misclassified)


def _metrics_in_batches(model, x: Tensor, y: Tensor, batches: Sequence[Tensor]) -> list[float]:
    return [model_objective(model, metric, x, y, batches).item() for metric in _METRICS]


def _mean_metrics(outputs: Tensor, labels: Tensor) -> list[float]:
    return [metric(outputs, labels).mean().item() for metric in _METRICS]


EXPERIMENT = Measurement(
    name="objective.objective_and_evaluation",
    question="Does a network with BN keep its training error in reshuffled batches and in eval mode?",
    source="Lian and Liu 2019, section 4",
    axes=("labels", "construction", "batch_size", "norm"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Return the committed result."""
    return EXPERIMENT.load("quick")


def lookup(labels: str, construction: str, batch_size: int) -> dict[str, dict[str, np.ndarray]]:
    """Return the committed losses and errors for one setting, by norm."""
    return {norm: load()[labels, construction, batch_size, norm] for norm in NORMS}


_live_seed = itertools.count(100)


def train(
    labels: str, construction: str, batch_size: int, device: torch.device | str | None = None
) -> Iterator[tuple[int, int, dict[str, dict[str, np.ndarray]]]]:
    """Train both networks of one setting with a new seed per call.

    Yields:
        The number of networks so far, their total number, and the results of ``lookup`` with those of the networks
        that are trained, "NAME, your run".
    """
    seed, shown = next(_live_seed), dict(lookup(labels, construction, batch_size))
    yield 0, len(NORMS), dict(shown)
    for done, norm in enumerate(NORMS, 1):
        found = measure(labels, construction, batch_size, norm, seed=seed, device=device or best_device())
        shown[f"{norm}, your run"] = {name: np.array([values]) for name, values in found.items()}
        yield done, len(NORMS), dict(shown)


def errors(labels: str, construction: str, batch_size: int, norm: str, evaluation: str) -> np.ndarray:
    """Return the errors in per cent, one number per seed; ``evaluation`` is one of ``EVALUATIONS``."""
    return 100 * load()[labels, construction, batch_size, norm][evaluation][:, 1]


def largest_difference_without_bn(labels: str = "true") -> float:
    """Return the largest difference between objective and evaluation without BN, in percentage points of errors.

    The maximum is over all constructions of batches, batch sizes and seeds.
    """
    grid = itertools.product(CONSTRUCTIONS, BATCH_SIZES)
    pairs = [
        [errors(labels, *batches, "without normalisation", each) for each in ("objective", "evaluation")]
        for batches in grid
    ]
    return max(float(np.abs(objective - evaluation).max()) for objective, evaluation in pairs)


def random_labels_predicted(batch_size: int = 16) -> dict[str, np.ndarray]:
    """Return the share of random training labels that are predicted (%), shape (3, seeds), by network and batches.

    The three measurements are train mode in batches as in training, train mode in new batches, and eval mode.
    """
    trained = {
        "batch norm, fixed batches": ("fixed", batch_size, "batch norm"),
        "batch norm, shuffled batches": ("shuffled", batch_size, "batch norm"),
        "without normalisation, fixed batches": ("fixed", batch_size, "without normalisation"),
    }
    return {
        name: 100 - np.array([errors("random", *cell, each) for each in ("objective", "reshuffled", "evaluation")])
        for name, cell in trained.items()
    }


def true_label_rows() -> list[dict]:
    """Return the errors with true labels (%), one number per seed, by construction of batches and batch size.

    Four columns are of the network with BN; the last is of the one without, on the training set in eval mode.
    """
    headers = {
        "objective": ("train mode", "batches as in training"),
        "reshuffled": ("train mode", "new batches"),
        "evaluation": ("eval mode", "training set"),
        "test": ("eval mode", "test set"),
    }
    return [
        {"batches": construction, "batch size": batch_size}
        | {
            header: errors("true", construction, batch_size, "batch norm", evaluation)
            for evaluation, header in headers.items()
        }
        | {
            ("without normalisation", "training set"): errors(
                "true", construction, batch_size, "without normalisation", "evaluation"
            )
        }
        for construction, batch_size in itertools.product(CONSTRUCTIONS, BATCH_SIZES)
    ]
