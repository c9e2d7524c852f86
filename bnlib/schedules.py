"""Numbers that change with the training step k = 0, 1, 2, ...: weights of the newest batch and limits of clipping.

A schedule is any function of the step that takes it as a number and as a 0-dimensional tensor. Layers give it the
tensor where nothing may wait for a GPU, or where many models are trained at once under ``torch.vmap``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

Step = TypeVar("Step", float, Tensor)
Schedule = Callable[[Step], Step]
"""A function of the step."""


def check_schedule(name: str, schedule: Schedule) -> float:
    """The first value of ``schedule``, called ``name`` in errors, after calls with a number and with a tensor.

    Raises:
        ValueError: one of the calls fails or gives no single number.

    Example:
        >>> schedules.check_schedule("alpha", schedules.lian_corollary_3_alpha)
        1.0
    """
    for step in (torch.tensor(0.0, dtype=torch.float64, device="cpu"), 0):
        try:
            first = float(schedule(step))
        except Exception as error:
            raise ValueError(
                f"{name} must be a function of the step, given as a number or as a 0-dimensional tensor, got "
                f"{schedule!r}, which fails at {step!r}: {error}"
            ) from error
    return first


@dataclass(frozen=True)
class PowerSchedule:
    r"""The weight $\max\{((k + \mathrm{start})/\mathrm{scale} + 1)^{-\mathrm{power}},\ \mathrm{floor}\}$.

    Arguments:
        scale: steps after which the weight begins to fall, positive.
        power: how fast it falls, not negative; 1 with ``scale=1`` makes an estimate the average of all batches.
        floor: the weight does not fall below this number in [0, 1]. An estimate of something that moves needs a
            floor: with weights that go on falling it lags further and further behind.
        start: steps that count as done already; 0 makes the first weight 1.

    Raises:
        ValueError: an argument outside its range.

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
        if not self.scale > 0:
            raise ValueError(f"scale must be positive, got {self.scale}")
        if not self.power >= 0:
            raise ValueError(f"power must not be negative, got {self.power}")
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor must lie between 0 and 1, got {self.floor}")
        if not self.start >= 0:
            raise ValueError(f"start must not be negative, got {self.start}")

    def __call__(self, step: Step) -> Step:
        """Return the weight at ``step``."""
        weight = ((step + self.start) / self.scale + 1) ** -self.power
        return weight.clamp(min=self.floor) if isinstance(weight, Tensor) else max(weight, self.floor)


@dataclass(frozen=True)
class LinearRamp:
    """A number that stays at ``low`` until step ``begin``, then rises linearly to ``high`` at step ``end``.

    Raises:
        ValueError: ``end`` is not after ``begin``.

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
        if not self.end > self.begin:
            raise ValueError(f"end must be after begin={self.begin}, got {self.end}")

    def __call__(self, step: Step) -> Step:
        """Return the number at ``step``."""
        done = (step - self.begin) / (self.end - self.begin)
        done = done.clamp(0, 1) if isinstance(done, Tensor) else min(max(done, 0.0), 1.0)
        return self.low + (self.high - self.low) * done


@dataclass(frozen=True)
class StepDecay:
    """A number that begins at 1 and is multiplied by ``factor`` each time another ``every`` has passed.

    Raises:
        ValueError: ``every`` is not positive.

    Source: the learning rate of Lian and Liu 2019, figures 5 and 8, with a fifth every 20 epochs.

    Example:
        >>> [round(schedules.StepDecay(every=20, factor=0.2)(epoch), 2) for epoch in (0, 19, 20, 40)]
        [1.0, 1.0, 0.2, 0.04]
    """

    every: float
    factor: float

    def __post_init__(self) -> None:
        if not self.every > 0:
            raise ValueError(f"every must be positive, got {self.every}")

    def __call__(self, step: Step) -> Step:
        """Return the number at ``step``."""
        return self.factor ** (step // self.every)


lian_corollary_3_alpha = PowerSchedule(scale=1, power=2 / 5)
"""The weights $(k+1)^{-2/5}$ of Lian and Liu 2019, Corollary 3."""

lian_figure_4_alpha = PowerSchedule(scale=20, power=0.4)
"""The weights $(k/20+1)^{-0.4}$ of Lian and Liu 2019, figures 4 and 7 (MNIST)."""

lian_figure_5_alpha = PowerSchedule(scale=5, power=0.3)
"""The weights $(k/5+1)^{-0.3}$ of Lian and Liu 2019, figure 5 (CIFAR-10, unshuffled)."""

lian_figure_8_alpha = PowerSchedule(scale=20, power=0.2)
"""The weights $(k/20+1)^{-0.2}$ of Lian and Liu 2019, figure 8 (CIFAR-10, shuffled)."""
