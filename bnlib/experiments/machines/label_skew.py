"""Workers with shards of their own, whose labels differ: local, synchronised and shared statistics.

The workers are simulated in one process, exactly: W copies of the network, each with its shard and its running
statistics, whose gradients are averaged. ``many_processes`` repeats some cells with real processes.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import BatchNorm, FullNorm, datasets
from bnlib.datasets import Dataset
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp
from bnlib.objective import model_objective
from bnlib.samplers import PerWorker, shards
from bnlib.stacked import stack


class Method(NamedTuple):
    """What each worker normalises with.

    Attributes:
        norm: of each hidden layer.
        local: each worker has statistics of its own, so that there must be a copy of the network for each.
    """

    norm: Callable[[int], nn.Module] | str | None
    local: bool = False


METHODS = {
    "no norm": Method(None),
    "layer norm": Method("layer_norm"),
    "local BN": Method(BatchNorm, local=True),
    "SyncBN": Method(BatchNorm),
    "local FN": Method(FullNorm, local=True),
    "shared FN": Method(FullNorm),
}
"""What synchronises sees the joined batch, in a simulation as in truth (``tests/unit/test_many_machines.py``)."""
WORKERS, SKEWS = (2, 4, 10), (0.0, 0.5, 0.75, 0.9, 1.0)
JOINED, STEPS, LEARNING_RATE, SIZES = 80, 300, 0.1, (64, 100, 100, 10)
"""Samples of all workers in a step, so that more workers have smaller batches; and the rest of the training."""
SEEDS = {"quick": range(3), "paper": range(20)}
WHERE = ("objective", "own", "first", "averaged", "pooled", "recomputed")
_STATISTICS = (BatchNorm, FullNorm)


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Each method with each number of workers at each skew."""
    return {setting: SEEDS[scale] for setting in itertools.product(METHODS, WORKERS, SKEWS)}


@cache
def digits() -> Dataset:
    """In float64, so that a whole training is the same in one process and in many."""
    data = datasets.load("digits")
    return Dataset(data.name, data.train_x.double(), data.train_y, data.test_x.double(), data.test_y, 10)


def network(norm: Callable[[int], nn.Module] | str | None, seed: int) -> nn.Module:
    """The network that all workers start from."""
    return mlp(SIZES, norm, seed=seed).double()


def simulate(
    method: str, workers: int, skew: float, seed: int, *, batch_size: int, steps: int, lr: float, points: int = 1
) -> Iterator[tuple[int, list[nn.Module]]]:
    """Train and yield (steps done, the network of each worker) at ``points`` checkpoints.

    The networks differ in nothing but running statistics; what is yielded is a copy.
    """
    data, (norm, local) = digits(), METHODS[method]
    copies = workers if local else 1
    model = stack([network(norm, seed)] * workers) if local else network(norm, seed)
    model.train()
    parameters = list(model.parameters())
    optimiser = torch.optim.SGD(parameters, lr=lr)
    streams = [PerWorker(rank, workers, skew=skew)(data.train_y, batch_size, seed) for rank in range(workers)]
    at = {round(steps * point / points) for point in range(1, points + 1)}
    for step in range(1, steps + 1):
        index = torch.stack([next(stream) for stream in streams])
        optimiser.zero_grad(set_to_none=False)
        outputs = model(data.train_x[index if local else index.flatten()])
        F.cross_entropy(outputs.view(-1, outputs.size(-1)), data.train_y[index].flatten()).backward()
        for parameter in parameters if local else ():
            # The loss is a mean over all workers, so that the sum over copies is the mean gradient.
            gradients = parameter.grad.view(copies, -1)
            gradients.copy_(gradients.sum(0, keepdim=True).expand_as(gradients))
        optimiser.step()
        if step in at:
            found = model.unstack() if local else [copy.deepcopy(model) for _ in range(workers)]
            yield step, found


