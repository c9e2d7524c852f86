"""Take one step of gradient descent on a parabola with waves, and compare it with the descent lemma."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

FREQUENCIES = (0.0, 1.0, 2.0, 4.0, 6.0, 8.0)
STEP_SIZES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0)
START, HEIGHT = -2.0, 0.15


@dataclass(frozen=True)
class GradientStep:
    r"""A gradient step from $w_0$ = ``START`` on $f(w)=w^2/2+h\,(1-\cos\omega w)$, with h = ``HEIGHT``.

    Attributes:
        w, f: points and values of the function, shape (321,).
        bound: upper bound of f at ``w`` by the descent lemma, $f(w_0)+f'(w_0)(w-w_0)+\frac M2(w-w_0)^2$.
        smoothness: M, the smallest number with $|f'(a)-f'(b)|\le M|a-b|$ everywhere: $1+h\omega^2$.
        slope: $f'(w_0)$.
        end: w after the step.
        f_start, f_end: f before and after the step.
        bound_end: the bound after the step.
    """

    w: np.ndarray
    f: np.ndarray
    bound: np.ndarray
    smoothness: float
    slope: float
    end: float
    f_start: float
    f_end: float
    bound_end: float


def parabola_with_waves(w, frequency: float):
    """Return f(w); ``frequency`` is that of the waves, in radians per unit of w."""
    return np.square(w) / 2 + HEIGHT * (1 - np.cos(frequency * w))


def gradient_step(frequency: float, step_size: float) -> GradientStep:
    """Take a gradient step of the given step size (learning rate) on the function with waves of a frequency."""
    w = np.linspace(-4, 4, 321)
    smoothness, slope = 1 + HEIGHT * frequency**2, START + HEIGHT * frequency * math.sin(frequency * START)
    end = START - step_size * slope
    f_start, f_end = (float(parabola_with_waves(at, frequency)) for at in (START, end))

    def bound(at):
        return f_start + slope * (at - START) + smoothness / 2 * np.square(at - START)

    return GradientStep(
        w=w,
        f=parabola_with_waves(w, frequency),
        bound=bound(w),
        smoothness=smoothness,
        slope=slope,
        end=end,
        f_start=f_start,
        f_end=f_end,
        bound_end=float(bound(end)),
    )
