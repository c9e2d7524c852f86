"""Objective (4) of the BN paper one can look at: two weights, twelve samples, every batch enumerated.

Logistic regression behind one BN layer without gamma and beta. The classes are equally frequent and the bias is left
out, so that the objective is a function on a plane. The first input tells the classes apart; the second tells above all
which of two workers has the sample, and besides, a little, the class.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bnlib.objective import Layer, all_batches, bn_objective, full_objective, worker_batches

SAMPLES, EPS = 12, 1e-5
BATCH_SIZES = (1, 2, 3, 4, 6)
LEARNING_RATES = (0.3, 1.0, 3.0)
START, STEPS = (0.5, 4.0), 200
EXTENT = (-1.5, 6.0)


def samples() -> tuple[Tensor, Tensor, Tensor]:
    """Inputs (12, 2), classes -1 and 1 (12,), and whose sample it is, -1 or 1 (12,); all float64."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(6)
    workers = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64).repeat(3)
    noise = torch.randn(2, SAMPLES, generator=generator, dtype=torch.float64)
    columns = classes + 0.9 * noise[0], 2 * workers + 0.7 * classes + 0.6 * noise[1]
    return torch.stack(columns, 1), classes, workers


def _own(groups: Tensor, batch_size: int) -> Tensor:
    shards = [torch.nonzero(groups == group).flatten().tolist() for group in groups.unique()]
    return torch.stack(worker_batches(shards, batch_size))


def _fixed(batch_size: int) -> Tensor:
    return torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(3)).view(-1, batch_size)


CONSTRUCTIONS: dict[str, Callable[[int], Tensor]] = {
    "all subsets": lambda batch_size: all_batches(SAMPLES, batch_size),
    "one worker's": lambda batch_size: _own(samples()[2], batch_size),
    "one label": lambda batch_size: _own(samples()[1], batch_size),
    "fixed": _fixed,
}


def logistic_loss(outputs: Tensor, classes: Tensor) -> Tensor:
    """Of each sample, for outputs (..., n, 1) and classes -1 and 1."""
    return F.softplus(-classes * outputs[..., 0])


def layers(weights: Tensor) -> list[Layer]:
    """The network with ``weights`` (..., 2) and no bias."""
    row = torch.cat((weights, torch.zeros_like(weights[..., :1])), -1)
    return [Layer(row.unsqueeze(-2), lambda values: values)]


def objective(weights: Tensor, batches: Tensor) -> Tensor:
    """Equation (4) at ``weights``, shape (..., 2), for batches (K, b); shape (...)."""
    x, classes, _ = samples()
    return bn_objective(layers(weights), logistic_loss, x, classes, batches, EPS)


def evaluation(weights: Tensor) -> Tensor:
    """Equation (5), the loss with the statistics of all samples: what a perfect eval mode gives."""
    x, classes, _ = samples()
    return full_objective(layers(weights), logistic_loss, x, classes, EPS)


def minimiser(value: Callable[[Tensor], Tensor]) -> Tensor | None:
    """Where ``value``, a function of two weights that is convex, is least; None if it is the same everywhere."""
    weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    probe = torch.tensor([1.0, -2.0], dtype=torch.float64)
    if torch.allclose(value(probe), value(weights), atol=1e-12):
        return None
    optimiser = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def closure():
        optimiser.zero_grad()
        result = value(weights)
        result.backward()
        return result

    optimiser.step(closure)
    return weights.detach()


@dataclass(frozen=True)
class Surface:
    """Objective (4) of one set of batches.

    Attributes:
        batches: the set, (K, b).
        axis, values: the objective on a grid, ``values[i, j]`` at the weights (``axis[j]``, ``axis[i]``).
        best: its minimiser, or None if it is flat.
        least: its value there.
        evaluated: equation (5) at ``best``, or where SGD starts if the objective is flat and SGD therefore stays.
    """

    batches: Tensor
    axis: np.ndarray
    values: np.ndarray
    best: np.ndarray | None
    least: float
    evaluated: float


