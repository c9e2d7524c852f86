r"""Map at which learning rates and weights alpha networks with Full Normalization train, by depth and optimiser.

Every network takes about 440 steps on digits. A setting *trains* if the median test error is at most
``MARGIN`` above that of BN with the same rate, depth, optimiser and batch size; rates at which BN itself ends above
``BN_FAILS`` are left out. $\alpha_k$ is $1/(k+2)$ until it reaches a floor.

Predictions, written down before the runs. ``stability_border`` linearises the recursion of weights, statistics and
adjoints; it knows the ratio $\kappa=\eta/((1-m)\alpha)$ only. Its border is near $\kappa=0.07$ at the initial weights,
and 0.4 or more, often above 3, once a network has taken 100 steps.

1. *Proportional.* If the lag decides, the largest rate that trains is proportional to the floor: at least 5 times as
   large with the floor 0.1 as with 0.01, for SGD at each depth.
2. *Momentum.* Momentum 0.9 divides the largest rate that trains by about 10, by 3 at least.
3. *Depth.* It does not grow with depth.
4. *Batch size.* The recursion is about means and does not know the batch size. So after the same number of steps the
   largest rate that trains is the same at batch sizes 16 and 64, up to one step of the grid of rates.
5. *The known failures.* In chapter 5 a convolutional network with three normalised layers at rate 0.1 and the floor
   0.03 ($\kappa=3.3$) ends at 2.8 to 7.5 % test error in batches of 64, where BN has about 1 %. The rule "train at most
   at the border $\kappa=0.7$ of the toy problem" calls this setting unstable. It also calls it unstable in batches of 2
   to 32, where almost all seeds train. If 4 holds, the number of steps explains the difference: 220 in batches of 64,
   890 in batches of 16, and damage from the first steps, where the border is lowest, needs time to heal. Then a rate
   that rises over the first 100 steps removes the failures at 64; so do exact statistics and adjoints in the first 100
   steps only, while a larger floor does not. ``causes_of_failures`` tests this.

Before the runs, "the largest rate that trains" meant ``largest_without_failure``. With the results we changed it to
``largest``, because some settings fail at a small rate, where they learn too slowly, and train at a larger one. The
chapter shows both.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from bnlib import BatchNorm, FullNorm
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.models import mlp
from bnlib.schedules import PowerSchedule
from bnlib.sweep import Run

WIDTH, DEPTHS, FLOORS = 10, (1, 2, 3), (0.01, 0.03, 0.1, 0.3)
EPOCHS = {16: 5, 64: 20}
"""Passes over the training set for each batch size: about 440 steps."""
OPTIMISERS = {
    "SGD": torch.optim.SGD,
    "momentum 0.9": partial(torch.optim.SGD, momentum=0.9),
    "Adam": torch.optim.Adam,
}
LEARNING_RATES = {
    "SGD": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    "momentum 0.9": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    "Adam": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
}
BATCH_NORM = "batch norm"
NORMS = {BATCH_NORM: BatchNorm} | {
    f"floor {floor:g}": partial(FullNorm, alpha=PowerSchedule(scale=1, power=1, floor=floor, start=1))
    for floor in FLOORS
}
MARGIN, BN_FAILS = 0.03, 0.3
TOY_BORDER = 2 / 2.9296875
"""The border of the toy problem of chapter 5, 2 over its curvature: a ratio of learning rate and alpha."""
SEEDS = {"quick": range(3), "paper": range(10)}


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return the runs of BN and of Full Normalization with each floor; Adam at one depth and batch size."""
    made = {}
    for optimiser, depth, batch_size in itertools.product(OPTIMISERS, DEPTHS, EPOCHS):
        if optimiser == "Adam" and (depth, batch_size) != (1, 64):  # Adam takes long, as its runs are not stacked
            continue
        for norm, lr in itertools.product(NORMS, LEARNING_RATES[optimiser]):
            model = partial(mlp, (64, *[WIDTH] * depth, 10), NORMS[norm])
            settings = {"epochs": EPOCHS[batch_size], "checkpoints": 2, "optimiser": OPTIMISERS[optimiser]}
            made[norm, optimiser, depth, batch_size, lr] = [
                Run(model, "digits", batch_size, lr, seed, **settings) for seed in SEEDS[scale]
            ]
    return made


