"""Fine-tune a network on a few images of another kind, with BN in train mode, frozen, or re-estimated and then frozen.

The network is pre-trained on digits. The new images are digits that are darker, transposed or inverted.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import BatchNorm, BatchRenorm, FullNorm, convert, datasets
from bnlib.datasets import Dataset
from bnlib.experiments.framework.best_rates import BestRate, best_rates
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp
from bnlib.probes import with_recomputed_statistics
from bnlib.samplers import shuffled
from bnlib.stacked import stack
from bnlib.training import error_rate, fit

SHIFTS = {
    "darker": lambda x: 0.3 * x,
    "transposed": lambda x: x.transpose(-1, -2),
    "inverted": lambda x: 1 - x,
}
"""What is done to the new images, whose pixels are 0 (black) to 1 (white) before: from a small shift to a large one."""
ARMS = ("train mode", "frozen", "frozen, gamma and beta too", "re-estimated, then frozen", "Full Norm", "Batch Renorm")
FROZEN = ARMS[1:4]
MAIN_ARMS = ("train mode", "frozen", "re-estimated, then frozen")
BATCH_SIZES = (1, 2, 4, 8, 32)
LEARNING_RATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
IMAGES, SIZES = 200, (64, 100, 100, 10)
STEPS = 400
"""The steps of fine-tuning, the same number for each batch size."""
PRETRAINING = {"batch_size": 32, "lr": 0.1, "epochs": 10}
SEEDS = {"quick": range(5), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return three arms at each shift and batch size, and the other arms for transposed images at some of the sizes."""
    grid = [*itertools.product(SHIFTS, MAIN_ARMS, BATCH_SIZES)]
    grid += [("transposed", arm, size) for arm in ARMS if arm not in MAIN_ARMS for size in (1, 2, 4, 32)]
    return dict.fromkeys(grid, SEEDS[scale])


@cache
def pretrained(seed: int) -> tuple[nn.Module, Tensor]:
    """Train a network with BN on all training digits but ``IMAGES``; return it and the indices of the others."""
    data = datasets.load("digits")
    order = torch.randperm(len(data.train_x), generator=torch.Generator().manual_seed(seed))
    ours, others = order[IMAGES:], order[:IMAGES]
    model = mlp(SIZES, BatchNorm, seed=seed)
    first = Dataset(data.name, data.train_x[ours], data.train_y[ours], data.test_x, data.test_y, data.num_classes)
    fit(model, first, **PRETRAINING, checkpoints=1, seed=seed, progress=False)
    return model, others


def new_images(shift: str, seed: int) -> Dataset:
    """Return ``IMAGES`` shifted digits that pre-training has not seen, and all test digits, shifted in the same way."""
    data, (_, index) = datasets.load("digits"), pretrained(seed)
    change = SHIFTS[shift]
    return Dataset(shift, change(data.train_x[index]), data.train_y[index], change(data.test_x), data.test_y, 10)


def prepared(arm: str, data: Dataset, seed: int) -> nn.Module:
    """Return a copy of the pre-trained network as this arm starts fine-tuning with it."""
    model = copy.deepcopy(pretrained(seed)[0])
    if arm == "re-estimated, then frozen":
        return with_recomputed_statistics(model, [data.train_x])
    kinds = {"Full Norm": FullNorm, "Batch Renorm": BatchRenorm}
    return convert(model, to=kinds[arm]) if arm in kinds else model


