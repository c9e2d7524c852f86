"""Schedules: their values as published, for numbers and for tensors."""

import pytest
import torch

from bnlib import schedules
from bnlib.schedules import LinearRamp, PowerSchedule, StepDecay


@pytest.mark.parametrize(
    ("schedule", "step", "value"),
    [
        (schedules.lian_figure_4_alpha, 0, 1.0),
        (schedules.lian_figure_4_alpha, 20, 2**-0.4),
        (schedules.lian_figure_4_alpha, 60000, 3001**-0.4),
        (schedules.lian_figure_5_alpha, 45, 10**-0.3),
        (schedules.lian_figure_8_alpha, 180, 10**-0.2),
        (schedules.lian_corollary_3_alpha, 31, 32 ** (-2 / 5)),
        (PowerSchedule(scale=1, power=1), 3, 0.25),
        (PowerSchedule(scale=1, power=1, floor=0.3), 3, 0.3),
        (PowerSchedule(scale=1, power=1, start=1), 2, 0.25),
        (LinearRamp(1.0, 3.0, 5000, 40000), 5000, 1.0),
        (LinearRamp(1.0, 3.0, 5000, 40000), 22500, 2.0),
        (LinearRamp(1.0, 3.0, 5000, 40000), 90000, 3.0),
        (StepDecay(20, 0.2), 19.99, 1.0),
        (StepDecay(20, 0.2), 41, 0.04),
    ],
)
def test_values(schedule, step, value):
    assert schedule(step) == pytest.approx(value)
    assert schedule(torch.tensor(step, dtype=torch.float64)).item() == pytest.approx(value)
    assert torch.func.vmap(schedule)(torch.tensor([float(step)])).item() == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PowerSchedule(0, 1), "scale must be a finite number, above 0, got 0"),
        (lambda: PowerSchedule(1, -1), "power must be a finite number, at least 0, got -1"),
        (lambda: PowerSchedule(1, 1, 2), "floor must be a finite number, at least 0 and at most 1, got 2"),
        (lambda: PowerSchedule(1, 1, 0, -1), "start must be a finite number, at least 0, got -1"),
        (lambda: LinearRamp(0, 1, 5, 5), "end must be a finite number, above 5, got 5"),
        (lambda: StepDecay(0, 0.2), "every must be a finite number, above 0, got 0"),
    ],
)
def test_arguments_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
