"""Test a trained network on shifted data: other class frequencies (label shift), or brighter images (covariate shift).

Should BN use the statistics of the training data or those of the test data? The two shifts need opposite answers.
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

BRIGHTNESS_SHIFTS = (0.0, 0.2, 0.4, 0.6, 0.8)
"""Value added to each pixel; black is 0 and white is 1."""
CLASS_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Share of the frequent class among the test samples; the other classes share the rest equally. Training has 0.1."""
STATISTICS = ("training", "halfway", "recomputed", "recomputed_balanced")
TEST_BATCH_SIZE = 200
SEEDS = {"quick": range(5), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return one cell per brightness shift."""
    return {(shift,): SEEDS[scale] for shift in BRIGHTNESS_SHIFTS}


def measure(shift: float, *, seed: int, device) -> dict[str, list[float]]:
    """Train on balanced classes, then test on 200 samples in which one class has a share of ``CLASS_SHARES``.

    Returns:
        for each share the accuracy in eval mode, averaged over the ten classes that can be the frequent one, with the
        statistics of ``training``; with those of the 200 test samples (``recomputed``); with means and variances
        ``halfway`` between the two; and with those of 200 equally bright samples in the class proportions of the
        training data (``recomputed_balanced``).
    """
    data = datasets.load("digits").to(device)
    model = trained("fully connected", seed, device)
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[float]] = {name: [] for name in STATISTICS}
    for share in CLASS_SHARES:
        rows = [_accuracies(model, data, shift, share, each, generator) for each in range(data.num_classes)]
        for name, values in zip(STATISTICS, zip(*rows, strict=True), strict=True):
            found[name].append(float(np.mean(values)))
    return found


def _accuracies(
    model: nn.Module, data: datasets.Dataset, shift: float, share: float, frequent: int, generator
) -> list[float]:
    index = sample_with_class_share(data.test_y.cpu(), frequent, share, generator)
    x, y = data.test_x[index] + shift, data.test_y[index]
    recomputed = with_recomputed_statistics(model, [x])
    balanced = (
        data.test_x[sample_with_class_share(data.test_y.cpu(), frequent, 1 / data.num_classes, generator)] + shift
    )
    models = model, average_statistics(model, recomputed), recomputed, with_recomputed_statistics(model, [balanced])
    return [1 - error_rate(each, x, y) for each in models]


def sample_with_class_share(
    labels: Tensor, frequent: int, share: float, generator: torch.Generator, count: int = TEST_BATCH_SIZE
) -> Tensor:
    """Draw indices of ``count`` samples with replacement, of which ``share`` belong to the class ``frequent``."""
    ours, others = (torch.nonzero(part).flatten() for part in (labels == frequent, labels != frequent))
    many = round(share * count)
    parts = ((ours, many), (others, count - many))
    return torch.cat([pool[torch.randint(len(pool), (number,), generator=generator)] for pool, number in parts])


def average_statistics(model: nn.Module, other: nn.Module) -> nn.Module:
    """Return a copy of ``model`` in eval mode with running statistics halfway to those of ``other``."""
    middle, theirs = copy.deepcopy(model).eval(), dict(other.named_buffers())
    for name, buffer in middle.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.lerp_(theirs[name], 0.5)
    return middle


EXPERIMENT = Measurement(
    name="perils.distribution_shift",
    question="If the test data differ from the training data, which of the two should BN take its statistics from?",
    source="Irpan 2017, a reader's comment",
    axes=("shift",),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def lookup() -> dict[str, np.ndarray]:
    """Return the committed accuracies by statistics, each of shape (seeds, shifts, shares)."""
    return {name: np.stack([load()[(shift,)][name] for shift in BRIGHTNESS_SHIFTS], 1) for name in STATISTICS}


def accuracies(statistics: str, shift: float, share: float) -> np.ndarray:
    """Return the committed accuracies with these statistics at one setting, one per seed."""
    return load()[(shift,)][statistics][:, CLASS_SHARES.index(share)]


def change(shift: float) -> str:
    """Return the words for a value added to each pixel."""
    return f"{shift:g} added to each pixel" if shift else "unchanged pixels"


def accuracy_rows(settings: Sequence[tuple[float, float]]) -> list[dict]:
    """Return accuracies (%) for ``tables.Table`` at pairs of a brightness shift and a share of one class."""
    titles = dict(zip(STATISTICS, ("training data", "halfway", "test data", "test data, balanced"), strict=True))
    return [
        {"test images": f"{change(shift)}, {share:.0%} of one class"}
        | {("statistics of", title): 100 * accuracies(name, shift, share) for name, title in titles.items()}
        for shift, share in settings
    ]
