"""Full Normalization on digits: which oracle and which alpha, by batch size and by how the batches are built.

``python -m bnlib.experiments.full_norm_digits`` runs it and writes ``data/results/full_norm_digits.json``.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial

import numpy as np
import torch

from bnlib import BatchNorm, FullNorm, datasets
from bnlib.experiments.digits_grid import SIZES, curves
from bnlib.experiments.results import read_result, write_result
from bnlib.models import mlp
from bnlib.reference import ORACLES
from bnlib.samplers import single_label
from bnlib.schedules import PowerSchedule, figure4
from bnlib.training import iterate

NAME = "full_norm_digits"
FLOORS = (0.003, 0.01, 0.03, 0.1, 0.3)
EPOCHS = {1: 3, 4: 5, 16: 10, 64: 30}
"""Passes over the training set for each batch size: more where a pass has fewer steps."""
LEARNING_RATES = (0.01, 0.03, 0.1, 0.3)
SEEDS = (0, 1, 2)
POINTS = 10


def average(floor: float) -> PowerSchedule:
    """The mean of all batches at first, later a moving average with weight ``floor``."""
    return PowerSchedule(scale=1, power=1, floor=floor)


ALPHAS = {f"floor {floor}": average(floor) for floor in FLOORS} | {"figure 4": figure4}
NORMS = {"batch norm": BatchNorm} | {
    f"{oracle}, {name}": partial(FullNorm, oracle=oracle, alpha=alpha)
    for oracle in ORACLES
    for name, alpha in ALPHAS.items()
}
SHUFFLED, SINGLE_LABEL = "shuffled", "single label"


def grid() -> list[tuple[str, str, int, float]]:
    """Norm, batch construction, batch size and learning rate of each cell: all alphas for one oracle, all oracles
    for one alpha.
    """
    norms = ["batch norm", *(f"running, {name}" for name in ALPHAS), *(f"{o}, floor 0.03" for o in ORACLES)]
    cells = itertools.product(dict.fromkeys(norms), (SHUFFLED, SINGLE_LABEL), EPOCHS, LEARNING_RATES)
    return [cell for cell in cells if not (cell[0].startswith("leave_one_out") and cell[2] == 1)]


def measure(norm: str, construction: str, batch_size: int, lr: float, seed: int) -> dict[str, list]:
    """Run one cell with one seed: ``epoch``, ``train_loss`` (train mode) and ``test_error`` (eval mode)."""
    torch.set_num_threads(1)
    data = datasets.load("digits")
    batches = single_label(data.train_y) if construction == SINGLE_LABEL else None
    settings = dict(batch_size=batch_size, lr=lr, epochs=EPOCHS[batch_size], points=POINTS, seed=seed, batches=batches)
    *_, (_, _, history) = iterate(mlp(SIZES, NORMS[norm], seed=seed), data, **settings)
    return curves(history)


def _cell(cell: tuple[str, str, int, float]) -> dict:
    runs = [measure(*cell, seed) for seed in SEEDS]
    last = {key: [run[key][-1] for run in runs] for key in ("train_loss", "test_error")}
    return dict(zip(("norm", "construction", "batch_size", "lr"), cell, strict=True)) | last


@cache
def load() -> dict[tuple[str, str, int, float], dict]:
    """The committed result: for each cell of ``grid`` the last train loss and test error of each seed.

    Raises:
        FileNotFoundError: the result is not there; the message says how to make it.
    """
    cells = read_result(NAME, f"python -m bnlib.experiments.{NAME}")["cells"]
    return {(cell["norm"], cell["construction"], cell["batch_size"], cell["lr"]): cell for cell in cells}


def best(norm: str, construction: str, batch_size: int) -> tuple[float, np.ndarray]:
    """The learning rate with the least median test error, and the test errors of the seeds there."""
    errors = {lr: np.array(load()[norm, construction, batch_size, lr]["test_error"]) for lr in LEARNING_RATES}
    lr = min(errors, key=lambda lr: np.median(errors[lr]))
    return lr, errors[lr]


def main(workers: int = 2) -> None:
    """Run the whole grid in ``workers`` processes and write the result."""
    from tqdm import tqdm

    with write_result(NAME, f"python -m bnlib.experiments.{NAME}", seeds=SEEDS) as result:
        with ProcessPoolExecutor(workers) as pool:
            result["cells"] = list(tqdm(pool.map(_cell, grid()), total=len(grid()), unit="cell"))


if __name__ == "__main__":
    main()