@torch.no_grad()
def judge(models: Sequence[nn.Module], batch_size: int, skew: float, seed: int) -> dict[str, float]:
    """Share of errors of what the workers have trained together.

    Arguments:
        models: one a worker, with the same parameters and running statistics of their own.
        batch_size, skew, seed: of the training.

    Returns:
        ``objective``: in train mode on new batches of each worker's own training samples; all others on the test set in
        eval mode: ``own``: dealt out as the training set was, with each worker's statistics; and on all of it with
        those of the ``first`` worker; with means and variances ``averaged`` over workers; ``pooled``: with the
        variance between the workers' means as well; ``recomputed`` from all training data as one batch.
    """
    data, workers = digits(), len(models)
    own = [PerWorker(rank, workers, skew=skew)(data.train_y, batch_size, seed) for rank in range(workers)]
    count = len(data.train_y) // workers // batch_size
    batches = [batch for stream in own for batch in itertools.islice(stream, count)]
    parts = shards(data.test_y, workers, skew, torch.Generator().manual_seed(seed))
    everywhere = torch.arange(len(data.test_y))
    models = [model.eval() for model in models]
    return {
        "objective": model_objective(models[0], _wrong, data.train_x, data.train_y, batches).item(),
        "own": float(np.mean([_error(model, part) for model, part in zip(models, parts, strict=True)])),
        "first": _error(models[0], everywhere),
        "averaged": _error(averaged(models, between=False), everywhere),
        "pooled": _error(averaged(models, between=True), everywhere),
        "recomputed": _error(recomputed(models[0], data.train_x), everywhere),
    }


@torch.no_grad()
def _judge_first(models: Sequence[nn.Module], *_) -> dict[str, float]:
    return {"first": _error(models[0].eval(), torch.arange(len(digits().test_y)))}


def averaged(models: Sequence[nn.Module], *, between: bool) -> nn.Module:
    """A copy of the first model with the running statistics of all, and with the variance ``between`` their means."""
    states = [model.state_dict() for model in models]
    made = dict(states[0])
    for name in made:
        each = torch.stack([state[name] for state in states])
        if "running" in name:
            made[name] = each.mean(0)
        if name.endswith("running_var") and between:
            means = [state[name.replace("running_var", "running_mean")] for state in states]
            made[name] += torch.stack(means).var(0, correction=0)
    model = copy.deepcopy(models[0])
    model.load_state_dict(made)
    return model


@torch.no_grad()
def recomputed(model: nn.Module, x: Tensor) -> nn.Module:
    """A copy whose running statistics are those of ``x`` as one batch, layer by layer."""
    model = copy.deepcopy(model).train()
    for layer in model.modules():
        if isinstance(layer, _STATISTICS):
            setattr(layer, "alpha" if isinstance(layer, FullNorm) else "momentum", 1.0)
    model(x)
    return model.eval()


def _wrong(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs.argmax(-1) != labels).double()


def _error(model: nn.Module, index: Tensor) -> float:
    data = digits()
    return _wrong(model(data.test_x[index]), data.test_y[index]).mean().item()


def measure(method: str, workers: int, skew: float, *, seed: int, device) -> dict[str, float]:
    """Simulate a training on the CPU, and judge it."""
    size = JOINED // workers
    ((_, models),) = simulate(method, workers, skew, seed, batch_size=size, steps=STEPS, lr=LEARNING_RATE)
    return judge(models, size, skew, seed)


EXPERIMENT = Measurement(
    name="machines.label_skew",
    question="How different may the labels of several workers be for local BN, and what cures it?",
    source="Lian and Liu 2019, sections 1 and 4, on distributed training",
    axes=("method", "workers", "skew"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """The committed result."""
    return EXPERIMENT.load("quick")


def lookup(workers: int, skew: float) -> dict[str, dict[str, np.ndarray]]:
    """The committed errors at one position of the grid, one entry a method."""
    return {method: load()[method, workers, skew] for method in METHODS}


_live_seed = itertools.count(100)


def train(workers: int, skew: float) -> Iterator[tuple[int, int, dict[str, dict]]]:
    """Simulate all methods with a seed that no result has used; their errors are added as ``METHOD, your run``.

    Only local BN is judged in all ways, the others with the statistics of the first worker.
    """
    seed, size = next(_live_seed), JOINED // workers
    settings = {"batch_size": size, "steps": STEPS, "lr": LEARNING_RATE, "points": 15}
    runs = {method: simulate(method, workers, skew, seed, **settings) for method in METHODS}
    for made in zip(*runs.values(), strict=True):
        shown = dict(lookup(workers, skew))
        for method, (_, models) in zip(runs, made, strict=True):
            everything = judge if method == "local BN" else _judge_first
            found = everything(models, size, skew, seed)
            shown[f"{method}, your run"] = {name: np.array([value]) for name, value in found.items()}
        yield made[0][0], STEPS, shown
