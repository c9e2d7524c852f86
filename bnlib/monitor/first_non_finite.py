"""Find the step after which a layer's running variance was no longer finite, without waiting for the device."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


class FirstNonFinite:
    """Looks at the running variance of one channel of the last norm layer after each step.

    NaN and infinite values pass from a layer to those after it, so the last layer tells of all of them. On the CPU, the
    number is read from the memory of the buffer, because an operation on tensors would take 1 % of the time of a step
    of a small network. On another device, the numbers stay there until they are asked for.

    Arguments:
        layer: the norm layer; None if none has running statistics.
        steps: the largest number of steps between two calls of ``clear``.
        found: called in the first step after which the number is not finite, if that can be told at once.

    Attributes:
        watched: the dictionary that holds the layer's running variance, the tensor in it, a function that returns the
            address of its memory, the address, and a sequence that begins with the number: nan if only ``note`` can
            tell it. While tensor and address are the same and the number is finite, ``note`` has nothing to do.
    """

    def __init__(self, layer: nn.Module | None, steps: int, found: Callable[[], None]) -> None:
        self._steps, self._found, self._slots = steps, found, []
        self._variance, self._memory, self._holder = None, None, {}
        if layer is not None:
            # Where the attribute is: getattr on a module takes ten times as long.
            self._holder = layer._buffers if "running_var" in layer._buffers else vars(layer)
        self.watched = self._holder, None, int, 0, (math.nan if layer is not None else 0.0,)
        self._first, self._noted = None, []

    def clear(self, step: int) -> None:
        """Forget all steps before the end of a step, and note the state after it."""
        self._first, self._noted = step, []  # what was there before this step is no news
        self.note(step)
        known = self._memory is None or math.isfinite(self._memory[0])
        self._first = None if known else step

    def note(self, step: int) -> None:
        """Note the number after a step."""
        variance = self._holder.get("running_var")
        if variance is not self._variance or (self._memory is not None and variance.data_ptr() != self._address):
            self._prepare(variance)
        if self._memory is not None:
            value = self._memory[0]
            if value - value != 0.0 and self._first is None:
                self._first = step
                self._found()
        elif variance is not None and len(self._noted) < self._steps:
            self._slots[len(self._noted)].copy_(self._channel)
            self._noted.append(step)

    def first(self) -> int | None:
        """Return the first step after which the number was not finite; None if there is none."""
        if self._noted:
            values = torch.stack(self._slots[: len(self._noted)]).tolist()
            found = (step for step, value in zip(self._noted, values, strict=True) if not math.isfinite(value))
            return next(found, None)
        return self._first

    def _prepare(self, variance: Tensor | None) -> None:
        self._variance, self._memory = variance, None
        self.watched = self._holder, variance, int, 0, (math.nan if variance is not None else 0.0,)
        if variance is None:
            return
        # The detached tensor keeps the memory alive that it shares, unless the memory itself moves: share_memory().
        flat = variance.detach().flatten()
        if flat.device.type == "cpu" and flat.dtype in (torch.float32, torch.float64):
            self._memory, self._address = memoryview(flat.numpy()), variance.data_ptr()
            self.watched = self._holder, variance, variance.data_ptr, self._address, self._memory
            return
        self._channel = flat[0]
        if not self._slots or self._slots[0].device != flat.device:
            self._slots = list(torch.zeros(self._steps, device=flat.device).unbind())
