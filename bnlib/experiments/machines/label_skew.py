"""Train on several workers whose data shards have different labels, with local, synchronised or shared statistics.

The workers are simulated exactly in one process: W copies of the network, each with its own shard and running
statistics; their gradients are averaged. ``real_processes`` repeats some cells with one process per worker.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    """How each worker normalises.

    Attributes:
        norm: normalisation of each hidden layer.
        local: each worker has its own statistics, so the simulation needs a copy of the network per worker.
    """

    norm: Callable[[int], nn.Module] | str | None
    local: bool = False


METHODS = {
    "without normalisation": Method(None),
    "layer norm": Method("layer_norm"),
    "local BN": Method(BatchNorm, local=True),
    "SyncBN": Method(BatchNorm),
    "local FN": Method(FullNorm, local=True),
    "shared FN": Method(FullNorm),
}
"""Methods that synchronise normalise the global batch, in the simulation as in real processes."""
WORKERS, SKEWS = (2, 4, 10), (0.0, 0.5, 0.75, 0.9, 1.0)
GLOBAL_BATCH_SIZE, STEPS, LEARNING_RATE, SIZES = 80, 300, 0.1, (64, 100, 100, 10)
"""The global batch is divided among the workers, so more workers have smaller local batches."""
SEEDS = {"quick": range(3), "paper": range(20)}
EVALUATIONS = ("train_mode", "local_test", "worker_0", "averaged", "pooled", "recomputed")
_STATISTICS = (BatchNorm, FullNorm)


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return each method with each number of workers at each skew."""
    return {setting: SEEDS[scale] for setting in itertools.product(METHODS, WORKERS, SKEWS)}


@cache
def digits() -> Dataset:
    """Load the digits in float64, so that training gives equal results in one process and in many."""
    data = datasets.load("digits")
    return Dataset(data.name, data.train_x.double(), data.train_y, data.test_x.double(), data.test_y, 10)


def network(norm: Callable[[int], nn.Module] | str | None, seed: int) -> nn.Module:
    """Build the network that all workers start from."""
    return mlp(SIZES, norm, seed=seed).double()


