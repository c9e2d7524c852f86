"""The values of a layer's schedules, checked at every step, also under ``torch.compile`` and ``torch.func``."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bnlib.arguments import is_number, shown
from bnlib.norm.buffers import is_eager
from bnlib.schedules import PowerSchedule, Schedule


class Bounds(NamedTuple):
    """What the values of a schedule must be.

    Attributes:
        text: the same in words, after "must".
        least: the smallest value; with ``above`` it is excluded.
        most: the largest value.
    """

    text: str
    least: float
    most: float = math.inf
    above: bool = False

    def hold_for(self, value):
        """Return whether a number lies within the bounds, or for a tensor, a tensor of that. NaN does not."""
        low = value > self.least if self.above else value >= self.least
        return low & (value <= self.most)


ALPHA = Bounds("lie in (0, 1]", 0, 1, above=True)
R_MAX = Bounds("be at least 1", 1)
D_MAX = Bounds("be at least 0", 0)


def at_step(name: str, value: float | Tensor | Schedule, step: int | float | Tensor, bounds: Bounds) -> float | Tensor:
    """Return a number as it is, or the value of a schedule at ``step`` after a check.

    A value on a GPU is checked there, so that nothing waits for it; values on other devices are not checked.

    Arguments:
        name: name of the argument in error messages.
        value: a number, or a schedule.
        step: the number of earlier batches, as a number or a tensor.
        bounds: what the values must be.

    Raises:
        TypeError: if the value at this step is not one number.
        ValueError: if it lies outside of the bounds.
        RuntimeError: the same on a GPU.
    """
    if not callable(value):
        return value
    found = _one_number(value(step), step, name)
    if not isinstance(found, Tensor):
        if not bounds.hold_for(found):
            raise _error(found, step, name, bounds)
    elif is_eager(found):
        _check(found, step, name, bounds)
    elif not (torch.compiler.is_exporting() or torch.jit.is_tracing() or _always_holds(value, bounds)):
        known = step if isinstance(step, Tensor) else torch.full_like(found, step)
        return torch.ops.bnlib.checked(found, known, name, *bounds)
    return found


def _one_number(found: Any, step: int | float | Tensor, name: str) -> float | Tensor:
    """Return a value of a schedule, which is one number, or a tensor of one for each step."""
    if isinstance(found, Tensor):
        if not found.is_complex() and found.numel() in (1, step.numel() if isinstance(step, Tensor) else 1):
            return found
    elif isinstance(found, (int, float)) or is_number(found):
        return found
    elif getattr(found, "shape", None) == () and not isinstance(found, complex):  # an array of NumPy
        return float(found)
    known = not isinstance(step, Tensor) or (is_eager(step) and step.numel() == 1)
    when = f" at step {int(step)}" if known else ""
    raise TypeError(f"{name} must be one number at every step, got {shown(found)}{when}; change the schedule")


def _always_holds(schedule: Schedule, bounds: Bounds) -> bool:
    # Weights that never leave (0, 1] need no check, which takes a tenth of a compiled step of a small layer.
    return bounds is ALPHA and type(schedule) is PowerSchedule and schedule.floor > 0


def _check(value: Tensor, step: float | Tensor, name: str, bounds: Bounds) -> None:
    if value.is_cuda:
        torch._assert_async(bounds.hold_for(value).all(), f"{name} must {bounds.text} at every step")
    elif value.is_cpu:
        values = value.flatten().tolist()
        for index, each in enumerate(values):
            if not bounds.hold_for(each):
                steps = torch.as_tensor(step).expand_as(value).flatten()
                raise _error(each, steps[index], name, bounds)


def _error(value: float, step: float | Tensor, name: str, bounds: Bounds) -> ValueError:
    return ValueError(
        f"{name} must {bounds.text} at every step, got {float(value)} at step {int(step)}; change the schedule or "
        "limit its values"
    )


def _checked(value: Tensor, step: Tensor, name: str, text: str, least: float, most: float, above: bool) -> Tensor:
    if type(value) is Tensor and not value.is_meta:  # the code runs, and is not only being compiled
        _check(value, step, name, Bounds(text, least, most, above))
    return value.clone()


def _checked_by_model(info, in_dims, value, step, *bounds):
    # All values are checked at once.
    size = info.batch_size
    value, step = (
        each.expand(size, *each.shape) if dim is None else each.movedim(dim, 0)
        for each, dim in zip((value, step), in_dims[:2], strict=True)
    )
    return torch.ops.bnlib.checked(value, step, *bounds), 0


if not hasattr(torch.ops.bnlib, "checked"):
    _LIBRARY = torch.library.Library("bnlib", "FRAGMENT")
    _LIBRARY.define(
        "checked(Tensor value, Tensor step, str name, str text, float least, float most, bool above) -> Tensor"
    )
    _LIBRARY.impl("checked", _checked, "CompositeExplicitAutograd")
    torch.library.register_vmap("bnlib::checked", _checked_by_model, lib=_LIBRARY)
