"""Average the weights of a network during training, with running statistics copied, averaged or recomputed.

The averages are those of ``torch.optim.swa_utils.AveragedModel``: EMA, an exponential moving average over all steps,
and SWA, an equal average of one network per epoch. They do not change the training.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bnlib import BatchNorm, FullNorm, datasets
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.machines.label_skew import recomputed
from bnlib.models import mlp
from bnlib.training import error_rate, iterate

NORMS = {"batch norm": BatchNorm, "Full Norm": FullNorm, "layer norm": "layer_norm"}
LEARNING_RATES, CONTROL_RATE = (0.1, 1.0), 0.3
DECAYS = (0.9, 0.99, 0.999)
WARM_UP, SWA = "EMA 0.999, warm-up", "SWA"
AVERAGES = (*(f"EMA {decay}" for decay in DECAYS), WARM_UP, SWA)
EPOCHS, BATCH_SIZE, SWA_START = 20, 32, 5
"""SWA averages the networks at the ends of the epochs from ``SWA_START`` on."""
CHECKPOINTS = (1, 2, 5, 10, 20)
"""Epochs after which the averaged networks are tested."""
STATISTICS = ("copied", "averaged", "recomputed")
SEEDS = {"quick": range(5), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return BN at each learning rate, and the other norms at one of them."""
    grid = [("batch norm", lr) for lr in LEARNING_RATES] + [
        (norm, CONTROL_RATE) for norm in NORMS if norm != "batch norm"
    ]
    return dict.fromkeys(grid, SEEDS[scale])


def with_warm_up(decay: float) -> Callable:
    """Return a ``multi_avg_fn`` for EMA whose decay rises with the number n of averaged models: (1 + n) / (10 + n).

    TensorFlow's ``ExponentialMovingAverage`` does this with ``num_updates``.
    """

    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor) -> None:
        get_ema_multi_avg_fn(min(decay, (1 + count.item()) / (10 + count.item())))(averaged, current, count)

    return update


def averaged_models(model: nn.Module) -> dict[str, AveragedModel]:
    """Return an average of each kind that averages parameters and buffers."""
    kinds = {f"EMA {decay}": get_ema_multi_avg_fn(decay) for decay in DECAYS}
    kinds[WARM_UP] = with_warm_up(DECAYS[-1])
    models = {name: AveragedModel(model, multi_avg_fn=average, use_buffers=True) for name, average in kinds.items()}
    return models | {SWA: AveragedModel(model, use_buffers=True)}


def with_buffers_of(model: nn.Module, source: nn.Module) -> nn.Module:
    """Return a copy of a network with the buffers of another one."""
    model = copy.deepcopy(model)
    for ours, theirs in zip(model.buffers(), source.buffers(), strict=True):
        ours.copy_(theirs)
    return model


def _checkpoints(norm: str, lr: float, seed: int, device) -> Iterator[tuple[int, int, dict[str, list]]]:
    """Train, and yield after each epoch the number of steps, their total, and all measurements so far."""
    data = datasets.load("digits").to(device)
    model = mlp((64, 100, 100, 10), NORMS[norm], seed=seed).to(device)
    averages, per_epoch = averaged_models(model), len(data.train_x) // BATCH_SIZE

    def update(step: int, model: nn.Module, _) -> None:
        for name, average in averages.items():
            if name != SWA or (step % per_epoch == 0 and step >= SWA_START * per_epoch):
                average.update_parameters(model)

    found: dict[str, list] = {name: [] for name in ("last", "last_recomputed", *STATISTICS, "variance_ratio")}
    settings = {"batch_size": BATCH_SIZE, "lr": lr, "epochs": EPOCHS, "checkpoints": EPOCHS, "seed": seed}
    for done, total, _ in iterate(model, data, **settings, device=device, callbacks=[update]):
        if done / per_epoch in CHECKPOINTS:
            for name, value in _test(model, averages, data).items():
                found[name].append(value)
        yield done, total, found


