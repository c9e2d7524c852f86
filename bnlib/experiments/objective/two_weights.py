"""Compute the BN objective of logistic regression with two weights on twelve samples, with every batch enumerated.

The logistic regression follows one BN layer without gamma and beta. The classes are equally frequent and there is no
bias, so the objective is a function of two weights and can be drawn. The first input shows the class, with noise. The
second shows mainly which of two workers has the sample, and depends a little on the class. Equation numbers are those
of Lian and Liu (2019): (4) is the objective over a set of batches, (5) has one batch of all samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib.objective import Layer, all_batches, bn_objective, full_objective, worker_batches

SAMPLES, EPS = 12, 1e-5
BATCH_SIZES = (1, 2, 3, 4, 6)
LEARNING_RATES = (0.3, 1.0, 3.0)
INITIAL_WEIGHTS, STEPS = (0.5, 4.0), 200
WEIGHT_RANGE = (-1.5, 6.0)


def samples() -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs (12, 2), classes -1 or 1 (12,), and the worker that has each sample, -1 or 1 (12,); float64."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(6)
    workers = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64).repeat(3)
    noise = torch.randn(2, SAMPLES, generator=generator, dtype=torch.float64)
    columns = classes + 0.9 * noise[0], 2 * workers + 0.7 * classes + 0.6 * noise[1]
    return torch.stack(columns, 1), classes, workers


def _batches_within_groups(groups: Tensor, batch_size: int) -> Tensor:
    shards = [torch.nonzero(groups == group).flatten().tolist() for group in groups.unique()]
    return torch.stack(worker_batches(shards, batch_size))


def _fixed_batches(batch_size: int) -> Tensor:
    """Cut the samples into batches once; what is left over is in no batch."""
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(3))
    return order[: SAMPLES // batch_size * batch_size].view(-1, batch_size)


CONSTRUCTIONS: dict[str, Callable[[int], Tensor]] = {
    "all subsets": lambda batch_size: all_batches(SAMPLES, batch_size),
    "one worker": lambda batch_size: _batches_within_groups(samples()[2], batch_size),
    "one label": lambda batch_size: _batches_within_groups(samples()[1], batch_size),
    "fixed": _fixed_batches,
}


def logistic_loss(outputs: Tensor, classes: Tensor) -> Tensor:
    """Return the loss of each sample in nats, shape (..., n), for outputs (..., n, 1) and classes -1 and 1."""
    return F.softplus(-classes * outputs[..., 0])


def layers(weights: Tensor) -> list[Layer]:
    """Return the network with ``weights``, shape (..., 2), and a bias of zero."""
    row = torch.cat((weights, torch.zeros_like(weights[..., :1])), -1)
    return [Layer(row.unsqueeze(-2), nn.Identity())]


def objective(weights: Tensor, batches: Tensor) -> Tensor:
    """Return equation (4), shape (...), at ``weights`` of shape (..., 2) for ``batches``, indices of shape (K, b)."""
    x, classes, _ = samples()
    return bn_objective(layers(weights), logistic_loss, x, classes, batches, EPS)


def full_batch_objective(weights: Tensor) -> Tensor:
    """Return equation (5), the loss with the statistics of all samples: eval mode with exact running averages."""
    x, classes, _ = samples()
    return full_objective(layers(weights), logistic_loss, x, classes, EPS)


def minimiser(loss: Callable[[Tensor], Tensor]) -> Tensor | None:
    """Return the two weights that minimise a convex ``loss``; None if the loss is the same for all weights."""
    weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    probe = torch.tensor([1.0, -2.0], dtype=torch.float64)
    if torch.allclose(loss(probe), loss(weights), atol=1e-12):
        return None
    optimiser = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def closure():
        optimiser.zero_grad()
        result = loss(weights)
        result.backward()
        return result

    optimiser.step(closure)
    return weights.detach()


@dataclass(frozen=True)
class Surface:
    """Objective (4) of one set of batches, as a function of the two weights.

    Attributes:
        batches: the set of batches, indices of shape (K, b).
        axis, values: the objective (nats) on a grid, ``values[i, j]`` at the weights (``axis[j]``, ``axis[i]``).
        minimiser: the weights at the minimum, or None if the objective is the same for all weights.
        minimum: the objective at ``minimiser``.
        full_batch_loss: equation (5) at ``minimiser``; if the objective is flat, at the initial weights of SGD.
    """

    batches: Tensor
    axis: np.ndarray
    values: np.ndarray
    minimiser: np.ndarray | None
    minimum: float
    full_batch_loss: float


@cache
def surface(construction: str, batch_size: int) -> Surface:
    """Return objective (4) for a construction of batches and a batch size."""
    batches, axis = CONSTRUCTIONS[construction](batch_size), torch.linspace(*WEIGHT_RANGE, 27, dtype=torch.float64)
    rows = [objective(torch.stack((axis, height.expand_as(axis)), 1), batches) for height in axis]
    best = minimiser(lambda weights: objective(weights, batches))
    weights = torch.tensor(INITIAL_WEIGHTS, dtype=torch.float64) if best is None else best
    return Surface(
        batches,
        axis.numpy(),
        torch.stack(rows).numpy(),
        None if best is None else best.numpy(),
        objective(weights, batches).item(),
        full_batch_objective(weights).item(),
    )


@cache
def full_batch_minimum() -> tuple[np.ndarray, float]:
    """Return the weights that minimise equation (5), and its minimum in nats."""
    best = minimiser(full_batch_objective)
    return best.numpy(), full_batch_objective(best).item()


def sgd_iterates(batches: Tensor, rates: Tensor, seed: int) -> Iterator[Tensor]:
    """Yield the weights of SGD from ``INITIAL_WEIGHTS`` on, one row per learning rate, all with the same batches."""
    drawn = torch.randint(len(batches), (STEPS,), generator=torch.Generator().manual_seed(seed))
    weights = torch.tensor(INITIAL_WEIGHTS, dtype=torch.float64).repeat(len(rates), 1)
    yield weights
    for batch in batches[drawn]:
        weights = weights.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(weights, batch[None]).sum(), weights)
        weights = weights.detach() - rates[:, None] * gradient
        yield weights


@cache
def sgd_paths(construction: str, batch_size: int) -> np.ndarray:
    """Return the weights of SGD, shape (learning rates, ``STEPS`` + 1, 2)."""
    rates = torch.tensor(LEARNING_RATES, dtype=torch.float64)
    return torch.stack(list(sgd_iterates(surface(construction, batch_size).batches, rates, 0)), 1).numpy()


@dataclass(frozen=True)
class SurfaceAndPath:
    """An objective, the minimiser and minimum of equation (5), and the weights of SGD, shape (steps + 1, 2)."""

    surface: Surface
    full_batch_minimum: tuple[np.ndarray, float]
    path: np.ndarray


def lookup(construction: str, batch_size: int, lr: float) -> SurfaceAndPath:
    """Return the objective for a construction and batch size, and the path of SGD at a learning rate."""
    path = sgd_paths(construction, batch_size)[LEARNING_RATES.index(lr)]
    return SurfaceAndPath(surface(construction, batch_size), full_batch_minimum(), path)


_live_seed = itertools.count(100)


def train(construction: str, batch_size: int, lr: float) -> Iterator[tuple[int, int, SurfaceAndPath]]:
    """Run SGD with a new seed per call; yield steps done, steps in total, and the surface with the path so far."""
    shown, path = surface(construction, batch_size), []
    rates = torch.tensor([lr], dtype=torch.float64)
    for weights in sgd_iterates(shown.batches, rates, next(_live_seed)):
        path.append(weights[0].numpy())
        if len(path) % 10 == 1:
            yield len(path) - 1, STEPS, SurfaceAndPath(shown, full_batch_minimum(), np.array(path))


def surfaces() -> dict[tuple[str, int], Surface]:
    """Return the objectives by construction and batch size."""
    return {each: surface(*each) for each in itertools.product(CONSTRUCTIONS, BATCH_SIZES)}
