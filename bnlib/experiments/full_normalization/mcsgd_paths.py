r"""Run Algorithm 2 on the smallest problem with an inner expectation, by oracle, alpha and learning rate.

$J(w)=E\,\frac12(c\,E[a w]-t)^2$ over samples (a, c, t), one sample in a batch. The best w is
$E[ct]/(E[a]\,E[c^2])$. The oracle that uses one sample for both expectations ends where $E[a(c\,w\,E[a]-t)c]=0$.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from bnlib.experiments.full_normalization.oracle_names import ORACLE_NAMES
from bnlib.mcsgd import Batch, Composition, Stage, minimize
from bnlib.schedules import PowerSchedule, lian_corollary_3_alpha, lian_figure_4_alpha

SAMPLES = torch.tensor([[1.0, 2.0, 3.0], [3.0, -1.0, 1.0], [2.0, 0.5, -2.0], [-1.0, 1.5, 2.0]], dtype=torch.float64)
_A, _C, _T = SAMPLES.T
OPTIMUM = ((_C * _T).mean() / (_A.mean() * _C.square().mean())).item()
SAME_ORACLE_ZERO = ((_A * _C * _T).mean() / (_A.mean() * (_A * _C.square()).mean())).item()
START, COPIES, STEPS, EVERY = -0.5, 100, 600, 15
ALPHAS: dict[str, float | Callable] = {
    "1": 1.0,
    "0.3": 0.3,
    "0.03": 0.03,
    "(k/20+1)^-0.4": lian_figure_4_alpha,
    "(k+1)^-0.4": lian_corollary_3_alpha,
}
LEARNING_RATES = (0.01, 0.03, 0.1)


def composition(copies: int = 1) -> Composition:
    """Build independent copies of the problem: samples (b, copies, 3), parameter and statistic (copies,)."""
    stage = Stage(
        apply=lambda params, z, y: torch.stack((z[..., 1] * y, z[..., 2]), -1),
        statistic=lambda params, z: z[..., 0] * params["w"],
        start=torch.zeros(copies, dtype=torch.float64),
    )
    return Composition([stage], lambda params, z, target: (z[..., 0] - z[..., 1]).square().sum(1) / 2)


@dataclass(frozen=True)
class Paths:
    """The parameter of each copy at each of ``steps``, (copies, len(steps)); copies draw different samples."""

    steps: np.ndarray
    values: np.ndarray


def _samples(copies: int, seed: int) -> Iterator[Batch]:
    """Yield batches of one sample per copy without end; every setting gets the same ``COPIES`` samples."""
    generator, nothing = torch.Generator().manual_seed(seed), torch.zeros(1)
    while True:
        drawn = torch.randint(len(SAMPLES), (1, COPIES), generator=generator)
        yield SAMPLES[drawn.repeat(1, copies // COPIES)], nothing


def run_paths(oracle: str, settings: Sequence[tuple[str, float]], seed: int) -> Iterator[list[Paths]]:
    """Run all pairs (alpha, learning rate) of ``settings`` at once; yield their paths so far every ``EVERY`` steps."""
    copies = COPIES * len(settings)
    rates = torch.tensor([lr for _, lr in settings], dtype=torch.float64).repeat_interleave(COPIES)
    weights = [ALPHAS[name] for name, _ in settings]

    def alpha(step: int) -> Tensor:
        now = [weight(step) if callable(weight) else weight for weight in weights]
        return torch.tensor(now, dtype=torch.float64).repeat_interleave(COPIES)

    start = {"w": torch.full((copies,), START, dtype=torch.float64)}
    run = minimize(composition(copies), start, _samples(copies, seed), lambda _: rates, alpha, oracle=oracle)
    values: list[Tensor] = [start["w"]]
    for state in itertools.islice(run, STEPS):
        if state.step % EVERY == 0:
            values.append(state.params["w"])
            steps = EVERY * np.arange(len(values))
            yield [Paths(steps, part.numpy()) for part in torch.stack(values, 1).split(COPIES)]


@cache
def _grid(oracle: str) -> dict[tuple[str, float], Paths]:
    settings = list(itertools.product(ALPHAS, LEARNING_RATES))
    *_, last = run_paths(oracle, settings, 0)
    return dict(zip(settings, last, strict=True))


def lookup(oracle: str, alpha: str, lr: float) -> Paths:
    """Return the paths with one oracle, one alpha and one learning rate."""
    return _grid(oracle)[alpha, lr]


_live_seed = itertools.count(100)


def train(oracle: str, alpha: str, lr: float) -> Iterator[tuple[int, int, Paths]]:
    """Run new paths, with a new seed in each call; yield (steps done, all steps, the paths so far)."""
    for (paths,) in run_paths(oracle, [(alpha, lr)], next(_live_seed)):
        yield int(paths.steps[-1]), STEPS, paths


@cache
def settled_parameter(oracle: str, copies: int = 20, steps: int = 5000) -> float:
    """Run Algorithm 2 with the weights of Corollary 3; return the mean of w over copies and the second half of steps.

    The learning rate in step k is $0.1 (k/20+1)^{-0.8}$.
    """
    generator = torch.Generator().manual_seed(0)

    def batches() -> Iterator[Batch]:
        while True:
            index = torch.randint(len(SAMPLES), (1, copies), generator=generator)
            yield SAMPLES[index], torch.zeros(1)

    lr = PowerSchedule(scale=20, power=0.8)
    start = {"w": torch.zeros(copies, dtype=torch.float64)}
    run = minimize(composition(copies), start, batches(), lambda k: 0.1 * lr(k), lian_corollary_3_alpha, oracle=oracle)
    values = [state.params["w"] for state in itertools.islice(run, steps)]
    return torch.stack(values[steps // 2 :]).mean().item()


def settled_parameter_rows(oracles: Sequence[str] = ("same", "independent", "running")) -> list[dict]:
    """Return ``settled_parameter`` of some oracles beside the best parameter, a row each."""
    return [
        {"oracle": ORACLE_NAMES[oracle], "w at the end": settled_parameter(oracle), "best w": float(OPTIMUM)}
        for oracle in oracles
    ]