EXPERIMENT = Experiment(
    name="convergence.stability_map",
    question="At which learning rates and weights alpha does Full Normalization train as well as BN?",
    source="chapter 5, the border of the toy problem",
    axes=("norm", "optimiser", "depth", "batch size", "learning rate"),
    cells=cells,
)


@cache
def load() -> dict[tuple, dict]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def final_errors(norm: str, optimiser: str, depth: int, batch_size: int, lr: float) -> np.ndarray:
    """Return the test errors at the end, one per seed; a run that diverged counts as 0.9."""
    runs = load()[norm, optimiser, depth, batch_size, lr]["test_error"]
    return np.nan_to_num(np.array([run[-1] for run in runs], dtype=float), nan=0.9)


def error_map(optimiser: str, depth: int, batch_size: int) -> dict[str, np.ndarray]:
    """Return median test errors: ``"BN"`` by rate, and ``"FN"`` by floor and rate."""
    rates = LEARNING_RATES[optimiser]
    of = {
        norm: np.array([np.median(final_errors(norm, optimiser, depth, batch_size, lr)) for lr in rates])
        for norm in NORMS
    }
    bn = of.pop(BATCH_NORM)
    return {"BN": bn, "FN": np.array(list(of.values()))}


def trains(found: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return 1 where Full Normalization trains, 0 where it does not, and nan where BN fails, (floors, rates)."""
    return np.where(found["BN"] > BN_FAILS, np.nan, (found["FN"] <= found["BN"] + MARGIN).astype(float))


def largest(found: np.ndarray, rates: Sequence[float]) -> np.ndarray:
    """Return for each row of ``trains`` the largest rate that trains; nan if there is none."""
    return np.array(
        [max((rate for rate, one in zip(rates, row, strict=True) if one == 1), default=np.nan) for row in found]
    )


def largest_without_failure(found: np.ndarray, rates: Sequence[float]) -> np.ndarray:
    """Return for each row of ``trains`` the largest rate up to which no rate fails; nan if the first rate fails."""
    return largest(np.where(np.logical_or.accumulate(found == 0, axis=1), np.nan, found), rates)


def largest_rate_rows() -> list[dict]:
    """Return both largest rates for SGD in batches of 64, a row per depth and a column per floor."""
    measures = {
        "largest rate that trains": largest,
        "largest rate up to which every rate trains": largest_without_failure,
    }
    rows = []
    for depth in DEPTHS:
        row: dict = {"normalised layers": f"{depth}"}
        for title, measure in measures.items():
            found = measure(trains(error_map("SGD", depth, 64)), LEARNING_RATES["SGD"])
            row |= {(title, f"floor {floor:g}"): f"{rate:g}" for floor, rate in zip(FLOORS, found, strict=True)}
        rows.append(row)
    return rows


def largest_rates(optimiser: str, depth: int, batch_size: int) -> dict[float, float]:
    """Return the largest rate that trains, by floor."""
    found = largest(trains(error_map(optimiser, depth, batch_size)), LEARNING_RATES[optimiser])
    return dict(zip(FLOORS, found.tolist(), strict=True))


def lookup(optimiser: str, depth: int, batch_size: int) -> dict[str, Any]:
    """Return the map of one setting for ``draw_stability_map``: errors, what trains, and the border of the toy."""
    found, rates = error_map(optimiser, depth, batch_size), LEARNING_RATES[optimiser]
    momentum = 0.9 if optimiser == "momentum 0.9" else 0.0
    return found | {
        "rates": np.array(rates),
        "floors": np.array(FLOORS),
        "trains": trains(found),
        "largest": largest(trains(found), rates),
        "borders": TOY_BORDER * np.array(FLOORS) * (1 - momentum),
    }
