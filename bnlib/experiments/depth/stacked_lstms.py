"""Train stacked LSTMs with BN between the layers by full-batch descent: the network of the original question."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bnlib import BatchNorm
from bnlib.experiments.depth.descent import Curves, curves
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import lstm_stack
from bnlib.probes import gradient_norms_by_layer

CHARACTERS, STEPS = 50, 20
DEPTHS, LEARNING_RATES = (10, 20, 40, 100), (1e-4, 0.4, 10.0)
SENTENCES = {"shared": 1, "per time step": 8, "without normalisation": 1}
SEEDS = {"quick": range(3), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return statistics shared by all time steps of one sentence, per time step of eight sentences, and no BN."""
    shared = itertools.product(("shared",), DEPTHS, LEARNING_RATES)
    per_step = itertools.product(("per time step",), (10, 20), (1e-4,))
    plain = itertools.product(("without normalisation",), (100,), (0.4,))
    return {cell: SEEDS[scale] for cell in (*shared, *per_step, *plain)}


def sentences(count: int) -> tuple[Tensor, Tensor]:
    """Return the alphabet from ``count`` starting points, one-hot (count, 50, 50), and the next characters (count, 50).

    Raises:
        ValueError: ``count`` is not from 1 to 50.
    """
    if not 1 <= count <= CHARACTERS:
        raise ValueError(f"count must be from 1 to {CHARACTERS}, got {count}")
    begins = torch.arange(count) * (CHARACTERS // count)
    characters = (begins[:, None] + torch.arange(CHARACTERS)) % CHARACTERS
    return F.one_hot(characters, CHARACTERS).float(), (characters + 1) % CHARACTERS


def measure(statistics: str, depth: int, lr: float, *, seed: int, device: str) -> dict[str, Any]:
    """Run full-batch gradient descent in float32.

    Returns:
        ``initial_loss`` and ``loss_changes`` as ``descent.measure``; ``gradient_norms``: at the weights of each LSTM
        before training, first layer first.
    """
    x, y = (each.to(device) for each in sentences(SENTENCES[statistics]))
    norm = None if statistics == "without normalisation" else BatchNorm
    steps = CHARACTERS if statistics == "per time step" else None
    model = lstm_stack(depth, norm=norm, steps=steps, seed=seed).to(device)

    def loss(model) -> Tensor:
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten())

    *layers, _ = gradient_norms_by_layer(model, loss)
    parameters, losses = list(model.parameters()), []
    for _ in range(STEPS + 1):
        value = loss(model)
        losses.append(value.item() if value.isfinite() else math.nan)
        if not value.isfinite():
            break
        gradients = torch.autograd.grad(value, parameters)
        with torch.no_grad():
            torch._foreach_add_(parameters, gradients, alpha=-lr)
    losses += [math.nan] * (STEPS + 1 - len(losses))
    gradient = [each.gradient_norm.item() for each in layers]
    return {"initial_loss": losses[0], "loss_changes": np.diff(losses), "gradient_norms": gradient}


EXPERIMENT = Measurement(
    name="depth.stacked_lstms",
    question="From how many LSTM layers on does full-batch descent with BN fluctuate?",
    source="Kari, a question on Stack Exchange, March 2018",
    axes=("statistics", "depth", "lr"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, tuple[Curves, np.ndarray]]:
    """Load the committed result: losses, and gradient norms by layer, shape (seeds, depth)."""
    return {
        cell: (curves(row["initial_loss"], row["loss_changes"]), row["gradient_norms"])
        for cell, row in EXPERIMENT.load("quick").items()
    }


def gradient_ratio(statistics: str, depth: int, lr: float = 1e-4) -> float:
    """Return the gradient norm at the first LSTM over that at the last, before training; median of the seeds."""
    _, gradient = load()[statistics, depth, lr]
    return float(np.median(gradient[:, 0] / gradient[:, -1]))


class ByDepth(NamedTuple):
    """What the committed result says by number of layers.

    Attributes:
        ratios: by statistics and layers: gradient norm at the first LSTM over that at the last, per seed.
        roughness: by learning rate and layers, with shared statistics, per seed; nan where a run has diverged.
    """

    ratios: dict[str, dict[int, np.ndarray]]
    roughness: dict[float, dict[int, np.ndarray]]


def by_depth() -> ByDepth:
    """Return gradient ratios and roughness by number of layers, without the rate of 10, at which every run diverges."""
    found = ByDepth({}, {})
    for (statistics, depth, lr), (run, gradient) in load().items():
        found.ratios.setdefault(statistics, {})[depth] = gradient[:, 0] / gradient[:, -1]
        if statistics == "shared" and lr < 10:
            found.roughness.setdefault(lr, {})[depth] = run.roughness
    return found
