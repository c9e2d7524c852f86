"""Train the discriminators of ``perils.gan_discriminator`` with spectral norm in place of BN."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np

from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.perils import gan_discriminator
from bnlib.experiments.perils.gan_discriminator import BATCHES, FAKES

LEARNING_RATE = 0.2
"""The best of 0.05, 0.2 and 0.8 for the reshaped samples in separate batches."""
SEEDS = {"quick": range(5), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return one cell per kind of generated samples and kind of batches."""
    return {cell: SEEDS[scale] for cell in itertools.product(FAKES, BATCHES)}


def measure(kind: str, batches: str, *, seed: int, device) -> dict[str, float]:
    """Train a discriminator with spectral norm; see ``gan_discriminator.measure`` for what is returned."""
    return gan_discriminator.measure("spectral norm", kind, batches, seed=seed, device=device, lr=LEARNING_RATE)


EXPERIMENT = Measurement(
    name="perils.spectral_norm",
    question="Does it matter to a discriminator with spectral norm how its batches are built?",
    source="Miyato et al. 2018",
    axes=("fake", "batches"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def accuracy_rows() -> list[dict]:
    """Return accuracies (%) in eval mode for ``tables.Table``, by the batches of training."""
    arms = ("batch norm", "spectral norm", "without normalisation", "layer norm")
    return [
        {"discriminator": norm}
        | {
            (f"{kind}, trained on", f"{batches} batches"): 100
            * (load()[kind, batches] if norm == "spectral norm" else gan_discriminator.load()[norm, kind, batches])[
                "eval"
            ]
            for kind, batches in itertools.product(FAKES, BATCHES)
        }
        for norm in arms
    ]
