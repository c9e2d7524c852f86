"""The state of a batch norm as numbers in one convention."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bnlib.arguments import check_integer, check_number, check_one_of, shown
from bnlib.port.conventions import ROWS, convention

VARIANCES = ("biased", "unbiased")
ARRAYS = ("running_mean", "running_var", "weight", "bias")


@dataclass(frozen=True, eq=False)
class BatchNormState:
    r"""Hold what a batch norm knows, in PyTorch's convention except for the running variance, which says what it is.

    The output at inference is $\gamma\,(x - \mu)/\sqrt{v + \epsilon} + \beta$ with $\mu$ = ``running_mean`` and $v$ =
    ``running_var``, in every framework. The variance is therefore kept as it was stored, and ``variance`` says whether
    training divides by $n$ or by $n-1$ for it; ``with_variance`` converts.

    Arguments:
        running_mean: shape (C,).
        running_var: shape (C,).
        weight: gamma, shape (C,), or None.
        bias: beta, shape (C,), or None.
        eps: added to the variance inside the square root.
        momentum: weight of the *new* batch in the running statistics; None averages all batches equally.
        variance: ``"biased"`` or ``"unbiased"``.
        count: number of batches that the statistics have seen, or None if that is not known.
        channel_axis: axis of the channels in the inputs that the layer was made for; the arrays do not depend on it.
        framework: where the numbers come from, one of ``FRAMEWORKS``.
        name: name of the layer there.
        notes: what was assumed, and what could not be carried, each as a sentence.

    Raises:
        TypeError: if an array or a number is of another type.
        ValueError: if the arrays do not have one dimension and the same length, or the variance is negative.

    Example:
        >>> state = port.BatchNormState(running_mean=[0.0, 2.0], running_var=[1.0, 4.0], weight=[1.0, 3.0])
        >>> state.channels, state.momentum
        (2, 0.1)
    """

    running_mean: np.ndarray
    running_var: np.ndarray
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    eps: float = 1e-5
    momentum: float | None = 0.1
    variance: str = "unbiased"
    count: int | None = None
    channel_axis: int = 1
    framework: str = "torch"
    name: str = ""
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for name in ARRAYS:
            value = getattr(self, name)
            if value is not None or name.startswith("running"):
                object.__setattr__(self, name, numbers(name, value))
        shapes = {name: getattr(self, name).shape for name in ARRAYS if getattr(self, name) is not None}
        for name, shape in shapes.items():
            if len(shape) != 1 or shape != shapes["running_mean"]:
                raise ValueError(
                    f"{name} must have one number per channel, shape {(self.running_mean.size,)} as running_mean, "
                    f"got shape {shape}; statistics over several axes at once have no counterpart elsewhere"
                )
        if (self.running_var < 0).any():
            lowest = self.running_var.min()
            raise ValueError(f"running_var must not be negative, got {lowest:g} in channel {self.running_var.argmin()}")
        check_number("eps", self.eps, at_least=0)
        if self.momentum is not None:
            check_number("momentum", self.momentum, at_least=0, at_most=1)
        check_one_of("variance", self.variance, VARIANCES)
        if self.count is not None:
            check_integer("count", self.count, 0)
        check_integer("channel_axis", self.channel_axis, at_least=-10)
        check_one_of("framework", self.framework, ROWS)

    @property
    def channels(self) -> int:
        """Number of channels, C."""
        return self.running_mean.size

    def evaluate(self, x: Any) -> np.ndarray:
        """Return the output at inference, computed with NumPy in float64.

        Arguments:
            x: input with the channels on ``channel_axis``.

        Returns:
            shape of ``x``.

        Raises:
            ValueError: if the channels do not fit.

        Example:
            >>> port.BatchNormState([1.0], [4.0], eps=0.0).evaluate([[3.0], [5.0]]).tolist()
            [[1.0], [2.0]]
        """
        values = np.asarray(x, np.float64)
        axis = self.channel_axis
        if not -values.ndim <= axis < values.ndim or values.shape[axis] != self.channels:
            raise ValueError(f"x must have {self.channels} channels on axis {axis}, got shape {values.shape}")
        shape = [1] * values.ndim
        shape[axis] = self.channels
        mean, variance = (each.reshape(shape).astype(np.float64) for each in (self.running_mean, self.running_var))
        output = (values - mean) / np.sqrt(variance + self.eps)
        output = output if self.weight is None else output * self.weight.reshape(shape)
        return output if self.bias is None else output + self.bias.reshape(shape)

    def with_variance(self, variance: str, values_per_channel: int) -> BatchNormState:
        r"""Return a copy with the running variance of the other kind, for training in another framework.

        A batch of $n$ values per channel moves the unbiased variance by $n/(n-1)$ times as much as the biased one. The
        value that the average started at is not a variance of a batch, so its share is left alone. That share is
        known if ``count`` is; without a count we take it to be 0, and a note says so. The result is exact if all
        batches had the same $n$. The outputs at inference change by up to a factor $\sqrt{n/(n-1)}$.

        Arguments:
            variance: ``"biased"`` or ``"unbiased"``.
            values_per_channel: n, the batch size times the number of positions (height times width); at least 2.

        Raises:
            TypeError: if ``values_per_channel`` is no integer.
            ValueError: if an argument is out of range.

        Example:
            >>> state = port.read({"gamma": [1.0], "moving_mean": [0.0], "moving_variance": [3.0]}, "keras")
            >>> state.with_variance("unbiased", values_per_channel=4).running_var.tolist()
            [4.0]
        """
        check_one_of("variance", variance, VARIANCES)
        check_integer("values_per_channel", values_per_channel, 2)
        if variance == self.variance:
            return self
        factor = values_per_channel / (values_per_channel - 1)
        factor = factor if variance == "unbiased" else 1 / factor
        start = self._share_of_the_start() * convention(self.framework).start
        running_var = (start + (self.running_var.astype(np.float64) - start) * factor).astype(self.running_var.dtype)
        note = (
            f"running_var was converted from {self.variance} to {variance} for {values_per_channel} values per channel"
        )
        if self.count is None:
            note += "; nothing in it was taken to be left of its initial value, because no count of batches is known"
        return replace(self, running_var=running_var, variance=variance, notes=(*self.notes, note))

    def _share_of_the_start(self) -> float:
        """Return the weight that the initial variance still has in the running one; 0 if the count is not known."""
        if self.count is None:
            return 0.0
        if self.momentum is None:
            return float(self.count == 0)
        return (1 - self.momentum) ** self.count


def numbers(name: str, value: Any) -> np.ndarray:
    """Return an array of floating-point numbers from an array, a tensor or a list; a list becomes float32.

    Raises:
        TypeError: if it is none of these.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if "bfloat16" in str(value.dtype) else value
    try:
        found = np.asarray(value)
    except (TypeError, ValueError):
        found = np.empty(0, object)
    if found.dtype.name == "bfloat16":
        found = found.astype(np.float32)
    if found.dtype.kind not in "fiu" or found.size == 0:
        raise TypeError(f"{name} must be an array of real numbers, got {shown(value)}")
    return np.array(found, found.dtype if found.dtype.kind == "f" and hasattr(value, "dtype") else np.float32)
