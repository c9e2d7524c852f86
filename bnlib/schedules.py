"""Schedules: numbers that change with the training step k = 0, 1, 2, ..., such as the weight of the newest batch.

A schedule is any function of the step. It must accept the step as a number and as a 0-dimensional tensor. Layers pass a
tensor on a GPU, to avoid waiting for the GPU, and when many models are trained at once with ``torch.vmap``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from bnlib.arguments import check_number

Step = TypeVar("Step", float, Tensor)
Schedule = Callable[[Step], Step]
"""A function of the step."""


def check_schedule(name: str, schedule: Schedule) -> float:
    """Check that a schedule accepts a number and a tensor as its step, and return its value at step 0.

    Arguments:
        name: name of the argument in error messages.
        schedule: the schedule to check.

    Raises:
        ValueError: if one of the calls fails or does not return a single number.

    Example:
        >>> schedules.check_schedule("alpha", schedules.lian_corollary_3_alpha)
        1.0
    """
    for step in (torch.tensor(0.0, dtype=torch.float64, device="cpu"), 0):
        try:
            first = schedule(step)
            if isinstance(first, (str, bytes)):
                raise TypeError(f"it returns the text {first!r}")
            first = float(first)
        except Exception as error:
            raise ValueError(
                f"{name} must be a function of the step, given as a number or as a 0-dimensional tensor, got "
                f"{schedule!r}, which fails at {step!r}: {error}"
            ) from error
    return first


@dataclass(frozen=True)
class PowerSchedule:
    r"""A weight that decays as a power of the step k, down to a lower bound.

    The weight is $\max\{((k + \mathrm{start})/\mathrm{scale} + 1)^{-\mathrm{power}},\ \mathrm{floor}\}$.

    Arguments:
        scale: number of steps after which the weight begins to decay, positive.
        power: how fast the weight decays, at least 0. With ``power=1`` and ``scale=1`` a running estimate is the
            average of all batches.
        floor: lower bound of the weight, in [0, 1]. A running estimate of a changing quantity needs a positive floor:
            with weights that decay to 0 it follows the changes more and more slowly.
        start: number that is added to the step; with 0 the first weight is 1.

    Raises:
        TypeError: if an argument is not a number.
        ValueError: if an argument is outside its range.

    Source: Lian and Liu 2019, figures 4 to 9 and Corollary 3 (without a floor).

    Example:
        >>> [round(schedules.lian_figure_4_alpha(step), 2) for step in (0, 20, 1000)]
        [1.0, 0.76, 0.21]
        >>> schedules.PowerSchedule(scale=1, power=1, floor=0.03)(1000)
        0.03
    """

    scale: float
    power: float
    floor: float = 0.0
    start: float = 0.0

    def __post_init__(self) -> None:
        check_number("scale", self.scale, above=0)
        check_number("power", self.power, at_least=0)
        check_number("floor", self.floor, at_least=0, at_most=1)
        check_number("start", self.start, at_least=0)

    def __call__(self, step: Step) -> Step:
        """Return the weight at ``step``."""
        weight = ((step + self.start) / self.scale + 1) ** -self.power
        return weight.clamp(min=self.floor) if isinstance(weight, Tensor) else max(weight, self.floor)


@dataclass(frozen=True)
class LinearRamp:
    """A value that is ``low`` until step ``begin`` and then rises linearly to ``high`` at step ``end``.

    Arguments:
        low: value up to step ``begin``.
        high: value from step ``end`` on.
        begin: step at which the rise begins.
        end: step at which the rise ends.

    Raises:
        TypeError: if an argument is not a number.
        ValueError: if an argument is not finite, or ``end`` is not larger than ``begin``.

    Source: the relaxation of r_max and d_max in Ioffe 2017, section 3.

    Example:
        >>> [schedules.LinearRamp(1.0, 3.0, 5000, 40000)(step) for step in (0, 22500, 50000)]
        [1.0, 2.0, 3.0]
    """

    low: float
    high: float
    begin: float
    end: float

    def __post_init__(self) -> None:
        for name in ("low", "high", "begin"):
            check_number(name, getattr(self, name))
        check_number("end", self.end, above=self.begin)

    def __call__(self, step: Step) -> Step:
        """Return the value at ``step``."""
        done = (step - self.begin) / (self.end - self.begin)
        done = done.clamp(0, 1) if isinstance(done, Tensor) else min(max(done, 0.0), 1.0)
        return self.low + (self.high - self.low) * done


@dataclass(frozen=True)
class StepDecay:
    """A factor that starts at 1 and is multiplied by ``factor`` after every ``every`` steps or epochs.

    Arguments:
        every: length of an interval, in the unit of the schedule's argument, positive.
        factor: the multiplier, at least 0.

    Raises:
        TypeError: if an argument is not a number.
        ValueError: if ``every`` is not positive or ``factor`` is negative.

    Source: the learning rate in figures 5 and 8 of Lian and Liu 2019, which is divided by 5 every 20 epochs.

    Example:
        >>> [round(schedules.StepDecay(every=20, factor=0.2)(epoch), 2) for epoch in (0, 19, 20, 40)]
        [1.0, 1.0, 0.2, 0.04]
    """

    every: float
    factor: float

    def __post_init__(self) -> None:
        check_number("every", self.every, above=0)
        check_number("factor", self.factor, at_least=0)

    def __call__(self, step: Step) -> Step:
        """Return the factor at ``step``."""
        return self.factor ** (step // self.every)


lian_corollary_3_alpha = PowerSchedule(scale=1, power=2 / 5)
"""The weights $(k+1)^{-2/5}$ of Lian and Liu 2019, Corollary 3."""

lian_figure_4_alpha = PowerSchedule(scale=20, power=0.4)
"""The weights $(k/20+1)^{-0.4}$ of Lian and Liu 2019, figures 4 and 7 (MNIST)."""

lian_figure_5_alpha = PowerSchedule(scale=5, power=0.3)
"""The weights $(k/5+1)^{-0.3}$ of Lian and Liu 2019, figure 5 (CIFAR-10, unshuffled)."""

lian_figure_8_alpha = PowerSchedule(scale=20, power=0.2)
"""The weights $(k/20+1)^{-0.2}$ of Lian and Liu 2019, figure 8 (CIFAR-10, shuffled)."""
