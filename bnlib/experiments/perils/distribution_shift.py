"""A trained network meets other data: other frequencies of the classes, or other pictures of the same classes.

Should its statistics be those of the training, or those of what it meets? The two shifts want opposite answers.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from bnlib import datasets
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.perils.train_mode_at_inference import trained
from bnlib.probes import with_recomputed_statistics
from bnlib.training import error_rate

SHIFTS = (0.0, 0.2, 0.4, 0.6, 0.8)
"""Added to each pixel, where black is 0 and white is 1."""
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Of one class among the samples met; the others have equal parts of the rest. One in ten is as in training."""
WAYS = ("training", "half", "new", "balanced")
COUNT = 200
SEEDS = {"quick": range(5), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Each network meets each shift."""
    return {(shift,): SEEDS[scale] for shift in SHIFTS}


def measure(shift: float, *, seed: int, device) -> dict[str, list[float]]:
    """Train with equal classes, then meet 200 samples in which one class has a share of ``SHARES``.

    Returns:
        the share of right answers, mean over the ten classes that can be the frequent one, for each share: in eval mode
        with the statistics of the training, with those of the 200 samples (``new``), with the means and variances
        halfway between them (``half``), and with those of 200 samples of the new kind in the proportions of the
        training (``balanced``).
    """
    data = datasets.load("digits").to(device)
    model = trained("fully connected", seed, device)
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for share in SHARES:
        rows = [_met(model, data, shift, share, each, generator) for each in range(data.num_classes)]
        for way, values in zip(WAYS, zip(*rows, strict=True), strict=True):
            found[way].append(float(np.mean(values)))
    return found


def _met(model: nn.Module, data: datasets.Dataset, shift: float, share: float, frequent: int, generator) -> list[float]:
    index = drawn(data.test_y.cpu(), frequent, share, generator)
    x, y = data.test_x[index] + shift, data.test_y[index]
    renewed = with_recomputed_statistics(model, [x])
    alike = data.test_x[drawn(data.test_y.cpu(), frequent, 1 / data.num_classes, generator)] + shift
    models = model, halfway(model, renewed), renewed, with_recomputed_statistics(model, [alike])
    return [1 - error_rate(each, x, y) for each in models]


def drawn(labels: Tensor, frequent: int, share: float, generator: torch.Generator, count: int = COUNT) -> Tensor:
    """Indices of ``count`` samples, drawn with replacement, of which ``share`` are of the class ``frequent``."""
    ours, others = (torch.nonzero(part).flatten() for part in (labels == frequent, labels != frequent))
    many = round(share * count)
    parts = ((ours, many), (others, count - many))
    return torch.cat([pool[torch.randint(len(pool), (number,), generator=generator)] for pool, number in parts])


def halfway(model: nn.Module, other: nn.Module) -> nn.Module:
    """A copy of ``model`` in eval mode with running statistics halfway to those of ``other``."""
    middle, theirs = copy.deepcopy(model).eval(), dict(other.named_buffers())
    for name, buffer in middle.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.lerp_(theirs[name], 0.5)
    return middle


EXPERIMENT = Measurement(
    name="perils.distribution_shift",
    question="When the data in use are others, should BN use the statistics of the training or theirs?",
    source="Irpan 2017, a reader's comment",
    axes=("shift",),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """The committed result."""
    return EXPERIMENT.load("quick")


def lookup() -> dict[str, np.ndarray]:
    """The committed accuracies by way of choosing statistics, (seeds, shifts, shares)."""
    return {way: np.stack([load()[(shift,)][way] for shift in SHIFTS], 1) for way in WAYS}
