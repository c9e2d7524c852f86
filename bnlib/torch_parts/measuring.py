"""What every measurement needs: a small network whose statistics are known, and what a measurement returns."""

from __future__ import annotations

import copy
import logging
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Numbers = dict[str, float | int | str]
"""Numbers by what they are; a text stands for an error or a name."""

BATCH = torch.tensor([[9.0], [11.0], [9.0], [11.0]])
"""One channel with the mean 10 and the variance 1, or 4/3 unbiased: the batch of Appendix C."""


@dataclass(frozen=True)
class Measured:
    """What a part of PyTorch does to the statistics.

    Attributes:
        expected: the numbers of a reader who takes the part at its word, such as those of plain training.
        found: the numbers of the part.
        remedied: the numbers of the part with the remedy; None if none is needed.
    """

    expected: Numbers
    found: Numbers
    remedied: Numbers | None = None


@dataclass(frozen=True)
class Part:
    """A part of PyTorch in one situation: the measurement, and what a reader should know.

    Attributes:
        name: what PyTorch calls the part.
        situation: how it is used.
        measure: measures it.
        happens: what happens to the statistics, in words.
        tell: how to tell that it happened.
        remedy: what to do.
        needs: modules without which it cannot be measured.
        tolerance: relative difference below which numbers count as equal.
    """

    name: str
    situation: str
    measure: Callable[[], Measured]
    happens: str
    tell: str
    remedy: str
    needs: tuple[str, ...] = ()
    tolerance: float = 1e-3

    @property
    def title(self) -> str:
        """Name and situation, by which the committed result is found."""
        return f"`{self.name}`: {self.situation}"


def network(norm: nn.Module | None = None) -> nn.Sequential:
    """Return a linear layer that is the identity, and a batch norm of one channel."""
    linear = nn.Linear(1, 1)
    with torch.no_grad():
        linear.weight.fill_(1)
        linear.bias.zero_()
    return nn.Sequential(linear, norm or nn.BatchNorm1d(1))


def statistics(model: nn.Module) -> Numbers:
    """Return the counter and the running statistics of the first batch norm of a model."""
    layer = next(each for each in model.modules() if getattr(each, "running_mean", None) is not None)
    return {
        "batches": int(layer.num_batches_tracked),
        "running mean": layer.running_mean.float().item(),
        "running variance": layer.running_var.float().item(),
    }


def train(model: nn.Module, call: Callable | None = None, batches: Iterable[Tensor] = (BATCH,) * 3) -> Numbers:
    """Run a forward and a backward pass for each batch, and return the statistics; the weights stay."""
    for x in batches:
        (call or model)(x.clone().requires_grad_()).square().sum().backward()
    return statistics(model)


def trained() -> nn.Sequential:
    """Return the network after three batches: its running mean is 2.71."""
    model = network()
    train(model)
    return model


def output(model: Callable[[Tensor], Tensor], x: Tensor = BATCH) -> Numbers:
    """Return the output for the value 9, the first of the batch."""
    return {"output for 9": model(x).flatten()[0].item()}


def copied_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the buffers of a model."""
    return {name: value.clone() for name, value in copy.copy(model).named_buffers()}


def message(error: Exception) -> str:
    """Return kind and beginning of an error, at most its first sentence and a line of text."""
    text = re.sub(r"\s+", " ", str(error)).strip()
    first = re.split(r"(?<=[a-z)])[.!;] |\. ?If ", text, maxsplit=1)[0]
    return textwrap.shorten(f"{type(error).__name__}: {first.rstrip('.')}", 130, placeholder=" …")


def attempt(function: Callable[[], Numbers]) -> Numbers:
    """Return the numbers of a function, or its error under the name "error"."""
    try:
        return function()
    except Exception as error:  # it is what was measured
        return {"error": message(error)}


@contextmanager
def without_warnings() -> Iterator[None]:
    """Hide what PyTorch says about its own deprecated functions, and restore its random numbers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            yield
    finally:
        logging.disable(before)


def equal(found: Numbers, expected: Numbers, tolerance: float) -> bool:
    """Return whether numbers are the same but for the tolerance, and texts up to a colon, behind the kind of error."""
    if list(found) != list(expected):
        return False
    return all(_same(*pair, tolerance) for pair in zip(found.values(), expected.values(), strict=True))


def _same(first: float | str, second: float | str, tolerance: float) -> bool:
    if isinstance(first, str) or isinstance(second, str):
        return str(first).partition(":")[0] == str(second).partition(":")[0]
    return abs(first - second) <= tolerance * max(1.0, abs(first), abs(second))
