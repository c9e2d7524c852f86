"""Federated averaging (FedAvg): workers take local steps between averages; their labels or their images differ.

One run trains every pair of local steps and learning rate at once: it stacks a copy of the network per pair and worker.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import BatchNorm, datasets
from bnlib.experiments.framework.best_rates import best_rates
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.machines.label_skew import recomputed
from bnlib.models import mlp
from bnlib.samplers import PerWorker, shards
from bnlib.stacked import Stack, stack


class Method(NamedTuple):
    """How the workers normalise, and what they average.

    Attributes:
        norm: normalisation of each hidden layer.
        rates: the learning rates that are tried.
        local_norm: the BN layers are not averaged: each worker keeps its own statistics, gamma and beta.
        freeze: after half of the steps, normalise with the averaged running statistics and change them no more.
    """

    norm: Callable[[int], nn.Module] | str | None
    rates: tuple[float, ...]
    local_norm: bool = False
    freeze: bool = False


_LOW, _HIGH = (0.03, 0.1, 0.3, 1.0), (0.1, 0.3, 1.0, 3.0)


def _group_norm(channels: int) -> nn.GroupNorm:
    # Without spatial dimensions a group needs many channels, or normalising it leaves little of them.
    return nn.GroupNorm(4, channels)


METHODS = {
    "without normalisation": Method(None, _LOW),
    "layer norm": Method("layer_norm", _LOW),
    "group norm": Method(_group_norm, _LOW),
    "BN": Method(BatchNorm, _HIGH),
    "FedBN": Method(BatchNorm, _HIGH, local_norm=True),
    "FixBN": Method(BatchNorm, _HIGH, freeze=True),
}
KINDS = ("labels", "images")
"""What differs between the workers: the shares of the labels, or contrast, brightness and rotation of the images."""
SKEWS, LOCAL_STEPS = (0.0, 0.75, 1.0), (1, 4, 16, 64)
WORKERS, BATCH_SIZE, STEPS, SIZES = 5, 16, 256, (64, 64, 64, 10)
LATE_RATE = 0.1
"""After half of the steps the learning rate is multiplied by this."""
SEEDS = {"quick": range(3), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return each method with each data distribution, number of local steps and learning rate; skew 0 is one kind."""
    data = [(kind, skew) for kind in KINDS for skew in SKEWS if skew or kind == KINDS[0]]
    grid = itertools.product(METHODS, data, LOCAL_STEPS)
    return {
        (*arm, lr): SEEDS[scale]
        for method, where, steps in grid
        for arm in [(method, *where, steps)]
        for lr in METHODS[method].rates
    }


@cache
def digits() -> datasets.Dataset:
    """Load the digits."""
    return datasets.load("digits")


def worker_images(x: Tensor, rank: int, skew: float) -> Tensor:
    """Return the images (n, 1, 8, 8) as the camera of a worker takes them: with its contrast, brightness and rotation.

    At skew 1 the contrasts of the five workers go from 1/3 to 3, brightnesses from -0.5 to 0.5 (white is 1), and
    rotations from -30 to 30 degrees; at skew 0 all are unchanged.
    """
    if skew == 0:
        return x
    contrast, brightness, angle = _CAMERAS[rank] * skew
    sine, cosine = math.sin(angle * math.pi / 6), math.cos(angle * math.pi / 6)
    turn = torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0]], dtype=x.dtype).expand(len(x), 2, 3)
    turned = F.grid_sample(x, F.affine_grid(turn, list(x.shape), align_corners=False), align_corners=False)
    return 3**contrast * turned + brightness / 2


def _cameras() -> Tensor:
    generator, even = torch.Generator().manual_seed(0), torch.linspace(-1, 1, WORKERS)
    return torch.stack([even[torch.randperm(WORKERS, generator=generator)] for _ in range(3)], dim=1)


_CAMERAS = _cameras()


