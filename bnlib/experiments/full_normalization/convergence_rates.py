r"""How fast Algorithm 2 of Lian and Liu (2019) goes: errors of the estimates and gradients, on problems known exactly.

The theory is Lemma 1 and Corollary 3, with $\gamma_k\propto(k+2)^{-\gamma}$ and $\alpha_k=(k+1)^{-a}$; see ``theory``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.mcsgd import Batch, Composition, Params, Stage, State, minimize
from bnlib.schedules import PowerSchedule

COROLLARY_3 = (0.8, 0.4)
SEEDS = {"quick": range(3), "paper": range(10)}
COPIES, BINS, CHUNK = 64, 25, 500
STEPS = {"quadratic": 6000, "network": 2000, "logistic": 6000, "logistic, from afar": 6000, "tail": 6000}


@dataclass(frozen=True)
class Problem:
    """A composition whose expectations are means over a few samples, with a dimension of independent copies.

    Values have the shape (b, copies, ...), statistics (copies, k), and the loss is the sum over copies: so each copy
    has the gradient that it would have alone.

    Attributes:
        composition: to be minimised.
        x, target: all samples, (n, 1, d) and (n, 1).
        start: draws the first parameters of so many copies.
        scale: of the learning rate, $1/(2L_g)$ where that is known.
    """

    composition: Composition
    x: Tensor
    target: Tensor
    start: Callable[[int, torch.Generator], Params]
    scale: float

    def batches(self, copies: int, generator: torch.Generator) -> Iterator[Batch]:
        """Endless batches of one sample, another one for each copy."""
        while True:
            index = torch.randint(len(self.x), (1, copies), generator=generator)
            yield self.x[index, 0], self.target[index, 0]

    def gradients(self, params: Params) -> Tensor:
        """The squared norm of the exact gradient of each copy, (copies,)."""
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        value = self.composition.value(leaves, (self.x, self.target))
        found = torch.autograd.grad(value, list(leaves.values()))
        return torch.stack([each.square().flatten(1).sum(1) for each in found]).sum(0)

    def errors(self, params: Params, estimates: Sequence[Tensor]) -> Tensor:
        r"""$\|\hat y_i-E\,e_i(w;\xi)\|^2$ of each stage and copy, (stages, copies); all is exact but the estimate."""
        with torch.no_grad():
            pairs = zip(self.composition.statistics(params, self.x), estimates, strict=True)
            return torch.stack([(exact - estimate).square().sum(1) for exact, estimate in pairs])


def quadratic() -> Problem:
    r"""$f(w)=E\,\frac12(c\,E[aw]-t)^2$ over samples (a, c, t): linear in the statistic but for the square."""
    samples = torch.tensor([[1.0, 2.0, 3.0], [3.0, -1.0, 1.0], [2.0, 0.5, -2.0], [-1.0, 1.5, 2.0]]).double()
    a, c, _ = samples.T
    stage = Stage(
        apply=lambda params, z, y: z[..., 1:2] * y,
        statistic=lambda params, z: z[..., :1] * params["w"],
        start=torch.zeros(1).double(),
    )
    lipschitz = (c.square().mean() * a.mean()).square().item()
    composition = Composition([stage], lambda params, z, t: (z[..., 0] - t).square().sum(1) / 2)
    return Problem(composition, samples[:, None, :2], samples[:, None, 2], _spread(w=(1,)), scale=1 / (2 * lipschitz))


def logistic(start: float = 0.0) -> Problem:
    r"""$f(w)=\log(1+e^y)-0.2\,y$ with $y=E[w+a]$: every assumption holds, and the gradient is not linear in y.

    From afar, $w=$ ``start``, the gradient is the same for the whole run, as in the worst case of Lemma 1.
    """
    stage = Stage(
        apply=lambda params, z, y: z * 0 + y,
        statistic=lambda params, z: z + params["w"],
        start=torch.full((1,), start).double(),
    )
    composition = Composition(
        [stage], lambda params, z, t: (torch.nn.functional.softplus(z[..., 0]) - t * z[..., 0]).sum(1)
    )
    a = torch.tensor([-2.0, 2.0]).double().view(2, 1, 1)
    # The derivative of the logistic function is at most 1/4, so L_g = 1/16.
    return Problem(composition, a, torch.full((2, 1), 0.2).double(), _spread(start, w=(1,)), scale=8)


def tail() -> Problem:
    r"""$f(w)=(1+y^2)^{-1/4}$ with $y=E[w+a]$: it falls for ever, always less, and gradient descent goes slowly."""
    stage = Stage(
        apply=lambda params, z, y: z * 0 + y,
        statistic=lambda params, z: z + params["w"],
        start=torch.full((1,), 1.0).double(),
    )
    composition = Composition([stage], lambda params, z, t: (1 + z[..., 0].square()).pow(-0.25).sum(1))
    a = torch.tensor([-0.3, 0.3]).double().view(2, 1, 1)
    # The second derivative is at most 1/2 in size, at y = 0, so L_g = 1/4.
    return Problem(composition, a, torch.zeros(2, 1).double(), _spread(2.0, w=(1,)), scale=2)


def network() -> Problem:
    """Regression by a network with two layers that normalise with the mean and variance of the data set, and tanh.

    Three levels of expectations: two channels, one channel, the loss.
    """
    eps = 1.0  # keeps the derivatives bounded, which the theory assumes

    def normalised(h: Tensor, y: Tensor) -> Tensor:
        mean, square = y.chunk(2, -1)
        return torch.tanh((h - mean) / (square - mean.square() + eps).sqrt())

    def first(params, z):
        return (z[..., None, :] * params["u"]).sum(-1)

    def second(params, z):
        return (z * params["v"]).sum(-1, keepdim=True)

    def moments(h):
        return torch.cat((h, h.square()), -1)

    stages = [
        Stage(
            lambda params, z, y, layer=layer: normalised(layer(params, z), y),
            lambda params, z, layer=layer: moments(layer(params, z)),
            torch.cat((torch.zeros(width), torch.ones(width))).double(),
        )
        for layer, width in ((first, 2), (second, 1))
    ]
    composition = Composition(stages, lambda params, z, t: (z * params["w"] - t[..., None]).square().sum((1, 2)) / 2)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 1, 2, generator=generator).double()
    target = (x[..., 0] * x[..., 1]).sign() + x[..., 0] / 2
    return Problem(composition, x, target, _spread(u=(2, 2), v=(2,), w=(1,)), scale=1)


def _spread(middle: float = 0.0, **shapes: tuple) -> Callable[[int, torch.Generator], Params]:
    """Draws parameters of these shapes from a normal distribution around ``middle``."""
    return lambda copies, generator: {
        name: middle + torch.randn(copies, *shape, generator=generator).double() for name, shape in shapes.items()
    }


FAR = 2000.0
PROBLEMS: dict[str, Callable[[], Problem]] = {
    "quadratic": quadratic,
    "network": network,
    "logistic": logistic,
    "logistic, from afar": lambda: logistic(FAR),
    "tail": tail,
}


class Theory(NamedTuple):
    """Powers of k that are upper bounds, up to any positive epsilon.

    Attributes:
        noise, drift: of the two terms of Lemma 1.
        error: of Lemma 1, the larger of both; nan outside its assumptions.
        average: of the mean of the squared gradients up to k; nan outside the conditions of Theorem 2 as printed.
        follows: whether that bound on the mean follows from Lemma 1, see ``theory``.
    """

    noise: float
    drift: float
    error: float
    average: float
    follows: bool


def theory(power_lr: float, power_alpha: float) -> Theory:
    r"""What Lian and Liu promise for $\gamma_k\propto k^{-\gamma}$ and $\alpha_k\propto k^{-a}$.

    Lemma 1, for $\gamma>a>0$: the squared error falls at least as $k^{-a}+k^{-2\gamma+2a}$. Theorem 2, for
    $a<2\gamma-1$ and $a<\frac12$: $\sum_k\gamma_kE\|\nabla f\|^2\le H$. As $\gamma_k$ falls, the plain mean of the
    first K squared gradients is at most $H/(K\gamma_K)\propto K^{\gamma-1}$, which is Corollary 3 for $\gamma=\frac45$.

    A step on a smooth function gives
    $\sum\gamma_kE\|\nabla f\|^2\le C+C\sum\gamma_kE\|\hat y-Ee\|^2+C\sum\gamma_k^2$. By Lemma 1 these are finite if
    $\gamma+a>1$, $3\gamma-2a>1$ and $\gamma>\frac12$. The conditions of Theorem 2 as printed do not imply the first:
    $\gamma=0.55$ and $a=0.05$ satisfy them, and promise a rate that the experiment does not find.
    """
    gamma, a = power_lr, power_alpha
    noise, drift = -a, -2 * gamma + 2 * a
    lemma = gamma > a > 0
    theorem = lemma and a < 2 * gamma - 1 and a < 1 / 2
    # Powers are decimals: 3 * 0.8 - 2 * 0.7 must not count as more than 1.
    follows = lemma and min(gamma + a, 3 * gamma - 2 * a, 2 * gamma) > 1 + 1e-9
    return Theory(noise, drift, max(noise, drift) if lemma else math.nan, gamma - 1 if theorem else math.nan, follows)


class Slope(NamedTuple):
    """Of straight lines through log value against log k, one a seed."""

    middle: float
    low: float
    high: float


def slope(k: Sequence[float], values: np.ndarray, from_k: float, to_k: float = math.inf) -> Slope:
    """Median, least and largest slope of ``values``, shape (seeds, len(k)), from ``from_k`` to ``to_k``."""
    k = np.asarray(k, dtype=float)
    part = (k >= from_k) & (k <= to_k)
    found = np.polyfit(np.log(k[part]), np.log(np.atleast_2d(values)[:, part]).T, 1)[0]
    return Slope(float(np.median(found)), float(found.min()), float(found.max()))


def edges(steps: int) -> np.ndarray:
    """Where the parts of a run begin, evenly on a logarithmic scale, and ``steps``, where the last ends."""
    return np.unique(np.geomspace(1, steps + 1, BINS + 1).round().astype(int)) - 1


def centres(steps: int) -> np.ndarray:
    """The geometric mean of k + 1 in each part."""
    logs = np.log(np.arange(1, steps + 1))
    return np.exp(_means(logs, edges(steps)))


def ends(steps: int) -> np.ndarray:
    """The number of steps made at the end of each part."""
    return edges(steps)[1:]


def _means(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Of the parts of ``values``, which ``at`` divides along the last axis."""
    return np.add.reduceat(values, at[:-1], axis=-1) / np.diff(at)


