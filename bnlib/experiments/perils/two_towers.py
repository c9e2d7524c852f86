"""Train two towers that share weights and running statistics, each on a domain of its own.

In each step two batches pass through the network, one after the other, and their losses are added. With a share of 1
each batch holds one domain; with a share of 0.5 both batches hold the same mixture.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import BatchNorm, DomainBatchNorm, datasets
from bnlib.datasets import Dataset
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp
from bnlib.norm import use_domain
from bnlib.probes import with_recomputed_statistics
from bnlib.samplers import shuffled

DOMAIN_SHARES, BATCH_SIZES = (0.5, 0.6, 0.75, 0.9, 1.0), (16, 64)
NORMS = {"batch norm": BatchNorm, "domain batch norm": partial(DomainBatchNorm, num_domains=2)}
SIZES, LEARNING_RATE, EPOCHS = (64, 100, 100, 10), 0.1, {16: 10, 64: 30}
SEEDS = range(5)
STATISTICS = ("running", "pooled", "per_domain")
SCALES: dict[str, Scale] = {"inverted": "quick", "MNIST": "paper"}
DOMAIN_NAMES = {"inverted": "inverted digits", "MNIST": "MNIST"}
"""The second domain as tables name it."""
_live_seed = itertools.count(100)


def domains(name: str, seed: int) -> tuple[Dataset, Dataset]:
    """Load digits of 8 by 8 pixels as the first domain, and inverted digits or MNIST at the same size as the second."""
    first = datasets.load("digits")
    if name == "MNIST":
        return first, _downscaled_mnist(datasets.load("mnist"), len(first.train_x), len(first.test_x), seed)
    generator = torch.Generator().manual_seed(seed)

    def inverted(x: Tensor) -> Tensor:
        return 1.5 * (1 - x) + 0.5 + 0.3 * torch.randn(x.shape, generator=generator)

    parts = inverted(first.train_x), first.train_y, inverted(first.test_x), first.test_y
    return first, Dataset("inverted", *parts, first.num_classes)


def _downscaled_mnist(data: Dataset, trains: int, tests: int, seed: int) -> Dataset:
    """Draw random images of MNIST, crop the margin and average blocks of three by three pixels."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for x, y, count in ((data.train_x, data.train_y, trains), (data.test_x, data.test_y, tests)):
        index = torch.randperm(len(y), generator=generator)[:count]
        parts += [F.avg_pool2d(x[index, :, 2:26, 2:26], 3), y[index]]
    return Dataset("mnist", *parts, data.num_classes)


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return BN at each share and batch size, and domain-specific BN where each batch holds one domain."""
    name = next(name for name, each in SCALES.items() if each == scale)
    grid = [("batch norm", *each) for each in itertools.product(DOMAIN_SHARES, BATCH_SIZES)]
    grid += [("domain batch norm", 1.0, batch_size) for batch_size in BATCH_SIZES]
    return {(name, *cell): SEEDS for cell in grid}


def measure(name: str, norm: str, share: float, batch_size: int, *, seed: int, device) -> dict[str, list[float]]:
    """Train with SGD and evaluate.

    Returns:
        pairs of test accuracies in the first and the second domain, in eval mode, with the ``running`` statistics of
        training and, for BN, with statistics recomputed without training: from both training sets (``pooled``) or from
        the tested domain only (``per_domain``); ``loss``: mean training loss of the last epoch in both towers, in nats;
        ``domain_distance``: for BN, see ``domain_distance``.
    """
    first, second = (each.to(device) for each in domains(name, seed))
    *_, (model, losses) = training(first, second, norm, share, batch_size, seed)
    found = {"loss": losses[-(len(first.train_y) // batch_size) :].mean(0).tolist()}
    if norm == "batch norm":
        found["domain_distance"] = domain_distance(model, first, second)
    return found | evaluated(model, norm, first, second)


def domain_distance(model: nn.Module, first: Dataset, second: Dataset) -> list[float]:
    """Measure how far apart the domains are at the input of each BN layer, if each is normalised by its own statistics.

    Returns:
        for each layer the median over channels of |difference of the means| / standard deviation within a domain.
    """
    ours, theirs = (batch_norm_layers(with_recomputed_statistics(model, [each.train_x])) for each in (first, second))
    return [
        ((a.running_mean - b.running_mean).abs() / ((a.running_var + b.running_var) / 2).sqrt()).median().item()
        for a, b in zip(ours, theirs, strict=True)
    ]


def batch_norm_layers(model: nn.Module) -> list[BatchNorm]:
    """Return the BN layers of ``model`` in order."""
    return [layer for layer in model.modules() if isinstance(layer, BatchNorm)]


def training(
    first: Dataset, second: Dataset, norm: str, share: float, batch_size: int, seed: int
) -> Iterator[tuple[nn.Module, Tensor]]:
    """Train with SGD; yield the model and the losses of both towers so far, shape (steps, 2), after each step."""
    model = mlp(SIZES, NORMS[norm], seed=seed).to(first.train_x.device)
    optimiser = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    losses = torch.empty(number_of_steps(first, batch_size), 2)
    for step, batches in enumerate(_batches(first, second, share, batch_size, seed)):
        towers = [_loss(model, norm, tower, x, y) for tower, (x, y) in enumerate(batches)]
        optimiser.zero_grad()
        sum(towers).backward()
        optimiser.step()
        losses[step] = torch.stack(towers).detach()
        yield model, losses[: step + 1]


def number_of_steps(first: Dataset, batch_size: int) -> int:
    """Return the number of training steps; each step takes one batch per tower."""
    return EPOCHS[batch_size] * (len(first.train_y) // batch_size)


def evaluated(model: nn.Module, norm: str, first: Dataset, second: Dataset) -> dict[str, list[float]]:
    """Return test accuracies in both domains by ``STATISTICS``; only ``running`` for domain-specific BN."""
    found = {"running": _accuracies(model, norm, first, second)}
    if norm == "batch norm":
        pooled = with_recomputed_statistics(model, [torch.cat((first.train_x, second.train_x))])
        per_domain = [with_recomputed_statistics(model, [each.train_x]) for each in (first, second)]
        found["pooled"] = _accuracies(pooled, norm, first, second)
        found["per_domain"] = [_accuracies(each, norm, first, second)[place] for place, each in enumerate(per_domain)]
    return found


def _batches(first: Dataset, second: Dataset, share: float, batch_size: int, seed: int):
    """Yield the batches of both towers; ``share`` of the first batch is the first domain, of the second the second."""
    ours = round(share * batch_size)
    draws = [shuffled(each.train_y.cpu(), batch_size, seed + n) for n, each in enumerate((first, second))]
    for one, two in itertools.islice(zip(*draws, strict=True), number_of_steps(first, batch_size)):
        parts = [(one[:ours], two[ours:]), (one[ours:], two[:ours])]
        yield [
            (torch.cat((first.train_x[i], second.train_x[j])), torch.cat((first.train_y[i], second.train_y[j])))
            for i, j in parts
        ]


def _within(model: nn.Module, norm: str, domain: int):
    return use_domain(model, domain) if norm == "domain batch norm" else nullcontext()


def _loss(model: nn.Module, norm: str, tower: int, x: Tensor, y: Tensor) -> Tensor:
    with _within(model.train(), norm, tower):
        return F.cross_entropy(model(x), y)


@torch.no_grad()
def _accuracies(model: nn.Module, norm: str, *data: Dataset) -> list[float]:
    training, found = model.training, []
    model.eval()
    for domain, each in enumerate(data):
        with _within(model, norm, domain):
            found.append((model(each.test_x).argmax(1) == each.test_y).float().mean().item())
    model.train(training)
    return found


_pair = domains  # a slider takes the name


EXPERIMENT = Measurement(
    name="perils.two_towers",
    question="How accurate are two towers that share weights and running statistics when they are evaluated?",
    source="Irpan 2017",
    axes=("domains", "norm", "share", "batch_size"),
    cells=cells,
    measure=measure,
)


@cache
def load(name: str) -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result for a pair of domains, by norm, share and batch size."""
    return {cell[1:]: values for cell, values in EXPERIMENT.load(SCALES[name]).items()}


