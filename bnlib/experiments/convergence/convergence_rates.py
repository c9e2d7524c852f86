r"""Measure how fast Algorithm 2 of Lian and Liu (2019) converges, on problems whose gradients are known exactly.

The theory is Lemma 1 and Corollary 3, with $\eta_k\propto(k+2)^{-p}$ and $\alpha_k=(k+1)^{-a}$; see ``theory``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bnlib.experiments.convergence.convergence_problems import PROBLEMS, Problem
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.mcsgd import Composition, Stage, State, minimize
from bnlib.schedules import PowerSchedule

COROLLARY_3 = (0.8, 0.4)
SEEDS = {"quick": range(3), "paper": range(10)}
COPIES, BINS, CHUNK = 64, 25, 500
STEPS = {"quadratic": 6000, "network": 2000, "logistic": 6000, "logistic, far start": 6000, "tail": 6000}


class Theory(NamedTuple):
    """Powers of the step k in the upper bounds of the theory, up to any positive epsilon.

    Attributes:
        noise, lag: the two terms of Lemma 1.
        error: bound of Lemma 1 on the squared error, the larger of both; NaN outside its assumptions.
        average: bound on the mean of the squared gradients up to k; NaN outside the conditions of Theorem 2 as printed.
        implied: whether Lemma 1 implies the bound on the mean, see ``theory``.
    """

    noise: float
    lag: float
    error: float
    average: float
    implied: bool


def theory(power_lr: float, power_alpha: float) -> Theory:
    r"""Return the bounds of Lian and Liu for $\eta_k\propto k^{-p}$ and $\alpha_k\propto k^{-a}$.

    Lemma 1, for $p>a>0$: the squared error falls at least as $k^{-a}+k^{-2p+2a}$. Theorem 2, for $a<2p-1$ and
    $a<\frac12$: $\sum_{j\le k}\eta_jE\|\nabla J\|^2\le H$. As $\eta_k$ falls, the plain mean of the first k squared
    gradients is at most $H/(k\eta_k)\propto k^{p-1}$, which is Corollary 3 for $p=\frac45$.

    A step on a smooth function gives
    $\sum\eta_kE\|\nabla J\|^2\le C+C\sum\eta_kE\|\hat u-u\|^2+C\sum\eta_k^2$. By Lemma 1 these are finite if
    $p+a>1$ and $3p-2a>1$, which together imply $p>\frac35$. The printed conditions do not imply the first one, and
    ``theorem_2`` has an example that satisfies them and diverges.

    The bounds on the gradient need an oracle whose squared bias is at most of the order of the squared errors of the
    estimates. Of those of ``mcsgd`` only ``"independent"`` is known to have this property (``rate_curves``).
    """
    p, a = power_lr, power_alpha
    noise, lag = -a, -2 * p + 2 * a
    lemma = p > a > 0
    theorem = lemma and a < 2 * p - 1 and a < 1 / 2
    # Powers are decimals: 3 * 0.8 - 2 * 0.7 must not count as more than 1.
    implied = lemma and min(p + a, 3 * p - 2 * a) > 1 + 1e-9
    return Theory(noise, lag, max(noise, lag) if lemma else math.nan, p - 1 if theorem else math.nan, implied)


def promised_slopes(oracle: str, power_lr: float, power_alpha: float) -> dict[str, float]:
    """Return the bounds that the theory gives for an oracle on the results "error" and "average"; NaN for none.

    Lemma 1 holds for every oracle with bounded gradients. The bound on the mean of the squared gradients holds for
    "independent". The biases of "same" and of "running" do not vanish with the errors of the estimates: the first has
    a covariance in addition, the second the error of the running adjoint.
    """
    bounds = theory(power_lr, power_alpha)
    return {"error": bounds.error, "average": bounds.average if oracle == "independent" else math.nan}


class Slope(NamedTuple):
    """Slopes of straight lines through log value against log k, one line per seed."""

    median: float
    lowest: float
    highest: float


def slope(k: Sequence[float], values: np.ndarray, from_k: float, to_k: float = math.inf) -> Slope:
    """Fit the slope of ``values``, shape (seeds, len(k)), between ``from_k`` and ``to_k`` for each seed."""
    k = np.asarray(k, dtype=float)
    part = (k >= from_k) & (k <= to_k)
    found = np.polyfit(np.log(k[part]), np.log(np.atleast_2d(values)[:, part]).T, 1)[0]
    return Slope(float(np.median(found)), float(found.min()), float(found.max()))


def bin_edges(steps: int) -> np.ndarray:
    """Divide ``steps`` into bins that are even on a logarithmic scale; return their first steps, then ``steps``."""
    return np.unique(np.geomspace(1, steps + 1, BINS + 1).round().astype(int)) - 1


def bin_centres(steps: int) -> np.ndarray:
    """Return the geometric mean of k + 1 in each bin."""
    logs = np.log(np.arange(1, steps + 1))
    return np.exp(_means(logs, bin_edges(steps)))


def bin_ends(steps: int) -> np.ndarray:
    """Return the number of steps done at the end of each bin."""
    return bin_edges(steps)[1:]


def _means(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the mean of ``values`` in each bin along the last axis; ``edges`` is ``bin_edges``."""
    return np.add.reduceat(values, edges[:-1], axis=-1) / np.diff(edges)


