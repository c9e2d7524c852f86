r"""Test the conditions of Theorem 2 of Lian and Liu (2019) with two oracles that satisfy its assumptions.

The problem is ``convergence_problems.logistic``, $J(w)=\log(1+e^u)-0.2\,u$ with $u=E[w+a]=w$ and $a=\pm2$. The theorem
assumes that the squared bias of the oracle is at most $L_g|\hat u-u|^2$. With $L_g=\frac1{16}$ this holds for both:

- ``"independent"``, the oracle of Algorithm 2: $g=\sigma(\hat u)-0.2$. On average its bias is of order $\alpha_k$.
- ``"largest bias"``: $g=\sigma(u)-0.2+\frac14|\hat u-u|$. Its bias is as large as the assumption allows, and always has
  the same sign, so on average it is of order $\sqrt{\alpha_k}$.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from bnlib.experiments.convergence.convergence_rates import COROLLARY_3, bin_ends, slope
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement

STEPS, COPIES, CHUNK = 30_000, 64, 1000
SEEDS = {"quick": range(3), "paper": range(10)}
OFFSET, TARGET, SCALE = 2.0, 0.2, 8.0
"""|a|, the slope that is subtracted in J, and the scale of the learning rate, 1/(2 L_g)."""
MISSING_CONDITION = (0.62, 0.23)
"""Powers p and a that satisfy all that is printed, and p + 2a > 1, but not p + a > 1."""
SETTINGS = [
    ("independent", *COROLLARY_3),
    ("largest bias", *COROLLARY_3),
    ("largest bias", 0.7, 0.45),
    ("independent", *MISSING_CONDITION),
    ("largest bias", *MISSING_CONDITION),
    ("independent", 0.55, 0.05),
]


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return an oracle and two powers per cell."""
    return {setting: SEEDS[scale] for setting in SETTINGS}


def gradient_of_oracle(oracle: str, w: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    r"""Return what an oracle takes for $\nabla J$ at the parameters ``w``, where $u=w$, given estimates of $u$."""
    if oracle == "largest bias":
        return exact_gradient(w) + np.abs(estimate - w) / 4
    return exact_gradient(estimate)


def exact_gradient(w: np.ndarray) -> np.ndarray:
    """Return the derivative of J."""
    return 1 / (1 + np.exp(-w)) - TARGET


def measure(oracle: str, power_lr: float, power_alpha: float, *, seed: int, device: str) -> dict[str, np.ndarray]:
    """Run ``COPIES`` independent copies with one sample per step, always on the CPU.

    Returns:
        means over copies, up to the end of each bin of steps (``bin_ends``): ``average``, the mean of the squared
        gradients; ``weighted``, their sum weighted with the learning rates at scale 1, as in Theorem 2.
    """
    generator = np.random.default_rng(seed)
    w, estimate = generator.standard_normal(COPIES), np.zeros(COPIES)
    k = np.arange(STEPS)
    rates, weights = (k + 2.0) ** -power_lr, (k + 1.0) ** -power_alpha
    squared, path = np.empty(STEPS), np.empty((CHUNK, COPIES))
    for first in range(0, STEPS, CHUNK):
        offsets = generator.choice((-OFFSET, OFFSET), (CHUNK, COPIES))
        for step in range(CHUNK):
            path[step] = w
            estimate = estimate + weights[first + step] * (w + offsets[step] - estimate)
            w = w - SCALE * rates[first + step] * gradient_of_oracle(oracle, w, estimate)
        squared[first : first + CHUNK] = np.square(exact_gradient(path)).mean(1)
    ends = bin_ends(STEPS) - 1
    return {"average": (squared.cumsum() / (k + 1))[ends], "weighted": (squared * rates).cumsum()[ends]}


EXPERIMENT = Measurement(
    name="convergence.theorem_2",
    question="Is the weighted sum of squared gradients bounded for all powers that Theorem 2 allows?",
    source="Lian and Liu 2019, Theorem 2",
    axes=("oracle", "power_lr", "power_alpha"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def growth_exponents(values: dict[str, np.ndarray], name: str = "weighted") -> np.ndarray:
    """Return the power with which a result grows with the number of steps, fitted to the last tenfold, per seed."""
    return np.array([slope(bin_ends(STEPS), run, STEPS / 10).median for run in values[name]])


def expected_growth(oracle: str, power_lr: float, power_alpha: float) -> float:
    r"""Return the power of k with which $\sum_k\eta_k\,(\text{bias})^2$ grows; 0 if the sum is bounded."""
    order = power_alpha if oracle == "largest bias" else 2 * power_alpha
    return max(0.0, 1 - power_lr - order)
