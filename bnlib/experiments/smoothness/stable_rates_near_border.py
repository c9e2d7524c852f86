"""Scan learning rates more finely where stable and unstable rates meet, and combine both scans."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np

from bnlib import tables
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.smoothness import stable_learning_rates
from bnlib.experiments.smoothness.stable_learning_rates import DEPTHS, INITS, NORMS, SEEDS, measure
from bnlib.probes import LearningRateScan

WINDOWS = {
    ("without normalisation", 2): (12, 19),
    ("without normalisation", 4): (4, 17),
    ("without normalisation", 8): (1, 14),
    ("batch norm", 2): (17, 24),
    ("batch norm", 4): (16, 24),
    ("batch norm", 8): (14, 23),
}
"""The learning rates of the first scan, by position, between which networks with He initialisation are scanned again.

Each window begins a factor of 1.5 or more below the smallest unstable rate of every seed and ends as far or farther
above the largest stable one."""


def finer_rates(norm: str, depth: int) -> tuple[float, ...]:
    """Return three rates between each two neighbours of the first scan within the window; their ratio is 1.075."""
    low, high = WINDOWS[norm, depth]
    return tuple(float(f"{10 ** (k / 32 - 2):.3g}") for k in range(4 * low, 4 * high) if k % 4)


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return the networks with He initialisation and the rates in their windows."""
    return {("He", norm, depth, lr): SEEDS[scale] for norm, depth in WINDOWS for lr in finer_rates(norm, depth)}


EXPERIMENT = Measurement(
    name="smoothness.stable_rates_near_border",
    question="Do stable and unstable learning rates alternate?",
    source="chapter 3",
    axes=("init", "norm", "depth", "lr"),
    cells=cells,
    measure=measure,
)


def rates_of(init: str, norm: str, depth: int) -> tuple[float, ...]:
    """Return all learning rates at which a network was trained, in increasing order."""
    finer = finer_rates(norm, depth) if init == "He" else ()
    return tuple(sorted((*stable_learning_rates.LEARNING_RATES, *finer)))


def gather(rates: Sequence[float], rows: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Turn the measurements of one network, one per learning rate, into those of ``load``."""
    stable, loss = (np.array([row[name] for row in rows]).T for name in ("stable", "loss"))
    scans = [LearningRateScan(tuple(rates), tuple(seed > 0)) for seed in stable]
    return {
        "rates": np.array(rates),
        "stable": stable > 0,
        "loss": loss,
        "first_unstable": np.array([scan.first_unstable for scan in scans]),
        "last_stable": np.array([scan.last_stable for scan in scans]),
        "lowest_loss": np.nanmin(loss, 1),
    }


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed results of both scans and gather the learning rates.

    Returns:
        By initialisation, norm and depth: ``rates``, shape (learning rates,); ``stable`` and ``loss``, shape (seeds,
        learning rates); and one number per seed: ``first_unstable``, the smallest rate that is not stable,
        ``last_stable``, the largest that is, and ``lowest_loss``, the lowest loss after training at a stable rate.
    """
    measured = stable_learning_rates.EXPERIMENT.load("quick") | EXPERIMENT.load("quick")
    return {
        key: gather(rates_of(*key), [measured[*key, lr] for lr in rates_of(*key)])
        for key in itertools.product(INITS, NORMS, DEPTHS)
    }


def ratio_of_medians(border: str, init: str, depth: int) -> float:
    """Return the median over seeds of a border of stability with BN, divided by that without.

    Arguments:
        border: ``"first_unstable"`` or ``"last_stable"``.
        init: a key of ``INITS``.
        depth: number of hidden layers.
    """
    plain, bn = (np.median(load()[init, norm, depth][border]) for norm in NORMS)
    return float(bn / plain)


LOWEST_LOSS = "loss after 30 steps at the best stable rate (nats)"


def _written(losses: np.ndarray) -> str:
    """Write losses, which differ by orders of magnitude, with two significant digits."""
    middle, low, high = map(tables.significant, (np.median(losses), losses.min(), losses.max()))
    return f"{middle} ({low}–{high})"


def rate_rows() -> list[dict]:
    """Return table rows, one per initialisation and depth: ratios of the borders and the lowest loss, by seed."""
    headers = {"first_unstable": "smallest unstable rate", "last_stable": "largest stable rate"}
    rows = []
    for init, depth in itertools.product(INITS, DEPTHS):
        row: dict = {"network": f"{init}, {depth} hidden layers"}
        for border, header in headers.items():
            row[f"{header}, with BN / without"] = tables.significant(ratio_of_medians(border, init, depth))
        row |= {(LOWEST_LOSS, norm): _written(load()[init, norm, depth]["lowest_loss"]) for norm in NORMS}
        rows.append(row)
    return rows