def bin_positions(steps: int, name: str) -> np.ndarray:
    """Return the step k that belongs to each entry of a result of ``measure``."""
    return bin_centres(steps) if name in ("error", "gradient") else bin_ends(steps)


def fitted_slope(values: Mapping[str, np.ndarray], steps: int, name: str, stage: int = 0) -> Slope:
    """Fit the slope of one result of a cell, from 1/30 of its steps to the end.

    Arguments:
        values: results of the cell, from ``load``.
        steps: number of steps of the cell.
        name: of the result, such as ``"average"``.
        stage: of the result ``"error"``.
    """
    found = values["error"][:, stage] if name == "error" else values[name]
    return slope(bin_positions(steps, name), found, steps / 30)


class RateCurve(NamedTuple):
    """One result of one cell against the step, with its fitted slope.

    Attributes:
        k, runs: steps, (P,), and values of each seed, (seeds, P).
        slope: median of the fitted slopes; ``fit_start`` is the first k of the fit.
        theory_slope: the slope of the theory, or NaN.
    """

    k: np.ndarray
    runs: np.ndarray
    slope: float
    fit_start: float
    theory_slope: float


def rate_curves(
    cells: Mapping[tuple, Mapping], problem: str, results: Sequence[str] = ("error", "average"), stage: int = 0
) -> dict[str, dict[str, RateCurve]]:
    """Return the curves of one problem by the name of the cell and of the result, for ``draw_convergence_rates``.

    Arguments:
        cells: results by cell, from ``load``.
        problem: key of ``PROBLEMS``.
        results: names of the results to return.
        stage: of the result ``"error"``.
    """
    found = {}
    for (kind, oracle, power_lr, power_alpha, steps), values in cells.items():
        if kind == problem:
            promised = promised_slopes(oracle, power_lr, power_alpha)
            found[f"{oracle}, p = {power_lr:g}, a = {power_alpha:g}"] = {
                name: RateCurve(
                    bin_positions(steps, name),
                    values[name][:, stage] if name == "error" else values[name],
                    fitted_slope(values, steps, name, stage).median,
                    steps / 30,
                    promised.get(name, math.nan),
                )
                for name in results
            }
    return found


def run_algorithm_2(
    problem: Problem, oracle: str, power_lr: float, power_alpha: float, generator: torch.Generator
) -> Iterator[State]:
    """Run Algorithm 2 without end, with the schedules of Corollary 3 and other powers; power 0 is a constant rate."""
    stages = [Stage(each.apply, each.statistic, each.start.expand(COPIES, -1)) for each in problem.composition.stages]
    lr, alpha = PowerSchedule(scale=1, power=power_lr, start=1), PowerSchedule(scale=1, power=power_alpha)
    return minimize(
        Composition(stages, problem.composition.loss),
        problem.start(COPIES, generator),
        problem.batches(COPIES, generator),
        lambda k: problem.scale * lr(k),
        alpha,
        oracle=oracle,
    )


