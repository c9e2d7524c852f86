r"""Measure how fast the adjoints of the oracle "running", and the bias of its gradient, converge where both are known.

The theorem of chapter 12: the squared errors of statistics and adjoints and the squared bias are all at most of the
order $k^{-a}+k^{-2p+2a}$ for any number of stages, and then the mean of the squared gradients of order $k^{p-1}$ if
$p+a>1$ and $3p-2a>1$. Here $a=0.4$ and $2p-2a>a$, so the noise dominates and the power of the lag is not tested. The
bias is that of given new estimates: it is not averaged over the batch that has just moved them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnlib.experiments.convergence import convergence_rates
from bnlib.experiments.convergence.convergence_problems import PROBLEMS, Problem
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.mcsgd import State

STEPS = 2000
POWERS = ((0.8, 0.4), (0.65, 0.4))
"""The powers p and a of Corollary 3, and a pair near the best one of the repaired theorem."""
RESULTS = ("statistics", "adjoints", "bias", "average")


def exact_adjoints(problem: Problem, params: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Return the gradient of J by name, and for each stage the derivative of J with respect to its statistic."""
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    shifts, z = [], problem.x
    for stage in problem.composition.stages:
        y = stage.statistic(leaves, z).mean(0)
        shifts.append(torch.zeros_like(y).requires_grad_())
        z = stage.apply(leaves, z, y + shifts[-1])
    loss = problem.composition.loss(leaves, z, problem.target).mean()
    found = torch.autograd.grad(loss, [*leaves.values(), *shifts], allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, found, strict=False)), list(found[len(leaves) :])


def mean_gradient(problem: Problem, params: dict[str, Tensor], estimates: Sequence[Tensor], adjoints: Sequence[Tensor]):
    r"""Return the mean of the oracle's gradient over all samples, $\partial_w\mathcal L(w,\hat u,\hat\psi)$."""
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    z, value = problem.x, 0.0
    for stage, y, adjoint in zip(problem.composition.stages, estimates, adjoints, strict=True):
        value = value + (stage.statistic(leaves, z).mean(0) * adjoint).sum()
        z = stage.apply(leaves, z, y)
    value = value + problem.composition.loss(leaves, z, problem.target).mean()
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, found, strict=True))


def squared_errors(problem: Problem, before: Sequence[State], after: Sequence[State]) -> dict[str, np.ndarray]:
    """Return means over copies in each step: ``RESULTS``, where "average" is the squared gradient of the step.

    A step uses the new estimates and the old adjoints, at the parameters before the step.
    """
    params = {name: torch.cat([each.params[name] for each in before]) for name in before[0].params}
    estimates = [torch.cat(each) for each in zip(*(each.estimates for each in after), strict=True)]
    adjoints = [torch.cat(each) for each in zip(*(each.adjoints for each in before), strict=True)]
    gradient, exact = exact_adjoints(problem, params)
    mean = mean_gradient(problem, params, estimates, adjoints)

    def per_step(values: Sequence[Tensor]) -> np.ndarray:
        squares = torch.stack([each.square().flatten(1).sum(1) for each in values]).sum(0)
        return squares.view(len(before), -1).mean(1).detach().numpy()

    return {
        "statistics": per_step([problem.squared_errors(params, estimates).sum(0).sqrt()[:, None]]),
        "adjoints": per_step([each - true for each, true in zip(adjoints, exact, strict=True)]),
        "bias": per_step([mean[name] - gradient[name] for name in gradient]),
        "average": per_step(list(gradient.values())),
    }


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return two problems, with one stage and with two, and two pairs of powers."""
    seeds = convergence_rates.SEEDS[scale]
    return {(problem, *powers): seeds for problem, powers in itertools.product(("quadratic", "network"), POWERS)}


def measure(problem: str, power_lr: float, power_alpha: float, *, seed: int, device: str) -> dict[str, Any]:
    """Run independent copies with one sample per step, always on the CPU.

    Returns:
        means over copies and over the steps of each bin (``convergence_rates.bin_centres``): the squared error of all
        ``statistics``, of all ``adjoints``, and the squared ``bias``. And ``average``, the mean of the squared
        gradients up to the end of each bin.
    """
    chosen, found = PROBLEMS[problem](), []
    generator = torch.Generator().manual_seed(seed)
    states = convergence_rates.run_algorithm_2(chosen, "running", power_lr, power_alpha, generator)
    pairs = itertools.pairwise(states)
    for first in range(0, STEPS, convergence_rates.CHUNK):
        part = list(itertools.islice(pairs, min(convergence_rates.CHUNK, STEPS - first)))
        found.append(squared_errors(chosen, *zip(*part, strict=True)))
    values = {name: np.concatenate([each[name] for each in found]) for name in RESULTS}
    average = values.pop("average").cumsum() / np.arange(1, STEPS + 1)
    edges = convergence_rates.bin_edges(STEPS)
    binned = {name: np.add.reduceat(each, edges[:-1]) / np.diff(edges) for name, each in values.items()}
    return binned | {"average": average[convergence_rates.bin_ends(STEPS) - 1]}


EXPERIMENT = Measurement(
    name="convergence.adjoint_rates",
    question="Do the adjoints of the oracle running, and its bias, converge at the rate of the statistics?",
    source="chapter 12, the theorem for the oracle running",
    axes=("problem", "power_lr", "power_alpha"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def slopes(problem: str, power_lr: float, power_alpha: float) -> dict[str, convergence_rates.Slope]:
    """Return the fitted slopes of ``RESULTS`` on logarithmic axes, from 1/30 of the steps to the end."""
    values = load()[problem, power_lr, power_alpha]
    places = {"average": convergence_rates.bin_ends(STEPS)}
    centres = convergence_rates.bin_centres(STEPS)
    return {name: convergence_rates.slope(places.get(name, centres), values[name], STEPS / 30) for name in RESULTS}


def slope_rows() -> list[dict]:
    """Return the fitted slopes with the bound of the theorem, a row per problem and pair of powers."""
    rows = []
    for (problem, p, a), _ in load().items():
        row: dict = {"problem": problem, "p": p, "a": a, "bound on errors": -min(a, 2 * p - 2 * a)}
        found = slopes(problem, p, a)
        titles = {"statistics": "error of û", "adjoints": "error of ψ̂", "bias": "bias"}
        row |= {title: found[name].median for name, title in titles.items()}
        rows.append(row | {"bound on gradients": p - 1, "mean gradient": found["average"].median})
    return rows
