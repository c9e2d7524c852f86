"""What Batch Renorm's gradient is worth below the last norm: train all layers, or those above it only.

Its forward pass does not depend on the batch, its gradient does: with one value a channel it is 0, and in a batch of
one label it has lost what the batch has in common. Above the last norm no gradient goes through one. Layer norm, whose
gradient stays within the sample, is the control.
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
TRAINED = ("all layers", "the top")
STEPS = 352
SEEDS = {"quick": range(3), "paper": range(10)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Both norms on all batches at each learning rate, with all layers trained and without those below."""
    grid = itertools.product(NORMS, BATCHES, LEARNING_RATES, TRAINED)
    return {(norm, *batches, lr, trained): SEEDS[scale] for norm, batches, lr, trained in grid}


def measure(norm: str, construction: str, batch_size: int, lr: float, trained: str, *, seed: int, device) -> dict:
    """Train the network of ``alternatives`` for ``STEPS`` steps.

    Returns:
        ``test_error``, a share, and ``moved``: the length of the change of the first layer's weights over theirs.
    """
    data = datasets.load("digits").to(device)
    model = batch_sizes.model(norm, seed=seed).to(device)
    first, start = model[1].weight, model[1].weight.detach().clone()
    if trained == "the top":
        for layer in model[: _last_norm(model)]:
            layer.requires_grad_(False)
    optimiser = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=lr)
    batches = batch_sizes.CONSTRUCTIONS[construction](data.train_y.cpu(), batch_size, seed)
    for index in itertools.islice(batches, STEPS):
        optimiser.zero_grad()
        F.cross_entropy(model(data.train_x[index]), data.train_y[index]).backward()
        optimiser.step()
    moved = ((first - start).norm() / start.norm()).item()
    return {"test_error": error_rate(model, data.test_x, data.test_y), "moved": moved}


def _last_norm(model: nn.Sequential) -> int:
    return max(place for place, layer in enumerate(model) if isinstance(layer, (BatchRenorm, nn.GroupNorm)))


EXPERIMENT = Measurement(
    name="alternatives.batch_renorm_gradient",
    question="Is the gradient that Batch Renorm passes down better than none?",
    source="Ioffe 2017, section 3",
    axes=("norm", "construction", "batch_size", "lr", "trained"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """The committed result."""
    return EXPERIMENT.load("quick")
