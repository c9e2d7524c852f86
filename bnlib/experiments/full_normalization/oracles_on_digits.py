"""Train Full Normalization on digits with each oracle and alpha, by batch size and construction of the batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache, partial

import numpy as np
import torch

from bnlib import BatchNorm, FullNorm
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.experiments.framework.results import as_array
from bnlib.models import mlp
from bnlib.reference import ORACLES
from bnlib.samplers import shuffled, single_label
from bnlib.schedules import PowerSchedule, lian_figure_4_alpha
from bnlib.sweep import Run

SIZES = (64, 100, 100, 10)
EPOCHS = {1: 3, 4: 5, 16: 10, 64: 30}
"""Passes over the training set for each batch size: more where a pass has fewer steps."""
LEARNING_RATES = (0.01, 0.03, 0.1, 0.3)
TRAINING_SAMPLES = 1437
SEEDS = {"quick": range(3), "paper": range(10)}

# From the mean of all batches to a moving average with a weight of the floor.
FLOORS = {floor: PowerSchedule(scale=1, power=1, floor=floor) for floor in (0.003, 0.01, 0.03, 0.1, 0.3)}
ALPHAS = {f"floor {floor}": schedule for floor, schedule in FLOORS.items()} | {"figure 4": lian_figure_4_alpha}
NORMS = {"batch norm": BatchNorm} | {
    f"{oracle}, {name}": partial(FullNorm, oracle=oracle, alpha=alpha)
    for oracle in ORACLES
    for name, alpha in ALPHAS.items()
    if "running" in oracle or name == "floor 0.03"
}
SHUFFLED, SINGLE_LABEL = "shuffled", "single label"
CONSTRUCTIONS = {SHUFFLED: shuffled, SINGLE_LABEL: single_label}


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return the runs of BN, of the running oracle with every alpha, and of every oracle with one alpha."""
    made = {}
    for norm, construction, batch_size, lr in itertools.product(NORMS, CONSTRUCTIONS, EPOCHS, LEARNING_RATES):
        if norm.startswith("leave_one_out") and batch_size == 1:
            continue
        model = partial(mlp, SIZES, NORMS[norm])
        settings = {"epochs": EPOCHS[batch_size], "checkpoints": 2, "batches": CONSTRUCTIONS[construction]}
        made[norm, construction, batch_size, lr] = [
            Run(model, "digits", batch_size, lr, seed, **settings) for seed in SEEDS[scale]
        ]
    return made


EXPERIMENT = Experiment(
    name="full_normalization.oracles_on_digits",
    question="Which oracle and which alpha make Full Normalization train at every batch size, on batches of any kind?",
    source="Lian and Liu 2019, Remark 1 and section 6",
    axes=("norm", "construction", "batch size", "learning rate"),
    cells=cells,
)


@cache
def load() -> dict[tuple, dict]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def best_learning_rate(norm: str, construction: str, batch_size: int) -> tuple[float, np.ndarray]:
    """Return the learning rate with the least median test error, and the final test errors of its seeds."""
    errors = {
        lr: np.array([run[-1] for run in load()[norm, construction, batch_size, lr]["test_error"]])
        for lr in LEARNING_RATES
    }
    lr = min(errors, key=lambda lr: np.median(errors[lr]))
    return lr, errors[lr]


def lookup(alpha: str, construction: str, lr: float) -> dict[str, np.ndarray]:
    """Return the final test errors of BN and of the running oracle at each batch size, (batch sizes, seeds)."""

    def final_errors(norm: str) -> np.ndarray:
        rows = [load()[norm, construction, batch_size, lr]["test_error"] for batch_size in EPOCHS]
        return np.array([[run[-1] for run in row] for row in rows])

    errors = {"batch norm": final_errors("batch norm"), "Full Normalization": final_errors(f"running, {alpha}")}
    return {"batch sizes": np.array(list(EPOCHS)), **errors}


def train(
    alpha: str, construction: str, lr: float, device: torch.device | str | None = None
) -> Iterator[tuple[int, int, dict[str, np.ndarray]]]:
    """Train both networks of one setting at each batch size, from the largest to the smallest, with new seeds.

    Yields:
        The number of steps so far, the total number of steps, and the errors of ``lookup`` with those of the networks
        that are trained, "NAME, your run", nan where there is none yet.
    """
    shown = lookup(alpha, construction, lr)
    arms = {"batch norm": "batch norm", "Full Normalization": f"running, {alpha}"}
    shown |= {f"{norm}, your run": np.full((len(EPOCHS), 1), np.nan) for norm in arms}
    sizes, done = list(EPOCHS), 0
    total = sum(EPOCHS[size] * (TRAINING_SAMPLES // size) for size in sizes)
    for batch_size in reversed(sizes):
        cells = {norm: (arm, construction, batch_size, lr) for norm, arm in arms.items()}
        for steps, _, curves in EXPERIMENT.live(cells, {}, device):
            for name, curve in curves.items():
                shown[name] = shown[name].copy()
                shown[name][sizes.index(batch_size)] = as_array(curve["test_error"])[0, -1]
            yield done + steps, total, dict(shown)
        done += EPOCHS[batch_size] * (TRAINING_SAMPLES // batch_size)


def single_image_error_rows(lr: float) -> list[dict]:
    """Return the final test errors (%) of the running oracle at batch size 1, a row per alpha."""
    place = list(EPOCHS).index(1)
    return [
        {"α": alpha}
        | {
            construction: 100 * lookup(alpha, construction, lr)["Full Normalization"][place]
            for construction in CONSTRUCTIONS
        }
        for alpha in ALPHAS
    ]
