"""Ask which of two reasons makes Batch Renorm fail on batches of one vector: no gradient, or averages that vanish.

A batch of one vector has a standard deviation of sqrt(eps), so the running standard deviations fall to this value. Here
they run as usual, or are measured once on all training images before training and then held. No gradient passes
Batch Renorm in these batches, so the layers below the last norm keep their initial weights in both cases, and the
statistics that are held stay exact.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import BatchRenorm, datasets
from bnlib.experiments.alternatives import batch_renorm_gradient, batch_sizes
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.training import error_rate

AVERAGES = ("running", "held")
LEARNING_RATES = (0.01, 0.03, 0.1, 0.3)
STEPS = 352
SEEDS = {"quick": range(3), "paper": range(10)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return running and held averages at each learning rate."""
    return {cell: SEEDS[scale] for cell in itertools.product(AVERAGES, LEARNING_RATES)}


def hold_statistics(model: nn.Sequential, x: Tensor) -> None:
    """Set the averages of each Batch Renorm layer to the statistics of all of ``x``, and stop moving them."""
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, BatchRenorm):
                layer.momentum = 1.0
                layer.train()(x)
                layer.momentum = 0.0
                x = layer.eval()(x)
                layer.train()
            else:
                x = layer(x)


def measure(averages: str, lr: float, *, seed: int, device) -> dict[str, float]:
    """Train the network of ``alternatives.batch_sizes`` with Batch Renorm for ``STEPS`` steps of one image each.

    Returns:
        ``test_error``, a share, and ``running_std``: mean running standard deviation of the first Batch Renorm layer at
        the end, with eps.
    """
    data = datasets.load("digits").to(device)
    model = batch_sizes.model("Batch Renorm", seed=seed).to(device)
    if averages == "held":
        hold_statistics(model, data.train_x)
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)
    batches = batch_sizes.CONSTRUCTIONS["shuffled"](data.train_y.cpu(), 1, seed)
    for index in itertools.islice(batches, STEPS):
        optimiser.zero_grad()
        F.cross_entropy(model(data.train_x[index]), data.train_y[index]).backward()
        optimiser.step()
    first = next(layer for layer in model if isinstance(layer, BatchRenorm))
    std = (first.running_var + first.eps).sqrt().mean().item()
    return {"test_error": error_rate(model, data.test_x, data.test_y), "running_std": std}


EXPERIMENT = Measurement(
    name="alternatives.batch_renorm_averages",
    question="Does Batch Renorm fail on batches of one vector only because it passes no gradient?",
    source="Ioffe 2017, section 3",
    axes=("averages", "lr"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def at_best_rate(averages: str) -> dict[str, np.ndarray]:
    """Return the test errors (%) and the standard deviations at the best learning rate, one number per seed."""
    rows = [load()[averages, lr] for lr in LEARNING_RATES]
    best = rows[batch_sizes.best_learning_rate(np.array([row["test_error"] for row in rows]))]
    return {"test_error": 100 * best["test_error"], "running_std": best["running_std"]}


def error_rows() -> list[dict]:
    """Return the test errors (%) on batches of one image, one number per seed, of Batch Renorm and of layer norm."""
    rows = []
    for averages, title in {"running": "running averages", "held": "held at those of all images"}.items():
        found = at_best_rate(averages)
        rows.append(_row("Batch Renorm", title, "none", found["running_std"], found["test_error"]))
    for layers, title in {"above the last norm": "none", "all layers": "all"}.items():
        errors = [
            100 * batch_renorm_gradient.load()["layer norm", "shuffled", 1, lr, layers]["test_error"]
            for lr in batch_renorm_gradient.LEARNING_RATES
        ]
        rows.append(_row("layer norm", "those of the sample", title, None, min(errors, key=np.median)))
    return rows


def _row(norm: str, statistics: str, layers: str, std: np.ndarray | None, errors: np.ndarray) -> dict:
    return {
        "norm": norm,
        "statistics": statistics,
        "layers below the last norm that learn": layers,
        "running standard deviation": "–" if std is None else f"{np.median(std):.3f}",
        "test error (%)": errors,
    }