@cache
def surface(construction: str, batch_size: int) -> Surface:
    """The objective that these batches make."""
    batches, axis = CONSTRUCTIONS[construction](batch_size), torch.linspace(*EXTENT, 27, dtype=torch.float64)
    rows = [objective(torch.stack((axis, height.expand_as(axis)), 1), batches) for height in axis]
    best = minimiser(lambda weights: objective(weights, batches))
    end = torch.tensor(START, dtype=torch.float64) if best is None else best
    found = None if best is None else best.numpy()
    least = objective(end, batches).item()
    return Surface(batches, axis.numpy(), torch.stack(rows).numpy(), found, least, evaluation(end).item())


@cache
def best_of_all() -> tuple[np.ndarray, float]:
    """The minimiser of equation (5) and its value."""
    found = minimiser(evaluation)
    return found.numpy(), evaluation(found).item()


def descend(batches: Tensor, rates: Tensor, seed: int) -> Iterator[Tensor]:
    """Weights on the way of SGD from ``START``, a row for each of ``rates``; all see the same batches of the set."""
    drawn = torch.randint(len(batches), (STEPS,), generator=torch.Generator().manual_seed(seed))
    weights = torch.tensor(START, dtype=torch.float64).repeat(len(rates), 1)
    yield weights
    for batch in batches[drawn]:
        weights = weights.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(weights, batch[None]).sum(), weights)
        weights = weights.detach() - rates[:, None] * gradient
        yield weights


@cache
def paths(construction: str, batch_size: int) -> np.ndarray:
    """The ways of SGD, shape (learning rates, ``STEPS`` + 1, 2)."""
    rates = torch.tensor(LEARNING_RATES, dtype=torch.float64)
    return torch.stack(list(descend(surface(construction, batch_size).batches, rates, 0)), 1).numpy()


@dataclass(frozen=True)
class View:
    """What the explorer draws: the surface, the best weights and loss over all samples, and a path of SGD."""

    surface: Surface
    best_of_all: tuple[np.ndarray, float]
    path: np.ndarray


def lookup(construction: str, batch_size: int, lr: float) -> View:
    """The surface of a construction and a batch size, and the path with a learning rate."""
    path = paths(construction, batch_size)[LEARNING_RATES.index(lr)]
    return View(surface(construction, batch_size), best_of_all(), path)


_live_seed = itertools.count(100)


def train(construction: str, batch_size: int, lr: float) -> Iterator[tuple[int, int, View]]:
    """Go another way, with a new seed a call: (steps done, steps in all, the view with the way so far)."""
    shown, way = surface(construction, batch_size), []
    rates = torch.tensor([lr], dtype=torch.float64)
    for weights in descend(shown.batches, rates, next(_live_seed)):
        way.append(weights[0].numpy())
        if len(way) % 10 == 1:
            yield len(way) - 1, STEPS, View(shown, best_of_all(), np.array(way))


def table() -> dict[tuple[str, int], Surface]:
    """All surfaces by construction and batch size."""
    return {each: surface(*each) for each in itertools.product(CONSTRUCTIONS, BATCH_SIZES)}


def minimum_rows() -> list[dict]:
    """Return the minimum of equation (4), and the losses (4) and (5) there in nats, for each set of batches.

    The first row is the minimum of (5), whose only batch holds all samples. Batch size 1 is left out: there the
    objective is the same for all weights.
    """

    def row(construction: str, batch_size: int, weights: np.ndarray, objective: float, evaluated: float) -> dict:
        first, second = (round(float(each), 2) + 0.0 for each in weights)
        return {
            "batches": construction,
            "batch size": batch_size,
            ("minimum of (4)", "weight 1"): first,
            ("minimum of (4)", "weight 2"): second,
            ("loss there (nats)", "objective (4)"): objective,
            ("loss there (nats)", "all data (5)"): evaluated,
        }

    weights, loss = best_of_all()
    return [row("all data", SAMPLES, weights, loss, loss)] + [
        row(construction, batch_size, each.best, each.least, each.evaluated)
        for (construction, batch_size), each in table().items()
        if each.best is not None
    ]
