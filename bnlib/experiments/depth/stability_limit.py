"""Scan learning rates for those at which every step lowers the loss of a deep stack, and measure the sharpness."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from torch.nn import functional as F

from bnlib import tables
from bnlib.experiments.depth import gradient_growth
from bnlib.experiments.depth.descent import DEPTHS, VARIANTS, WIDTH, descend, sentence
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.probes import LearningRateScan, scan_learning_rates, sharpness

NETWORKS = ("batch norm", "tanh", "linear")
STEPS = 10
MULTIPLES = tuple(2.0**k for k in range(-8, 9))
"""The learning rates that are tried, as multiples of 2 / sharpness."""

SEEDS = {"quick": range(3), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return stacks with BN and three activations at each depth."""
    return {cell: SEEDS[scale] for cell in itertools.product(NETWORKS, DEPTHS)}


def measure(network: str, depth: int, *, seed: int, device: str) -> dict[str, Any]:
    """Measure sharpness, and which learning rates are stable, in float64.

    Returns:
        ``sharpness``: largest eigenvalue of the Hessian before training; ``stable``: for each of ``MULTIPLES``, 1 if
        each of ``STEPS`` steps lowers the loss and 0 if some step does not.
    """
    x, y = (each.to(device) for each in sentence())
    model = VARIANTS[network].build(depth=depth, width=WIDTH, seed=seed).to(device, x.dtype)
    top = sharpness(model, lambda model: F.cross_entropy(model(x), y), tolerance=1e-2).value.item()

    def falls(multiple: float) -> bool:
        losses = itertools.islice(descend(network, depth, multiple * 2 / top, seed, device), STEPS + 1)
        return all(after < before for before, after in itertools.pairwise(losses))

    return {"sharpness": top, "stable": list(map(int, scan_learning_rates(falls, MULTIPLES).stable))}


EXPERIMENT = Measurement(
    name="depth.stability_limit",
    question="Below which learning rate does every step lower the loss of a deep stack?",
    source="Kari, a question on Stack Exchange, March 2018",
    axes=("network", "depth"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def scans(network: str, depth: int) -> list[LearningRateScan]:
    """Return the scan of each seed; its rates are multiples of 2 / sharpness."""
    return [LearningRateScan(MULTIPLES, tuple(seed > 0)) for seed in load()[network, depth]["stable"]]


def ratio_to_quadratic(network: str, depth: int) -> np.ndarray:
    """Return the smallest unstable learning rate over 2 / sharpness, its value for a quadratic; shape (seeds,)."""
    return np.array([scan.first_unstable for scan in scans(network, depth)])


def limit_rows() -> list[dict]:
    """Return table rows, one per network and depth: 2 / sharpness, smallest unstable learning rate, and their ratio."""
    labels = {"batch norm": "ReLU", "tanh": "tanh", "linear": "no activation"}
    return [
        {
            "stack with BN": f"{labels[network]}, {depth} layers",
            "2 / sharpness": tables.significant(np.median(2 / row["sharpness"]), 1),
            "smallest rate at which one of ten steps raises the loss": tables.significant(
                np.median(ratio_to_quadratic(network, depth) * 2 / row["sharpness"]), 1
            ),
            "that rate over 2 / sharpness": ratio_to_quadratic(network, depth),
        }
        for (network, depth), row in load().items()
    ]


def sharpness_growth(network: str) -> float:
    """Return the factor per layer by which the median sharpness grows from 20 to 100 layers."""
    few, many = (np.median(load()[network, depth]["sharpness"]) for depth in (20, 100))
    return float((many / few) ** (1 / 80))


def sharpness_growth_rows() -> list[dict]:
    r"""Return table rows, one per activation: growth of the sharpness per layer, and $\lambda$ in theory."""
    labels = {"batch norm": "ReLU", "tanh": "tanh", "linear": "none"}
    return [
        {
            "activation": label,
            "growth of the sharpness per layer": sharpness_growth(network),
            "λ": gradient_growth.theory(network, 50) ** 2,
        }
        for network, label in labels.items()
    ]
