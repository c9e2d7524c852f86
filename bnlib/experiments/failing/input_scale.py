"""Train on digits scaled_digits by a small factor, with BN of the usual eps and of a tiny one.

A bias before BN is useless. Here it can do harm: its gradient is 0 except for rounding errors, and these are amplified.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import BatchNorm, datasets, tables
from bnlib.datasets import Dataset
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.experiments.framework.results import as_array
from bnlib.models import mlp
from bnlib.samplers import shuffled
from bnlib.sweep import Run
from bnlib.training import error_rate

NETWORKS = {
    "eps 1e-5, bias": (1e-5, True),
    "eps 1e-5, no bias": (1e-5, False),
    "eps 1e-14, bias": (1e-14, True),
    "eps 1e-14, no bias": (1e-14, False),
}
"""The eps of BN, and whether the linear layers before it have a bias."""
FACTORS = (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5)
SEEDS = {"quick": range(5), "paper": range(20)}


def scaled_digits(factor: float) -> Dataset:
    """Load the digits and multiply each pixel by ``factor``."""
    data = datasets.load("digits")
    return replace(data, train_x=factor * data.train_x, test_x=factor * data.test_x)


def network(name: str, *, seed: int = 0) -> nn.Sequential:
    """Build one of ``NETWORKS``; all have the same initial weights."""
    eps, bias = NETWORKS[name]
    model = mlp((64, 100, 100, 10), partial(BatchNorm, eps=eps), seed=seed)
    for layer, after in itertools.pairwise(model):
        if isinstance(after, BatchNorm) and not bias:
            layer.bias = None
    return model


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return one cell per network and factor."""
    return {
        (name, factor): [
            Run(partial(network, name), partial(scaled_digits, factor), 32, 0.1, seed, epochs=10, checkpoints=5)
            for seed in SEEDS[scale]
        ]
        for name, factor in itertools.product(NETWORKS, FACTORS)
    }  # fmt: skip


EXPERIMENT = Experiment(
    name="failing.input_scale",
    question="At which scale of the inputs does eps hide their variation?",
    source="'Why is my BN failing?', the chapter",
    axes=("network", "factor"),
    cells=cells,
    curves=("train_loss", "test_error"),
)


def train_in_precision(kind: torch.dtype, factor: float = 1e-4, name: str = "eps 1e-14, bias") -> dict[str, float]:
    """Train a network in a floating-point precision.

    Returns:
        ``running`` and ``precise``: test errors (shares) with running averages and with recomputed statistics;
        ``bias_drift``: mean change of the first layer's biases, in standard deviations of its output.
    """
    data, model = scaled_digits(factor), network(name).to(kind)
    x, y = data.train_x.to(kind), data.train_y
    start, signal = model[1].bias.detach().clone(), model[:2](x).std(0).mean().item()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for index in itertools.islice(shuffled(y, 32, 0), 440):
        optimiser.zero_grad()
        F.cross_entropy(model(x[index]), y[index]).backward()
        optimiser.step()
    found = {"running": error_rate(model, data.test_x.to(kind), data.test_y)}
    torch.optim.swa_utils.update_bn(x.split(256), model)
    found["precise"] = error_rate(model, data.test_x.to(kind), data.test_y)
    return found | {"bias_drift": (model[1].bias - start).abs().mean().item() / signal}


@cache
def final_values(curve: str) -> dict[tuple, np.ndarray]:
    """Return the last value of a curve for each seed, by network and factor."""
    return {cell: as_array(row[curve])[:, -1] for cell, row in EXPERIMENT.load("quick").items()}


def error_and_loss_rows() -> list[dict]:
    """Return median test errors in per cent by input factor, and training losses at 0.0001, a row per network."""
    errors, losses = final_values("test_error"), final_values("train_loss")
    return [
        {"network": name}
        | {
            ("test error (%), inputs multiplied by", f"{factor:g}"): float(100 * np.median(errors[name, factor]))
            for factor in FACTORS
        }
        | {("training loss (nats), inputs multiplied by", "0.0001"): f"{np.median(losses[name, 1e-4]):.2f}"}
        for name in NETWORKS
    ]


def precision_rows(results: Mapping[str, Mapping[str, float]]) -> list[dict]:
    """Return results of ``train_in_precision``, a row per floating-point precision."""
    return [
        {
            "arithmetic": precision,
            "test error, running averages (%)": 100 * result["running"],
            "test error, recomputed statistics (%)": 100 * result["precise"],
            "drift of the biases (standard deviations)": tables.significant(result["bias_drift"], 1),
        }
        for precision, result in results.items()
    ]