def at(steps: int, name: str) -> np.ndarray:
    """The k of each entry of what ``measure`` returns by this name."""
    return centres(steps) if name in ("error", "gradient") else ends(steps)


def fitted(values: Mapping[str, np.ndarray], steps: int, name: str, stage: int = 0) -> Slope:
    """The slope of one of the results of a cell over the last part of the run, from 1/30 of its steps on."""
    found = values["error"][:, stage] if name == "error" else values[name]
    return slope(at(steps, name), found, steps / 30)


class Line(NamedTuple):
    """What a figure draws of one cell and one result.

    Attributes:
        k, runs: abscissae, (P,), and values of each seed, (seeds, P).
        slope: fitted; ``begin`` is the first k of the fit.
        power: the slope of the theory, or nan.
    """

    k: np.ndarray
    runs: np.ndarray
    slope: float
    begin: float
    power: float


def lines(
    cells: Mapping[tuple, Mapping], problem: str, results: Sequence[str] = ("error", "average"), stage: int = 0
) -> dict[str, dict[str, Line]]:
    """The ``results`` of the cells of a problem, by name of the cell and of the result; ``error`` of one ``stage``."""
    found = {}
    for (kind, oracle, power_lr, power_alpha, steps), values in cells.items():
        if kind == problem:
            promised = theory(power_lr, power_alpha)
            powers = {"error": promised.error, "average": promised.average}
            found[f"{oracle}, p = {power_lr:g}, a = {power_alpha:g}"] = {
                name: Line(
                    at(steps, name),
                    values[name][:, stage] if name == "error" else values[name],
                    fitted(values, steps, name, stage).middle,
                    steps / 30,
                    powers.get(name, math.nan),
                )
                for name in results
            }
    return found


