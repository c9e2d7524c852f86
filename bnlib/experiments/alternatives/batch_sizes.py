"""Every normalisation on digits, fully connected, at batch sizes from 1 to 256, in batches of many labels and of few.

All start from the same weights, drawn as He et al. propose, so that the network without a norm is no straw man; one
control starts from torch's own. Instance norm is not among them, for a vector has no positions to normalise over;
``bnlib.experiments.alternatives.batch_sizes_convolutional`` has it. Batch Renorm corrects from the first step, and its
averages move as fast as BN's: with the schedule of its paper it would be BN for the first 5000 steps, which is longer
than most runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial

import numpy as np
import torch
from torch import nn

from bnlib import BatchRenorm
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.models import mlp
from bnlib.samplers import AtMostLabels, Sampler, shuffled, single_label
from bnlib.sweep import Run

SIZES = (64, 64, 64, 10)
NORMS = {
    "none": None,
    "none, torch's start": None,
    "batch norm": "batch_norm",
    "Full Norm": "full_norm",
    "Batch Renorm": partial(BatchRenorm, momentum=0.1, r_max=3.0, d_max=5.0),
    "layer norm": "layer_norm",
    "group norm": "group_norm",
    "weight norm": "weight_norm",
    "weight st. + GN": "weight_standardisation",
    "cosine": "cosine",
}
CONSTRUCTIONS: dict[str, Sampler] = {"shuffled": shuffled, "two labels": AtMostLabels(2), "one label": single_label}
EPOCHS = {1: 5, 4: 5, 16: 5, 64: 16, 256: 72}
"""Passes over the training set for each batch size: enough for five epochs and for ``STEPS`` steps."""
POINTS = {1: 20, 4: 5, 16: 5, 64: 16, 256: 72}
BATCH_SIZES = tuple(EPOCHS)
LEARNING_RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
SAMPLES, STEPS = "as many pictures", "as many steps"
BUDGETS = {SAMPLES: dict.fromkeys(BATCH_SIZES, 5.0), STEPS: {1: 0.25, 4: 1.0, 16: 4.0, 64: 16.0, 256: 72.0}}
"""Epochs after which the runs are compared: five, which are 6,400 pictures (incomplete batches are dropped) to 7,185,
or as many as make 352 to 360 steps."""
SEEDS = {"quick": range(3), "paper": range(10)}


def trained(construction: str, batch_size: int) -> bool:
    """Whether it was: no class has 256 pictures, and batches of one picture are the same of any construction."""
    return batch_size > 1 if construction == "two labels" else construction == "shuffled" or 1 < batch_size < 256


def model(norm: str, *, seed: int) -> nn.Sequential:
    """The network with a norm by its name here."""
    return mlp(SIZES, NORMS[norm], init=None if "torch" in norm else nn.init.kaiming_normal_, seed=seed)


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Each norm with each kind of batches at each batch size and learning rate."""
    grid = itertools.product(NORMS, CONSTRUCTIONS, BATCH_SIZES, LEARNING_RATES)
    chosen = [cell for cell in grid if trained(cell[1], cell[2])]
    return runs(chosen, model, CONSTRUCTIONS, EPOCHS, POINTS, SEEDS[scale])


def runs(
    chosen: Iterable[tuple[str, str, int, float]],
    model: Callable[..., nn.Module],
    constructions: Mapping[str, Sampler],
    epochs: Mapping[int, int],
    points: Mapping[int, int],
    seeds: Iterable[int],
) -> dict[tuple, list[Run]]:
    """The runs of cells (norm, construction, batch size, learning rate) on digits, one for each seed."""
    return {
        (norm, construction, batch_size, lr): [
            Run(
                partial(model, norm), "digits", batch_size, lr, seed,
                epochs=epochs[batch_size], points=points[batch_size], batches=constructions[construction],
            )
            for seed in seeds
        ]
        for norm, construction, batch_size, lr in chosen
    }  # fmt: skip


EXPERIMENT = Experiment(
    name="alternatives.batch_sizes",
    question="Which normalisation trains at which batch size, on which batches?",
    source="Irpan 2017, On The Perils of Batch Norm, last section",
    axes=("norm", "construction", "batch_size", "lr"),
    cells=cells,
    curves=("test_error",),
)


@cache
def load() -> dict[tuple, dict]:
    """The committed result."""
    return EXPERIMENT.load("quick")


def possible(construction: str, batch_size: int) -> bool:
    """Whether there are such batches: no class has 256 pictures."""
    return construction != "one label" or batch_size < 256


def errors(norm: str, budget: str, construction: str, batch_size: int) -> np.ndarray:
    """Test errors, shares, shape (learning rates, seeds), at the end of a budget; 0.9 for a run that diverged.

    Raises:
        ValueError: there are no such batches.
    """
    if not possible(construction, batch_size):
        raise ValueError(f"batch_size must be at most 139 for batches of one label, got {batch_size}")
    made, point = "shuffled" if batch_size == 1 else construction, _point(budget, batch_size)
    rows = [load()[norm, made, batch_size, lr]["test_error"] for lr in LEARNING_RATES]
    return np.array([[error_at(run, point) for run in row] for row in rows])


def best(table: np.ndarray) -> int:
    """Index of the learning rate with the least median error over seeds; of equal ones that with the least mean."""
    return min(range(len(table)), key=lambda index: (np.median(table[index]), table[index].mean()))


def lookup(budget: str, construction: str, batch_size: int) -> dict[str, object]:
    """What ``figures.draw_alternatives`` draws: errors by norm, rates, and the index of the best rate of each."""
    if not possible(construction, batch_size):
        return {"errors": {}, "rates": LEARNING_RATES, "chosen": {}}
    found = {norm: errors(norm, budget, construction, batch_size) for norm in NORMS}
    return {"errors": found, "rates": LEARNING_RATES, "chosen": {norm: best(table) for norm, table in found.items()}}


def train(
    budget: str, construction: str, batch_size: int, device: torch.device | str | None = None
) -> Iterator[tuple[int, int, dict[str, object]]]:
    """Train all norms for real, each at its best rate, to be drawn beside the grid; see ``Experiment.live``.

    Raises:
        ValueError: there are no such batches.
    """
    if not possible(construction, batch_size):
        raise ValueError(f"batch_size must be at most 139 for batches of one label, got {batch_size}")
    shown, point = lookup(budget, construction, batch_size), _point(budget, batch_size)
    made = "shuffled" if batch_size == 1 else construction
    cells = {norm: (norm, made, batch_size, LEARNING_RATES[index]) for norm, index in shown["chosen"].items()}
    for done, total, curves in EXPERIMENT.live(cells, {}, device):
        ends = {norm: curves[f"{norm}, your run"]["test_error"][0] for norm in NORMS}
        yield done, total, shown | {"live": {norm: run[min(point, len(run) - 1)] for norm, run in ends.items()}}


def _point(budget: str, batch_size: int) -> int:
    return round(BUDGETS[budget][batch_size] * POINTS[batch_size] / EPOCHS[batch_size])


def error_at(run: list[float | None], point: int) -> float:
    """The error at a checkpoint; 0.9 if the run had diverged by then."""
    return 0.9 if len(run) <= point or run[point] is None else run[point]