def lookup(domains: str, share: float, batch_size: int) -> dict[str, np.ndarray]:
    """Return the committed numbers of BN; at a share of 1 also the accuracies of ``domain_batch_norm``.

    Each array has one row per seed and one column per domain.
    """
    found = dict(load(domains)["batch norm", share, batch_size])
    if share == 1:
        found["domain_batch_norm"] = load(domains)["domain batch norm", share, batch_size]["running"]
    return found


def accuracy_rows(batch_size: int = 64) -> list[dict]:
    """Return test accuracies (%) for ``tables.Table``: a row per kind of training and statistics of eval mode."""
    settings = {
        "mixed batches, running statistics": (0.5, "running"),
        "two towers, running statistics": (1.0, "running"),
        "two towers, recomputed on both domains": (1.0, "pooled"),
        "two towers, recomputed per domain": (1.0, "per_domain"),
        "two towers, domain-specific BN": (1.0, "domain_batch_norm"),
        "batches of 90 % one domain, running statistics": (0.9, "running"),
        "mixed batches, recomputed per domain": (0.5, "per_domain"),
    }
    return [
        {"training, statistics of eval mode": title}
        | {
            (f"digits and {DOMAIN_NAMES[name]}", domain): 100 * values
            for name in SCALES
            for domain, values in zip(
                ("digits", DOMAIN_NAMES[name]), lookup(name, share, batch_size)[statistics].T, strict=True
            )
        }
        for title, (share, statistics) in settings.items()
    ]


def training_loss_rows(batch_size: int = 64) -> list[dict]:
    """Return for ``tables.Table`` the losses of both towers and the distance of the domains before the first BN layer.

    The distance is the one of ``domain_distance``.
    """
    return [
        {
            "domains, training": f"digits and {DOMAIN_NAMES[name]}, {title}",
            ("training loss in the last epoch (nats)", "first batch"): found["loss"][:, 0],
            ("training loss in the last epoch (nats)", "second batch"): found["loss"][:, 1],
            "distance of the domains (standard deviations)": found["domain_distance"][:, 0],
        }
        for name in SCALES
        for title, found in (
            ("mixed batches", lookup(name, 0.5, batch_size)),
            ("two towers", lookup(name, 1.0, batch_size)),
        )
    ]


def train(domains: str, share: float, batch_size: int, points: int = 12) -> Iterator[tuple[int, int, dict]]:
    """Train both towers now, with a seed that no result has used; ``run`` holds the accuracies of that run.

    Raises:
        FileNotFoundError: MNIST is missing; see ``datasets.load``.
    """
    seed = next(_live_seed)
    first, second = _pair(domains, seed)
    shown, total = lookup(domains, share, batch_size), number_of_steps(first, batch_size)
    for step, (model, _) in enumerate(training(first, second, "batch norm", share, batch_size, seed), 1):
        if step == 1 or step == total or step % (total // points) == 0:
            yield step, total, shown | {"run": evaluated(model, "batch norm", first, second)}