def _test(model: nn.Module, averages: dict[str, AveragedModel], data: datasets.Dataset) -> dict[str, object]:
    """Measure test errors (shares), and how much too large the running variances of the averages are."""

    def error(model: nn.Module) -> float:
        return error_rate(model, data.test_x, data.test_y)

    found = {"last": error(model), "last_recomputed": error(recomputed(model, data.train_x))}
    rows = []
    for average in averages.values():
        if not average.n_averaged:  # SWA has not begun
            rows.append([np.nan] * 4)
            continue
        right = recomputed(average.module, data.train_x)
        tested = with_buffers_of(average.module, model), average.module, right
        rows.append([*map(error, tested), variance_ratio(average.module, right)])
    return found | dict(zip((*STATISTICS, "variance_ratio"), map(list, zip(*rows, strict=True)), strict=True))


def variance_ratio(model: nn.Module, right: nn.Module) -> float:
    """Return the running variances of ``model`` over those of ``right``: median over all units; nan without any."""
    variances = [
        torch.cat([layer.running_var for layer in each.modules() if hasattr(layer, "running_var")] or [torch.zeros(1)])
        for each in (model, right)
    ]
    return (variances[0] / variances[1]).median().item()


def measure(norm: str, lr: float, *, seed: int, device) -> dict[str, list]:
    """Train for ``EPOCHS`` epochs and test the averaged networks in eval mode at ``CHECKPOINTS``.

    Returns:
        test errors (shares) of the last weights, with running and with recomputed statistics (``last_recomputed``); for
        each checkpoint and each of ``AVERAGES`` the test errors of the averaged weights with statistics ``copied`` from
        the last network, ``averaged`` like the weights, and ``recomputed`` from all training images; and
        ``variance_ratio``, averaged running variances over recomputed ones.
    """
    *_, (_, _, found) = _checkpoints(norm, lr, seed, device)
    return found


EXPERIMENT = Measurement(
    name="training_code.averaged_weights",
    question="Which running statistics should averaged weights (EMA, SWA) use?",
    source="Izmailov et al. 2018, section 3; documentation of torch.optim.swa_utils.AveragedModel",
    axes=("norm", "lr"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def lookup(average: str, lr: float) -> dict[str, np.ndarray]:
    """Return the committed test errors with BN, of shape (seeds, checkpoints), of the last and the averaged weights."""
    row, place = load()["batch norm", lr], AVERAGES.index(average)
    return {"last": row["last"]} | {name: row[name][..., place] for name in STATISTICS}


_live_seed = itertools.count(100)


def train(average: str, lr: float) -> Iterator[tuple[int, int, dict[str, np.ndarray]]]:
    """Train now, with a seed that no result has used; add the errors as ``STATISTICS, your run``."""
    place = AVERAGES.index(average)
    for done, total, found in _checkpoints("batch norm", lr, next(_live_seed), "cpu"):
        live = {"last": found["last"]} | {name: [each[place] for each in found[name]] for name in STATISTICS}
        yield done, total, lookup(average, lr) | {f"{name}, your run": np.array(each) for name, each in live.items()}


def errors(norm: str, lr: float, average: str, statistics: str, epoch: int) -> np.ndarray:
    """Return the committed test errors (%) of averaged weights, one per seed."""
    place = CHECKPOINTS.index(epoch), AVERAGES.index(average)
    return 100 * load()[norm, lr][statistics][:, *place]


def error_rows(norm: str, lr: float, epoch: int, averages: Sequence[str] = AVERAGES) -> list[dict]:
    """Return the test errors (%) after ``epoch`` epochs for ``tables.Table``, a column for each kind of statistics."""
    last = 100 * load()[norm, lr]["last"][:, CHECKPOINTS.index(epoch)]
    return [
        {"weights": average}
        | {("running statistics", kind): errors(norm, lr, average, kind, epoch) for kind in STATISTICS}
        | {"last weights": last}
        for average in averages
    ]