def fine_tune(
    model: nn.Module, arm: str, data: Dataset, batch_size: int, seed: int, rates: Sequence[float] = LEARNING_RATES
) -> list[nn.Module]:
    """Fine-tune copies of a prepared network by SGD, one for each learning rate, all at once."""
    models = stack([model] * len(rates)).train()
    if arm in FROZEN:
        freeze(models, affine=arm == "frozen, gamma and beta too")
    rate_of = zip(models.parameters(), models.broadcast_to_parameters(torch.tensor(rates)), strict=True)
    moves = [(weight, rate.expand_as(weight).contiguous()) for weight, rate in rate_of if weight.requires_grad]
    batches, labels = shuffled(data.train_y, batch_size, seed), data.train_y
    for index in itertools.islice(batches, STEPS):
        models.zero_grad(set_to_none=False)
        logits = models(data.train_x[index].expand(len(rates), *data.train_x[index].shape))
        loss = F.cross_entropy(logits.flatten(0, 1), labels[index].repeat(len(rates)), reduction="sum") / batch_size
        loss.backward()
        with torch.no_grad():  # a step of SGD in which each network has its own learning rate
            for weight, rate in moves:
                weight.addcmul_(weight.grad, rate, value=-1)
    return models.eval().unstack()


def freeze(model: nn.Module, *, affine: bool) -> None:
    """Put the BN layers of a model in eval mode; with ``affine``, do not train gamma and beta either."""
    for layer in model.modules():
        if isinstance(layer, BatchNorm):
            layer.eval()
            layer.requires_grad_(not affine)


def measure(shift: str, arm: str, batch_size: int, *, seed: int, device) -> dict[str, object]:
    """Fine-tune a pre-trained network on the CPU and measure test errors (shares) in eval mode.

    Returns:
        ``before``: before the first step; ``test_error``: after the last one, for each of ``LEARNING_RATES``;
        ``recomputed``, where BN was in train mode: with statistics recomputed from all new images after the last step.
    """
    data = new_images(shift, seed)
    model = prepared(arm, data, seed)
    tuned = fine_tune(model, arm, data, batch_size, seed)

    def errors(models: Sequence[nn.Module]) -> list[float]:
        return [error_rate(each, data.test_x, data.test_y) for each in models]

    found = {"before": errors([model])[0], "test_error": errors(tuned)}
    if arm == "train mode":
        found["recomputed"] = errors([with_recomputed_statistics(each, [data.train_x]) for each in tuned])
    return found


EXPERIMENT = Measurement(
    name="training_code.fine_tuning",
    question="Should BN be trained, frozen or re-estimated when a network is fine-tuned on other images?",
    source="Chollet 2020, section on BatchNormalization layers",
    axes=("shift", "arm", "batch_size"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def best(value: str = "test_error") -> dict[tuple, BestRate]:
    """Return the best learning rate of each shift, arm and batch size that has this value."""
    cells = {
        (*cell, lr): {value: row[value][:, place]}
        for cell, row in load().items()
        if value in row
        for place, lr in enumerate(LEARNING_RATES)
    }
    return best_rates(cells, (*EXPERIMENT.axes, "lr"), value)


def best_errors(shift: str, arm: str, batch_size: int, value: str = "test_error") -> np.ndarray:
    """Return the test errors (%) at the best learning rate of this arm, one per seed."""
    rate = best(value)[shift, arm, batch_size].rate
    return 100 * load()[shift, arm, batch_size][value][:, LEARNING_RATES.index(rate)]


def errors_by_shift() -> dict[str, dict[str, dict[int, np.ndarray]]]:
    """Return the test errors (%) at each arm's best learning rate by shift, arm and batch size, one per seed."""
    return {
        shift: {
            arm: {size: best_errors(shift, arm, size) for size in BATCH_SIZES if (shift, arm, size) in load()}
            for arm in MAIN_ARMS
        }
        for shift in SHIFTS
    }


def error_rows(shift: str, arms: Sequence[str] = MAIN_ARMS, batch_sizes: Sequence[int] = BATCH_SIZES) -> list[dict]:
    """Return the test errors (%) at each arm's best learning rate for ``tables.Table``, a column per batch size."""
    return [
        {"batch norm": arm} | {("batch size", str(size)): best_errors(shift, arm, size) for size in batch_sizes}
        for arm in arms
    ]