def simulate(
    method: str,
    kind: str,
    skew: float,
    seed: int,
    settings: Sequence[tuple[int, float]],
    *,
    points: int = 1,
    watch: Callable[[Stack], object] = lambda model: None,
) -> Iterator[tuple[int, list[list[nn.Module]]]]:
    """Train by federated averaging, and yield the models at ``points`` checkpoints.

    Arguments:
        method: key of ``METHODS``.
        kind, skew: how the workers' data differ.
        seed: seed of the shards, of the batches and of the network, from which all workers start.
        settings: pairs of local steps and learning rate; each is a training of its own, on the same batches.
        points: number of checkpoints.
        watch: called with all models, stacked, at the start and after each step, before the average that may follow.

    Yields:
        the steps done, and for each setting the model of each worker. A checkpoint between two averages shows what an
        average at this step would give; the training does not use it.
    """
    norm, _, local_norm, freeze = METHODS[method]
    data, count = digits(), len(settings)
    model = stack([mlp(SIZES, norm, seed=seed)] * (WORKERS * count)).train()
    rates = model.broadcast_to_parameters(torch.tensor([lr for _, lr in settings for _ in range(WORKERS)]))
    averaged = _averaged_tensors(model, local_norm)
    label_skew, image_skew = _skews(kind, skew)
    images = torch.stack([worker_images(data.train_x, rank, image_skew) for rank in range(WORKERS)])
    streams = [PerWorker(rank, WORKERS, skew=label_skew)(data.train_y, BATCH_SIZE, seed) for rank in range(WORKERS)]
    at = {round(STEPS * point / points) for point in range(1, points + 1)}
    watch(model)
    for step in range(1, STEPS + 1):
        index = torch.stack([next(stream) for stream in streams])
        x = images[torch.arange(WORKERS)[:, None], index].repeat(count, 1, 1, 1, 1)
        _step(model, rates, x, data.train_y[index].repeat(count, 1))
        watch(model)
        _average(averaged, [step % local_steps == 0 for local_steps, _ in settings])
        if 2 * step == STEPS:
            rates = [LATE_RATE * rate for rate in rates]
            for layer in model.modules() if freeze else ():
                layer.train(not isinstance(layer, BatchNorm))
        if step in at:
            shown = copy.deepcopy(model)
            _average(_averaged_tensors(shown, local_norm), [True] * count)
            models = shown.unstack()
            yield step, [models[start : start + WORKERS] for start in range(0, len(models), WORKERS)]


def _skews(kind: str, skew: float) -> tuple[float, float]:
    return (skew, 0.0) if kind == "labels" else (0.0, skew)


def _averaged_tensors(model: Stack, local_norm: bool) -> list[Tensor]:
    """Return what the workers average: parameters and running statistics, (settings * workers, ...) each."""
    local = {id(each) for layer in model.modules() if isinstance(layer, BatchNorm) for each in layer.parameters()}
    if local_norm:
        return [each.data for each in model.parameters() if id(each) not in local]
    return [each.data for each in itertools.chain(model.parameters(), model.buffers()) if each.dim()]


def _step(model: Stack, rates: Sequence[Tensor], x: Tensor, labels: Tensor) -> None:
    """Take a step of each model down the gradient of its own mean loss."""
    for parameter in model.parameters():
        parameter.grad = None if parameter.grad is None else parameter.grad.zero_()
    F.cross_entropy(model(x).flatten(0, 1), labels.flatten(), reduction="sum").div(BATCH_SIZE).backward()
    with torch.no_grad():
        for parameter, rate in zip(model.parameters(), rates, strict=True):
            parameter.sub_(rate * parameter.grad)


def _average(tensors: Sequence[Tensor], settings: Sequence[bool]) -> None:
    """Set each tensor to its mean over the workers, in place, for the settings that are True."""
    chosen = torch.tensor(settings)
    if not any(settings):
        return
    for tensor in tensors:
        each = tensor.view(len(settings), WORKERS, -1)
        each[chosen] = each[chosen].mean(1, keepdim=True).expand(-1, WORKERS, -1)


@torch.no_grad()
def evaluate(models: Sequence[nn.Module], kind: str, skew: float, seed: int) -> dict[str, float]:
    """Measure test errors (shares). The test images are divided among the workers as the training images are.

    Returns:
        ``test_error``: all test images, mean over the workers' models; ``own_error``: each model on its worker's test
        images, which differs only if the models differ; ``recomputed_error``: as ``test_error``, but the statistics of
        one model for all workers are recomputed from all training images as one batch.
    """
    data = digits()
    label_skew, image_skew = _skews(kind, skew)
    tests = shards(data.test_y, WORKERS, label_skew, torch.Generator().manual_seed(seed))
    own = [(worker_images(data.test_x[part], rank, image_skew), data.test_y[part]) for rank, part in enumerate(tests)]
    everything = tuple(torch.cat(each) for each in zip(*own, strict=True))
    models = [model.eval() for model in models]
    states = [list(model.state_dict().values()) for model in models[:2]]
    same = all(torch.equal(first, second) for first, second in zip(*states, strict=True))
    trained = shards(data.train_y, WORKERS, label_skew, torch.Generator().manual_seed(seed))
    seen = torch.cat([worker_images(data.train_x[part], rank, image_skew) for rank, part in enumerate(trained)])
    shared = recomputed(models[0], seen) if same else None
    test_error = float(np.mean([_error(model, *everything) for model in (models[:1] if same else models)]))
    return {
        "test_error": test_error,
        "own_error": float(np.mean([_error(model, *part) for model, part in zip(models, own, strict=True)])),
        "recomputed_error": _error(shared, *everything) if shared else test_error,
    }


