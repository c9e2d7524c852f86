"""Compare BN, noisy BN and no normalisation by losses and errors in eval mode after the same training.

In train mode the loss of a network with BN contains the noise of the batch statistics, and that of noisy BN its own
noise too; a network without either has nothing of the kind. So the training loss is measured again after training, in
eval mode on the whole training set. Eval mode uses the running statistics, and the noise is silent. So is the mean of
its factors, which the later layers have seen in each step of the training; noisy BN is therefore evaluated again with
this mean factor kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import BatchNorm, NoisyBatchNorm, datasets
from bnlib.datasets import Dataset
from bnlib.experiments.covariate_shift.noisy_batch_norm import (
    BATCH_SIZE,
    EPOCHS,
    INITS,
    LEARNING_RATES,
    PUBLISHED,
    SIZES,
)
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp
from bnlib.training import fit

NORMS = ("batch norm", "noisy BN", "without normalisation")
SEEDS = {"quick": range(3), "paper": range(20)}
MEAN_FACTOR = (1 + PUBLISHED[1]) / 2
"""What noisy BN multiplies its normalised inputs by, on average."""


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return one cell per initialisation, norm and learning rate of ``noisy_batch_norm``."""
    return {cell: SEEDS[scale] for cell in itertools.product(INITS, NORMS, LEARNING_RATES)}


def measure(init: str, norm: str, lr: float, *, seed: int, device: str) -> dict[str, float]:
    """Train nine layers as ``noisy_batch_norm`` does, then evaluate on the whole training set and on the test set.

    The noise has the published strength.

    Returns:
        ``train_loss``, ``train_error``, ``test_loss`` and ``test_error`` in eval mode; the same with ``_factor_kept``
        at the end of the names; and ``train_mode_loss``, the mean mini-batch loss of the last tenth of the training.
        Losses in nats; not finite if the run diverged.
    """
    data = datasets.load("digits").to(device)
    shift, factor = PUBLISHED
    layers = {"batch norm": BatchNorm, "noisy BN": partial(NoisyBatchNorm, shift=shift, scale=factor)}
    model = mlp(SIZES["9 layers"], layers.get(norm), init=INITS[init], seed=seed).to(device)
    settings: dict[str, Any] = {"batch_size": BATCH_SIZE, "epochs": EPOCHS, "checkpoints": 10, "device": device}
    history = fit(model, data, lr=lr, seed=seed, progress=False, **settings)
    found = {"train_mode_loss": history.train_loss[-1]} | _losses_and_errors(model, data)
    for layer in model:
        if isinstance(layer, NoisyBatchNorm):
            layer.weight.data *= MEAN_FACTOR
            layer.bias.data *= MEAN_FACTOR
    return found | {f"{name}_factor_kept": value for name, value in _losses_and_errors(model, data).items()}


@torch.no_grad()
def _losses_and_errors(model: nn.Module, data: Dataset) -> dict[str, float]:
    """Evaluate in eval mode on the whole training set and on the test set."""
    found = {}
    for name, x, y in (("train", data.train_x, data.train_y), ("test", data.test_x, data.test_y)):
        logits = model.eval()(x)
        found[f"{name}_loss"] = F.cross_entropy(logits, y).item()
        found[f"{name}_error"] = (logits.argmax(1) != y).float().mean().item()
    return found


EXPERIMENT = Measurement(
    name="covariate_shift.final_losses",
    question="How well do BN, noisy BN and networks without BN fit and generalise, compared in eval mode?",
    source="Santurkar et al. 2018, figure 2",
    axes=("init", "norm", "lr"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def final_values(norm: str, init: str, lr: float, measurement: str = "train_loss") -> np.ndarray:
    """Return one measurement of each seed; infinite where a run diverged."""
    values = load()[init, norm, lr][measurement]
    return np.where(np.isfinite(values), values, np.inf)


def best_learning_rate(norm: str, init: str) -> float:
    """Return the learning rate at which the median training loss in eval mode is lowest, the smallest of several."""
    return min(LEARNING_RATES, key=lambda lr: float(np.median(final_values(norm, init, lr))))


def loss_and_error_rows(lr: float, init: str) -> list[dict]:
    """Return training losses and test errors in eval mode at one learning rate, a row per network."""
    return [_row(norm, norm, init, lr) for norm in NORMS]


def mean_factor_rows(lr: float) -> list[dict]:
    """Return losses and errors of BN and of noisy BN, as eval mode has it and with its mean factor kept."""
    networks = (
        ("batch norm", "batch norm", ""),
        ("noisy BN", "noisy BN", ""),
        (f"noisy BN, factor {MEAN_FACTOR:g} kept", "noisy BN", "_factor_kept"),
    )
    return [
        {"initialisation": init} | _row(network, norm, init, lr, end)
        for init, (network, norm, end) in itertools.product(INITS, networks)
    ]


def _row(network: str, norm: str, init: str, lr: float, end: str = "") -> dict:
    columns = {"training loss (nats)": ("train_loss", 1), "test error (%)": ("test_error", 100)}
    return {"network": network} | {
        header: unit * final_values(norm, init, lr, name + end) for header, (name, unit) in columns.items()
    }