def simulate(
    method: str, workers: int, skew: float, seed: int, *, batch_size: int, steps: int, lr: float, points: int = 1
) -> Iterator[tuple[int, list[nn.Module]]]:
    """Train and yield (steps done, the network of each worker) at ``points`` checkpoints.

    The networks differ only in their running statistics; they are copies.
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
def evaluate_workers(models: Sequence[nn.Module], batch_size: int, skew: float, seed: int) -> dict[str, float]:
    """Measure the errors (shares) of the networks that the workers have trained together.

    Arguments:
        models: one per worker, with equal parameters and their own running statistics.
        batch_size, skew, seed: settings of the training.

    Returns:
        ``train_mode``: in train mode on new batches of each worker's own training samples. All others in eval mode:
        ``local_test``: with each worker's statistics, on a test shard with labels like its own; on the whole test set
        with the statistics of ``worker_0``; with means and variances ``averaged`` over workers; ``pooled``: including
        the variance between the workers' means; ``recomputed`` from all training data as one batch.
    """
    data, workers = digits(), len(models)
    own = [PerWorker(rank, workers, skew=skew)(data.train_y, batch_size, seed) for rank in range(workers)]
    count = len(data.train_y) // workers // batch_size
    batches = [batch for stream in own for batch in itertools.islice(stream, count)]
    parts = shards(data.test_y, workers, skew, torch.Generator().manual_seed(seed))
    everywhere = torch.arange(len(data.test_y))
    models = [model.eval() for model in models]
    return {
        "train_mode": model_objective(models[0], _wrong, data.train_x, data.train_y, batches).item(),
        "local_test": float(np.mean([_error(model, part) for model, part in zip(models, parts, strict=True)])),
        "worker_0": _error(models[0], everywhere),
        "averaged": _error(averaged(models, between=False), everywhere),
        "pooled": _error(averaged(models, between=True), everywhere),
        "recomputed": _error(recomputed(models[0], data.train_x), everywhere),
    }


@torch.no_grad()
def train_mode_errors(models: Sequence[nn.Module], batch_size: int, skew: float, seed: int) -> dict[str, float]:
    """Measure the errors (shares) in train mode, by whether an image shows the most frequent label of its batch.

    The batches are an epoch of each worker's own training samples, and the arguments are those of
    ``evaluate_workers``.

    Returns:
        the errors on images of the ``most frequent label`` of their batch, and of ``all other labels``.
    """
    data, workers, model = digits(), len(models), copy.deepcopy(models[0]).train()
    wrong: dict[str, list[Tensor]] = {"most frequent label": [], "all other labels": []}
    for rank in range(workers):
        stream = PerWorker(rank, workers, skew=skew)(data.train_y, batch_size, seed)
        for batch in itertools.islice(stream, len(data.train_y) // workers // batch_size):
            labels = data.train_y[batch]
            found, frequent = _wrong(model(data.train_x[batch]), labels), labels == labels.bincount().argmax()
            wrong["most frequent label"].append(found[frequent])
            wrong["all other labels"].append(found[~frequent])
    return {name: torch.cat(each).mean().item() for name, each in wrong.items()}


@torch.no_grad()
def _evaluate_worker_0(models: Sequence[nn.Module], *_) -> dict[str, float]:
    return {"worker_0": _error(models[0].eval(), torch.arange(len(digits().test_y)))}


def averaged(models: Sequence[nn.Module], *, between: bool) -> nn.Module:
    """Average the running statistics of all models in a copy of the first; add the variance ``between`` their means."""
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
    """Return a copy with running statistics recomputed from ``x`` as one batch, layer by layer."""
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
    """Simulate a training on the CPU and evaluate the workers."""
    size = GLOBAL_BATCH_SIZE // workers
    ((_, models),) = simulate(method, workers, skew, seed, batch_size=size, steps=STEPS, lr=LEARNING_RATE)
    return evaluate_workers(models, size, skew, seed)


EXPERIMENT = Measurement(
    name="machines.label_skew",
    question="How much may the labels of workers differ before local BN fails, and what prevents the failure?",
    source="Lian and Liu 2019, sections 1 and 4, on distributed training",
    axes=("method", "workers", "skew"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def error_rows(workers: int, skews: Sequence[float], methods: Iterable[str] = METHODS) -> list[dict]:
    """Return the committed test errors (%) with the statistics of worker 0: a row per method, a column per skew."""
    return [
        {"method": method} | {f"skew {skew:g}": 100 * load()[method, workers, skew]["worker_0"] for skew in skews}
        for method in methods
    ]


def error_rows_by_workers(skews: Sequence[float], methods: Iterable[str] = METHODS) -> list[dict]:
    """Return ``error_rows`` of every number of workers, which stands in the first column."""
    return [{"workers": workers, **row} for workers in WORKERS for row in error_rows(workers, skews, methods)]


def evaluation_rows(skews: Sequence[float], method: str = "local BN") -> list[dict]:
    """Return the median errors (%) of one method by number of workers and skew, a column per evaluation.

    The columns are explained in ``evaluate_workers``.
    """
    return [
        {"workers": workers, "skew": f"{skew:g}"}
        | {name.replace("_", " "): 100 * np.median(load()[method, workers, skew][name]) for name in EVALUATIONS}
        for workers, skew in itertools.product(WORKERS, skews)
    ]


def largest_weight_difference(method: str, weights: Sequence[Tensor], *, workers: int, batch_size: int) -> float:
    """Return how far ``weights`` are from the parameters after one simulated step of a method at skew 1."""
    settings = {"batch_size": batch_size, "steps": 1, "lr": LEARNING_RATE}
    ((_, models),) = simulate(method, workers, 1.0, 0, **settings)
    pairs = zip(weights, models[0].parameters(), strict=True)
    return max((ours - simulated).abs().max().item() for ours, simulated in pairs)


def error_with_statistics(means_from: nn.Module, variances_from: nn.Module) -> float:
    """Return the test error (a share) with the running means of one network and all else of another."""
    means = {name: value for name, value in means_from.state_dict().items() if name.endswith("running_mean")}
    model = copy.deepcopy(variances_from).eval()
    model.load_state_dict({**variances_from.state_dict(), **means})
    with torch.no_grad():
        return _error(model, torch.arange(len(digits().test_y)))


def lookup(workers: int, skew: float) -> dict[str, dict[str, np.ndarray]]:
    """Return the committed errors by method."""
    return {method: load()[method, workers, skew] for method in METHODS}


_live_seed = itertools.count(100)


def train(workers: int, skew: float) -> Iterator[tuple[int, int, dict[str, dict]]]:
    """Simulate all methods now, with a seed that no result has used; add their errors as ``METHOD, your run``.

    Only local BN has all ``EVALUATIONS``; the other methods only that of worker 0.
    """
    seed, size = next(_live_seed), GLOBAL_BATCH_SIZE // workers
    settings = {"batch_size": size, "steps": STEPS, "lr": LEARNING_RATE, "points": 15}
    runs = {method: simulate(method, workers, skew, seed, **settings) for method in METHODS}
    for made in zip(*runs.values(), strict=True):
        shown = dict(lookup(workers, skew))
        for method, (_, models) in zip(runs, made, strict=True):
            evaluate = evaluate_workers if method == "local BN" else _evaluate_worker_0
            found = evaluate(models, size, skew, seed)
            shown[f"{method}, your run"] = {name: np.array([value]) for name, value in found.items()}
        yield made[0][0], STEPS, shown