def _error(model: nn.Module, x: Tensor, labels: Tensor) -> float:
    return (model(x).argmax(-1) != labels).double().mean().item()


@cache
def _all_settings(method: str, kind: str, skew: float, seed: int) -> dict[tuple[int, float], dict[str, float]]:
    settings = list(itertools.product(LOCAL_STEPS, METHODS[method].rates))
    ((_, trained),) = simulate(method, kind, skew, seed, settings)
    return {each: evaluate(models, kind, skew, seed) for each, models in zip(settings, trained, strict=True)}


def measure(method: str, kind: str, skew: float, local_steps: int, lr: float, *, seed: int, device) -> dict[str, float]:
    """Train on the CPU, together with all other local steps and rates, and return the errors of this setting."""
    return _all_settings(method, kind, skew, seed)[local_steps, lr]


EXPERIMENT = Measurement(
    name="machines.local_steps",
    question="Which norm loses least when workers with different data take several local steps between averages?",
    source="Hsieh et al. 2020; Li et al. 2021 (FedBN); Zhong et al. 2023 (FixBN)",
    axes=("method", "kind", "skew", "local steps", "lr"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


ARMS = {
    "BN": ("BN", "test_error"),
    "BN, recomputed": ("BN", "recomputed_error"),
    "FixBN": ("FixBN", "test_error"),
    "group norm": ("group norm", "test_error"),
    "layer norm": ("layer norm", "test_error"),
    "without normalisation": ("without normalisation", "test_error"),
    "FedBN": ("FedBN", "test_error"),
    "FedBN, own images": ("FedBN", "own_error"),
}
"""What is compared: a method and the error by which it is judged, which also chooses its learning rate."""


@cache
def _best_rates(value: str) -> dict[tuple, float]:
    return {arm: best.rate for arm, best in best_rates(load(), EXPERIMENT.axes, value).items()}


def best_rate(arm: str, kind: str, skew: float, local_steps: int) -> float:
    """Return the best learning rate of an arm of ``ARMS``, by the median of its own error."""
    method, value = ARMS[arm]
    return _best_rates(value)[method, kind if skew else KINDS[0], skew, local_steps]


def errors(arm: str, kind: str, skew: float, local_steps: int) -> np.ndarray:
    """Return the committed errors of an arm of ``ARMS`` in per cent at its best learning rate, one per seed."""
    method, value = ARMS[arm]
    lr = best_rate(arm, kind, skew, local_steps)
    return 100 * load()[method, kind if skew else KINDS[0], skew, local_steps, lr][value]


def error_rows(settings: Sequence[tuple[str, float]], local_steps: Sequence[int] = (1, 16)) -> list[dict]:
    """Return the errors (%) at the best rates for ``tables.Table``: a row per arm, columns by kind, skew and steps."""
    return [
        {"method": arm}
        | {
            (f"{kind}, skew {skew:g}", f"{steps} local step{'s' * (steps > 1)}"): errors(arm, kind, skew, steps)
            for kind, skew in settings
            for steps in local_steps
        }
        for arm in ARMS
    ]


def lookup(kind: str, skew: float, local_steps: int) -> dict[str, dict[int, np.ndarray]]:
    """Return the committed errors (%) of each arm for every number of local steps, so that they can be compared."""
    return {arm: {steps: errors(arm, kind, skew, steps) for steps in LOCAL_STEPS} for arm in ARMS}


_live_seed = itertools.count(100)


def train(kind: str, skew: float, local_steps: int) -> Iterator[tuple[int, int, dict[str, dict]]]:
    """Train all arms now at their best rates, with a seed that no result has used; add ``ARM, your run`` to each."""
    seed = next(_live_seed)
    rates = {arm: best_rate(arm, kind, skew, local_steps) for arm in ARMS}
    settings = {name: sorted({(local_steps, rates[arm]) for arm in ARMS if ARMS[arm][0] == name}) for name in METHODS}
    runs = [simulate(name, kind, skew, seed, settings[name], points=4) for name in METHODS]
    for made in zip(*runs, strict=True):
        shown: dict[str, dict] = dict(lookup(kind, skew, local_steps))
        for name, (_, trained) in zip(METHODS, made, strict=True):
            found = {each: evaluate(m, kind, skew, seed) for each, m in zip(settings[name], trained, strict=True)}
            for arm, (method, value) in ARMS.items():
                if method == name:
                    error = 100 * found[local_steps, rates[arm]][value]
                    shown[f"{arm}, your run"] = {local_steps: np.array([error])}
        yield made[0][0], STEPS, shown
