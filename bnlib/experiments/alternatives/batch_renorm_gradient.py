"""Test whether Batch Renorm's gradient helps the layers below it: train all layers, or only those above the last norm.

Batch Renorm's output does not depend on the batch, but its gradient does: with one value per channel it is 0, and in a
batch of one label it loses what all samples have in common. No gradient passes through a norm on its way to the layers
above the last one. Layer norm, whose gradient stays within the sample, is the control.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import BatchRenorm, datasets
from bnlib.experiments.alternatives import batch_sizes
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.training import error_rate

NORMS = ("Batch Renorm", "layer norm")
BATCHES = (("shuffled", 1), ("shuffled", 64), ("one label", 64))
LEARNING_RATES = (0.03, 0.1, 0.3)
TRAINED_LAYERS = ("all layers", "above the last norm")
STEPS = 352
SEEDS = {"quick": range(3), "paper": range(10)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return both norms on all batches at each learning rate, with all layers trained or only the last."""
    grid = itertools.product(NORMS, BATCHES, LEARNING_RATES, TRAINED_LAYERS)
    return {(norm, *batches, lr, trained_layers): SEEDS[scale] for norm, batches, lr, trained_layers in grid}


def measure(
    norm: str, construction: str, batch_size: int, lr: float, trained_layers: str, *, seed: int, device
) -> dict[str, float]:
    """Train the network of ``alternatives.batch_sizes`` for ``STEPS`` steps.

    Returns:
        ``test_error``, a share, and ``first_layer_change``: norm of the change of the first layer's weights over their
        initial norm.
    """
    data = datasets.load("digits").to(device)
    model = batch_sizes.model(norm, seed=seed).to(device)
    first, start = model[1].weight, model[1].weight.detach().clone()
    if trained_layers == "above the last norm":
        for layer in model[: _last_norm(model)]:
            layer.requires_grad_(False)
    optimiser = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=lr)
    batches = batch_sizes.CONSTRUCTIONS[construction](data.train_y.cpu(), batch_size, seed)
    for index in itertools.islice(batches, STEPS):
        optimiser.zero_grad()
        F.cross_entropy(model(data.train_x[index]), data.train_y[index]).backward()
        optimiser.step()
    change = ((first - start).norm() / start.norm()).item()
    return {"test_error": error_rate(model, data.test_x, data.test_y), "first_layer_change": change}


def _last_norm(model: nn.Sequential) -> int:
    return max(place for place, layer in enumerate(model) if isinstance(layer, (BatchRenorm, nn.GroupNorm)))


EXPERIMENT = Measurement(
    name="alternatives.batch_renorm_gradient",
    question="Do layers below Batch Renorm gain from the gradient that it passes on?",
    source="Ioffe 2017, section 3",
    axes=("norm", "construction", "batch_size", "lr", "trained_layers"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")