def exact_errors(problem: Problem, states: Sequence[State]) -> tuple[Tensor, Tensor]:
    """Return squared errors, (stages, len(states)), and squared gradients, (len(states),), as means over copies.

    Both are taken at the parameters before the step, at which the estimates were made.
    """
    params = {name: torch.cat([each.previous[name] for each in states]) for name in states[0].params}
    estimates = [torch.cat(each) for each in zip(*(each.estimates for each in states), strict=True)]
    shape = (len(states), -1)
    errors = problem.squared_errors(params, estimates)
    return errors.view(len(errors), *shape).mean(2), problem.squared_gradients(params).view(shape).mean(1)


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return the cells of ``SETTINGS``, with ten times as many steps at paper scale."""
    longer = 10 if scale == "paper" else 1
    return {(problem, oracle, *powers, longer * STEPS[problem]): SEEDS[scale] for problem, oracle, powers in SETTINGS}


def measure(
    problem: str, oracle: str, power_lr: float, power_alpha: float, steps: int, *, seed: int, device: str
) -> dict[str, Any]:
    """Run ``COPIES`` independent copies with one sample per step, always on the CPU.

    Returns:
        means over copies and over the steps of each bin (``bin_centres``): ``error``, the squared error of the estimate
        of each stage; ``gradient``, the squared norm of the exact gradient. Up to the end of each bin (``bin_ends``):
        ``average``, the mean of the squared gradients, as in Corollary 3; ``weighted``, their sum weighted with the
        learning rates at scale 1, as in Theorem 2.
    """
    found, chosen = [], PROBLEMS[problem]()
    states = run_algorithm_2(chosen, oracle, power_lr, power_alpha, torch.Generator().manual_seed(seed))
    for first in range(0, steps, CHUNK):
        found.append(exact_errors(chosen, list(itertools.islice(states, min(CHUNK, steps - first)))))
    errors, gradients = (torch.cat(each, -1).numpy() for each in zip(*found, strict=True))
    count = np.arange(1, steps + 1)
    return {
        "error": _means(errors, bin_edges(steps)),
        "gradient": _means(gradients, bin_edges(steps)),
        "average": (gradients.cumsum() / count)[bin_ends(steps) - 1],
        "weighted": (gradients * (count + 1.0) ** -power_lr).cumsum()[bin_ends(steps) - 1],
    }


SETTINGS = [
    *(("quadratic", "independent", powers) for powers in ((0.8, 0.4), (0.9, 0.2), (0.75, 0.45))),
    *(("quadratic", "independent", powers) for powers in ((0.5, 0.4), (0.8, 0.7), (0.0, 0.4))),
    *(("quadratic", oracle, COROLLARY_3) for oracle in ("running", "same")),
    *(("network", oracle, COROLLARY_3) for oracle in ("independent", "running", "same")),
    ("network", "running", (0.9, 0.2)),
    ("network", "running", (0.0, 0.4)),
    *(("logistic", "independent", powers) for powers in ((0.8, 0.4), (0.55, 0.05))),
    *(("logistic, far start", "independent", powers) for powers in ((0.8, 0.4), (0.5, 0.4), (0.8, 0.7))),
    ("tail", "independent", COROLLARY_3),
]
EXPERIMENT = Measurement(
    name="convergence.convergence_rates",
    question="Do the errors of Lemma 1 and the squared gradients of Corollary 3 fall as fast as the theory says?",
    source="Lian and Liu 2019, section 5.2",
    axes=("problem", "oracle", "power_lr", "power_alpha", "steps"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def measured_slopes() -> dict[tuple, dict[str, tuple[Slope, float]]]:
    """Return the fitted slopes of the committed result with the bound of the theory on each, NaN where it has none.

    The keys are problem, oracle and powers, and below them ``"error"``, of the last stage as in ``rate_curves`` of the
    figures, and ``"average"``.
    """
    return {
        (problem, oracle, power_lr, power_alpha): {
            name: (fitted_slope(values, steps, name, stage=-1), bound)
            for name, bound in promised_slopes(oracle, power_lr, power_alpha).items()
        }
        for (problem, oracle, power_lr, power_alpha, steps), values in load().items()
    }


def final_squared_gradient(problem: str, oracle: str) -> float:
    """Return the squared gradient at the end with the powers of Corollary 3, median over seeds."""
    return float(np.median(load()[problem, oracle, *COROLLARY_3, STEPS[problem]]["gradient"][:, -1]))


def final_gradient_ratio_rows() -> list[dict]:
    """Return the squared gradient at the end with the oracle "same" over that with "running", by problem."""
    rows = []
    for problem in ("quadratic", "network"):
        same, running = (final_squared_gradient(problem, oracle) for oracle in ("same", "running"))
        rows.append({"problem": problem, "same batch / running": same / running})
    return rows
