"""Compare BN, noisy BN and their controls by losses and errors in eval mode after the same training.

In train mode the loss of a network with BN contains the noise of the batch statistics, and that of noisy BN its own
noise too; a network without either has nothing of the kind. So the training loss is measured again after training, in
eval mode on the whole training set. Eval mode uses the running statistics, and the noise is silent.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from bnlib import BatchNorm, NoisyBatchNorm, datasets
from bnlib.experiments.covariate_shift.noisy_batch_norm import (
    BATCH_SIZE,
    EPOCHS,
    INITS,
    NO_NOISE,
    PUBLISHED,
    SIZES,
    WITH_NOISE,
    noise_layer,
)
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp
from bnlib.training import fit

NORMS = ("batch norm", "noisy BN", "without normalisation", "noise without BN")
LEARNING_RATES = (0.03, 0.1, 0.3, 1.0)
SEEDS = {"quick": range(3), "paper": range(20)}
STRONG, SCALE_ONLY = (2.0, 1.25), (0.0, 2.0)
"""Two more strengths of the noise: shifts of up to two standard deviations, and factors without shifts."""


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return nine layers with the published noise at all rates, and the settings of ``other_strength_rows``."""
    wanted = [
        ("9 layers", init, norm, *(PUBLISHED if norm in WITH_NOISE else NO_NOISE), lr)
        for init, norm, lr in itertools.product(INITS, NORMS, LEARNING_RATES)
    ]
    wanted += [("9 layers", init, "noisy BN", *STRONG, 0.1) for init in INITS]
    wanted += [("4 layers", "PyTorch default", "without normalisation", *NO_NOISE, 0.1)]
    wanted += [("4 layers", "PyTorch default", "noise without BN", *SCALE_ONLY, 0.1)]
    return {cell: SEEDS[scale] for cell in wanted}


def norm_layer(norm: str, shift: float, factor: float):
    """Return what ``models.mlp`` takes as its norm."""
    return {
        "batch norm": BatchNorm,
        "noisy BN": partial(NoisyBatchNorm, shift=shift, scale=factor),
        "without normalisation": None,
        "noise without BN": partial(noise_layer, shift=shift, scale=factor),
    }[norm]


def measure(
    network: str, init: str, norm: str, shift: float, scale: float, lr: float, *, seed: int, device: str
) -> dict[str, float]:
    """Train as ``noisy_batch_norm`` does, then evaluate on the whole training set and on the test set.

    Returns:
        ``train_loss``, ``train_error``, ``test_loss`` and ``test_error`` in eval mode, and ``train_mode_loss``, the
        mean mini-batch loss of the last tenth of the training. Losses in nats; not finite if the run diverged.
    """
    data = datasets.load("digits").to(device)
    model = mlp(SIZES[network], norm_layer(norm, shift, scale), init=INITS[init], seed=seed).to(device)
    settings: dict[str, Any] = {"batch_size": BATCH_SIZE, "epochs": EPOCHS, "checkpoints": 10, "device": device}
    history = fit(model, data, lr=lr, seed=seed, progress=False, **settings)
    found = {"train_mode_loss": history.train_loss[-1]}
    with torch.no_grad():
        for name, x, y in (("train", data.train_x, data.train_y), ("test", data.test_x, data.test_y)):
            logits = model.eval()(x)
            found[f"{name}_loss"] = F.cross_entropy(logits, y).item()
            found[f"{name}_error"] = (logits.argmax(1) != y).float().mean().item()
    return found


EXPERIMENT = Measurement(
    name="covariate_shift.final_losses",
    question="How well do BN, noisy BN and networks without BN fit and generalise, compared in eval mode?",
    source="Santurkar et al. 2018, figure 2",
    axes=("network", "init", "norm", "shift", "scale", "lr"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def final_values(
    norm: str,
    init: str,
    lr: float,
    measurement: str = "train_loss",
    *,
    strength: tuple[float, float] = PUBLISHED,
    network: str = "9 layers",
) -> np.ndarray:
    """Return one measurement of each seed; infinite where a run diverged.

    ``strength`` is shift and scale of the noise, and has no effect for a norm without noise.
    """
    strength = strength if norm in WITH_NOISE else NO_NOISE
    values = load()[network, init, norm, *strength, lr][measurement]
    return np.where(np.isfinite(values), values, np.inf)


def best_learning_rate(norm: str, init: str) -> float:
    """Return the learning rate at which the median training loss in eval mode is lowest, the smallest of several."""
    return min(LEARNING_RATES, key=lambda lr: float(np.median(final_values(norm, init, lr))))


def best_rate_rows() -> list[dict]:
    """Return each network at its best learning rate, a row per initialisation and norm."""
    rows = []
    for init, norm in itertools.product(INITS, NORMS):
        lr = best_learning_rate(norm, init)
        rows.append(
            {
                "network": norm,
                "initialisation": init,
                "best rate": f"{lr:g}",
                "training loss (nats)": final_values(norm, init, lr),
                "test error (%)": 100 * final_values(norm, init, lr, "test_error"),
            }
        )
    return rows


def learning_rate_rows() -> list[dict]:
    """Return the training losses in eval mode, a row per initialisation and norm and a column per learning rate."""
    return [
        {"network": norm, "initialisation": init}
        | {("learning rate", f"{lr:g}"): final_values(norm, init, lr) for lr in LEARNING_RATES}
        for init, norm in itertools.product(INITS, NORMS)
    ]


def other_strength_rows() -> list[dict]:
    """Return training losses in eval mode with and without noise, in the settings that the text of figure 2.2 names."""
    settings = [("batch norm", "noisy BN", "9 layers", init, 0.1, STRONG) for init in INITS]
    plain = ("without normalisation", "noise without BN")
    settings += [(*plain, "9 layers", "He", lr, PUBLISHED) for lr in (0.1, 0.3)]
    settings += [(*plain, "4 layers", "PyTorch default", 0.1, SCALE_ONLY)]
    return [
        {
            "network": f"{norm}, {network}",
            "initialisation": init,
            "learning rate": f"{lr:g}",
            "largest mean shift": f"{strength[0]:g}",
            "largest mean factor": f"{strength[1]:g}",
            "loss after training without noise": final_values(norm, init, lr, network=network),
            "loss after training with noise": final_values(noisy, init, lr, strength=strength, network=network),
        }
        for norm, noisy, network, init, lr, strength in settings
    ]
