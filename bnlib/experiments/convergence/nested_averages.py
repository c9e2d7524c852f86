"""Show how a running average follows a moving mean, and how samples pass through the stages of a composition."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from bnlib.experiments.convergence.convergence_problems import network

FEW = 2
"""Number of samples in the estimate that is off."""


class Values(NamedTuple):
    """Values of each sample at one place of the composition.

    Attributes:
        exact: with exact averages below, (samples,).
        off: with the average of the first stage estimated from ``FEW`` samples, (samples,).
        mean, mean_off: the average that is passed on in each case; for the loss, the objective.
    """

    exact: np.ndarray
    off: np.ndarray
    mean: float
    mean_off: float


def values_by_stage(seed: int = 4) -> dict[str, Values]:
    """Return the first component of each stage's statistic, and the loss, for all samples of the problem "network"."""
    problem = network()
    params = problem.start(1, torch.Generator().manual_seed(seed))
    stages, found = problem.composition.stages, {}
    exact = off = problem.x
    for number, stage in enumerate(stages, 1):
        of_exact, of_off = stage.statistic(params, exact), stage.statistic(params, off)
        mean, mean_off = of_exact.mean(0), (of_off[:FEW] if number == 1 else of_off).mean(0)
        found[f"stage {number}"] = Values(*(_first(each) for each in (of_exact, of_off)), *_floats(mean, mean_off))
        exact, off = stage.apply(params, exact, mean), stage.apply(params, off, mean_off)
    losses = [problem.composition.loss(params, z, problem.target) for z in (exact, off)]
    found["loss"] = Values(*(each.numpy() for each in losses), *_floats(*(each.mean()[None, None] for each in losses)))
    return found


def _first(statistic: torch.Tensor) -> np.ndarray:
    """Return the first component for each sample, of the single copy."""
    return statistic[:, 0, 0].numpy()


def _floats(*means: torch.Tensor) -> list[float]:
    return [each[0, 0].item() for each in means]


ALPHAS, STEPS, CYCLE, SPREAD = (0.3, 0.03), 300, 200, 0.6


def running_averages(seed: int = 0) -> dict:
    """Return a mean that moves, samples around it and their running averages with the weights ``ALPHAS``.

    Returns:
        ``mean`` and ``samples``, (STEPS,); by weight, ``averages`` and ``expected``, what they are on average over
        samples.
    """
    mean = np.sin(2 * np.pi * np.arange(STEPS) / CYCLE)
    samples = mean + SPREAD * np.random.default_rng(seed).standard_normal(STEPS)
    return {
        "mean": mean,
        "samples": samples,
        "averages": {alpha: _running_average(samples, alpha) for alpha in ALPHAS},
        "expected": {alpha: _running_average(mean, alpha) for alpha in ALPHAS},
    }


def _running_average(values: np.ndarray, alpha: float) -> np.ndarray:
    found = [values[0] * 0.0]
    for value in values:
        found.append((1 - alpha) * found[-1] + alpha * value)
    return np.array(found[1:])