def run(
    problem: Problem, oracle: str, power_lr: float, power_alpha: float, generator: torch.Generator
) -> Iterator[State]:
    """Algorithm 2 with the schedules of Corollary 3 but for their powers, endlessly; power 0 is a constant rate."""
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


def exact(problem: Problem, states: Sequence[State]) -> tuple[Tensor, Tensor]:
    """Squared errors, (stages, len(states)), and squared gradients, (len(states),), means over copies.

    Both at the parameters at which the estimates were made, that is before the step.
    """
    params = {name: torch.cat([each.previous[name] for each in states]) for name in states[0].params}
    estimates = [torch.cat(each) for each in zip(*(each.estimates for each in states), strict=True)]
    shape = (len(states), -1)
    errors = problem.errors(params, estimates)
    return errors.view(len(errors), *shape).mean(2), problem.gradients(params).view(shape).mean(1)


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """See ``SETTINGS``; ten times as many steps at paper scale."""
    longer = 10 if scale == "paper" else 1
    return {(problem, oracle, *powers, longer * STEPS[problem]): SEEDS[scale] for problem, oracle, powers in SETTINGS}


def measure(
    problem: str, oracle: str, power_lr: float, power_alpha: float, steps: int, *, seed: int, device: str
) -> dict[str, Any]:
    """Run ``COPIES`` independent copies on the CPU, whatever the device, with one sample a step.

    Returns:
        means over copies, and over the steps of each part of the run (``centres``): ``error``, by stage, the squared
        error of the estimates; ``gradient``, the squared norm of the exact gradient. ``average``, the mean of the
        latter over all steps up to the end of each part (``ends``), as in Corollary 3; ``weighted``, its sum weighted
        with the learning rates, as in Theorem 2, with rates that begin at 1.
    """
    found, chosen = [], PROBLEMS[problem]()
    states = run(chosen, oracle, power_lr, power_alpha, torch.Generator().manual_seed(seed))
    for first in range(0, steps, CHUNK):
        found.append(exact(chosen, list(itertools.islice(states, min(CHUNK, steps - first)))))
    errors, gradients = (torch.cat(each, -1).numpy() for each in zip(*found, strict=True))
    count = np.arange(1, steps + 1)
    return {
        "error": _means(errors, edges(steps)),
        "gradient": _means(gradients, edges(steps)),
        "average": (gradients.cumsum() / count)[ends(steps) - 1],
        "weighted": (gradients * (count + 1.0) ** -power_lr).cumsum()[ends(steps) - 1],
    }


SETTINGS = [
    *(("quadratic", "independent", powers) for powers in ((0.8, 0.4), (0.9, 0.2), (0.75, 0.45))),
    *(("quadratic", "independent", powers) for powers in ((0.5, 0.4), (0.8, 0.7), (0.0, 0.4))),
    *(("quadratic", oracle, COROLLARY_3) for oracle in ("running", "same")),
    *(("network", oracle, COROLLARY_3) for oracle in ("independent", "running", "same")),
    ("network", "running", (0.9, 0.2)),
    ("network", "running", (0.0, 0.4)),
    *(("logistic", "independent", powers) for powers in ((0.8, 0.4), (0.55, 0.05))),
    *(("logistic, from afar", "independent", powers) for powers in ((0.8, 0.4), (0.5, 0.4), (0.8, 0.7))),
    ("tail", "independent", COROLLARY_3),
]
EXPERIMENT = Measurement(
    name="full_normalization.convergence_rates",
    question="Do the errors of Lemma 1 and the squared gradients of Corollary 3 fall as fast as the theory says?",
    source="Lian and Liu 2019, section 5.2",
    axes=("problem", "oracle", "power_lr", "power_alpha", "steps"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """The committed result."""
    return EXPERIMENT.load("quick")
