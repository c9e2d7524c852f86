"""Batch size and learning rate on digits, with and without BN: the grid behind chapter 1.

``python -m bnlib.experiments.digits_grid`` runs it and writes ``data/results/digits_grid.json``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache

import numpy as np
import torch

from bnlib import BatchNorm, datasets
from bnlib.experiments.results import read_result, write_result
from bnlib.models import mlp
from bnlib.training import History, best_device, iterate

NAME = "digits_grid"
SIZES = (64, 100, 100, 10)
NORMS = {"batch norm": BatchNorm, "no norm": None}
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LEARNING_RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SEEDS = (0, 1, 2, 3, 4)
EPOCHS, POINTS = 10, 20


def start(norm: str, batch_size: int, lr: float, seed: int, device: torch.device | str = "cpu"):
    """One run of the grid, as ``bnlib.training.iterate`` yields it; ``seed`` sets weights and batch order."""
    model = mlp(SIZES, NORMS[norm], seed=seed)
    settings = dict(batch_size=batch_size, lr=lr, epochs=EPOCHS, points=POINTS, seed=seed, device=device)
    return iterate(model, datasets.load("digits"), **settings)


def measure(norm: str, batch_size: int, lr: float, seed: int) -> dict[str, list]:
    """Run one cell with one seed to its end: ``epoch``, ``train_loss`` and ``test_error``, padded after divergence."""
    torch.set_num_threads(1)
    *_, (_, _, history) = start(norm, batch_size, lr, seed)
    return curves(history)


def curves(history: History) -> dict[str, list]:
    """The history as JSON-ready lists: four significant digits, None where the loss was no longer finite."""
    loss = [float(f"{value:.4g}") if math.isfinite(value) else None for value in history.train_loss]
    return {
        "epoch": history.epoch,
        "train_loss": loss,
        "test_error": [round(e, 4) for e in history.test_error],
    }


def _cell(cell: tuple[str, int, float]) -> dict:
    norm, batch_size, lr = cell
    runs = [measure(norm, batch_size, lr, seed) for seed in SEEDS]
    longest = max((run["epoch"] for run in runs), key=len)
    return {
        "norm": norm,
        "batch_size": batch_size,
        "lr": lr,
        "epoch": longest,
        "train_loss": [run["train_loss"] for run in runs],
        "test_error": [run["test_error"] for run in runs],
    }


@cache
def load() -> dict[tuple[str, int, float], dict]:
    """The committed grid: for (norm, batch size, learning rate) the curves of all seeds.

    Raises:
        FileNotFoundError: the result is not there; the message says how to make it.
    """
    cells = read_result(NAME, "python -m bnlib.experiments.digits_grid")["cells"]
    return {(cell["norm"], cell["batch_size"], cell["lr"]): cell for cell in cells}


def lookup(batch_size: int, lr: float) -> dict[str, dict]:
    """The committed curves at one position of the grid, one entry a norm, as ``figures.draw_training`` takes them."""
    return {norm: load()[norm, batch_size, lr] for norm in NORMS}


def errors(norm: str, batch_size: int, lr: float) -> np.ndarray:
    """Test error of each seed after the last epoch, shape (5,)."""
    return np.array([run[-1] for run in load()[norm, batch_size, lr]["test_error"]])


_live_seed = itertools.count(100)


def train(
    batch_size: int, lr: float, device: torch.device | str | None = None
) -> Iterator[tuple[int, int, dict[str, dict]]]:
    """Train both networks for real, with a seed that the grid has not used, and yield them beside the grid's.

    Yields (steps done, steps in all, what ``lookup`` returns with a "your run" for each norm); a new seed a call.
    ``device`` is ``training.best_device()`` if None.
    """
    seed, device = next(_live_seed), device or best_device()
    runs = {norm: start(norm, batch_size, lr, seed, device) for norm in NORMS}
    shown = lookup(batch_size, lr)
    for pair in zip(*runs.values(), strict=False):
        for norm, (_, _, history) in zip(runs, pair, strict=True):
            curve = curves(history)
            one = {"train_loss": [curve["train_loss"]], "test_error": [curve["test_error"]]}
            shown[f"{norm}, your run"] = {"epoch": curve["epoch"], **one}
        done, total = pair[0][:2]
        yield done, total, dict(shown)


def main(workers: int = 2) -> None:
    """Run the whole grid in ``workers`` processes and write the result."""
    from tqdm import tqdm

    cells = list(itertools.product(NORMS, BATCH_SIZES, LEARNING_RATES))
    with write_result(NAME, "python -m bnlib.experiments.digits_grid", seeds=SEEDS) as result:
        with ProcessPoolExecutor(workers) as pool:
            result["cells"] = list(tqdm(pool.map(_cell, cells), total=len(cells), unit="cell"))


if __name__ == "__main__":
    main()
