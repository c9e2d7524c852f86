"""One step of gradient descent on a function of one number that can be made rougher."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

WAVES = (0.0, 1.0, 2.0, 4.0, 6.0, 8.0)
STEP_LENGTHS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0)
START, HEIGHT = -2.0, 0.15


@dataclass(frozen=True)
class Step:
    r"""A step on $f(w)=w^2/2+h\,(1-\cos\omega w)$ from ``START``.

    Attributes:
        w, f: the function, to be drawn.
        beta: the least number with $|f'(a)-f'(b)|\le\beta|a-b|$ everywhere: $1+h\omega^2$.
        slope: at the start.
        bound: the parabola of the descent lemma at ``w``, $f(w_0)+f'(w_0)(w-w_0)+\frac\beta2(w-w_0)^2$.
        before, after, promised: f at the start and after the step, and the bound there.
        to: where the step ends.
    """

    w: np.ndarray
    f: np.ndarray
    beta: float
    slope: float
    bound: np.ndarray
    before: float
    after: float
    promised: float
    to: float


def value(w, waves: float):
    """The function."""
    return np.square(w) / 2 + HEIGHT * (1 - np.cos(waves * w))


def lookup(waves: float, step_length: float) -> Step:
    """The step of this length on the function with this frequency of waves, in radians per unit."""
    w = np.linspace(-4, 4, 321)
    beta, slope = 1 + HEIGHT * waves**2, START + HEIGHT * waves * math.sin(waves * START)
    before, to = float(value(START, waves)), START - step_length * slope

    def bound(at):
        return before + slope * (at - START) + beta / 2 * np.square(at - START)

    return Step(w, value(w, waves), beta, slope, bound(w), before, float(value(to, waves)), float(bound(to)), to)
