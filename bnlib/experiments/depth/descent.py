"""Full-batch descent on a stack of up to 100 layers, and what makes it noisy: each cause and remedy by itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import BatchNorm
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import Shortcut, deep_stack, residual_stack

CHARACTERS, WIDTH, STEPS = 50, 63, 60
DEPTHS = (5, 10, 20, 40, 100)
LEARNING_RATES = (1e-4, 1e-3, 1e-2, 0.1, 0.4, 10.0)
SEEDS = {"quick": range(3), "paper": range(20)}


def gamma(value: float, shift: float = 0.0) -> Callable[[int], nn.Module]:
    """A BN layer that starts from other gammas and betas."""
    return partial(_batch_norm, value, shift)


def _batch_norm(value: float, shift: float, num_features: int) -> nn.Module:
    layer = BatchNorm(num_features)
    with torch.no_grad():
        layer.weight.fill_(value)
        layer.bias.fill_(shift)
    return layer


def _branches(value: float, **sizes) -> nn.Module:
    """The stack with shortcuts, with other gammas in its branches; what the shortcuts carry is as it was."""
    model = residual_stack(norm=BatchNorm, **sizes)
    for block in model:
        if isinstance(block, Shortcut):
            nn.init.constant_(block.branch[1].weight, value)
    return model


_STACK = partial(deep_stack, norm=BatchNorm)


@dataclass(frozen=True)
class Variant:
    """What differs from the plain stack with BN, trained in float64.

    Attributes:
        build: makes the network from ``depth``, ``width`` and ``seed``.
        dtype: of weights and samples.
        keep: put the rows of the hidden weights back to their old length after each step.
        warm_up: steps over which the learning rate rises to its value.
    """

    build: Callable[..., nn.Module] = _STACK
    dtype: torch.dtype = torch.float64
    keep: bool = False
    warm_up: int = 0


VARIANTS: dict[str, Variant] = {
    "batch norm": Variant(),
    "no norm": Variant(deep_stack),
    "no norm, He": Variant(partial(deep_stack, init=nn.init.kaiming_normal_)),
    "float32": Variant(dtype=torch.float32),
    "eps 0.1": Variant(partial(deep_stack, norm=partial(BatchNorm, eps=0.1))),
    "eps 1": Variant(partial(deep_stack, norm=partial(BatchNorm, eps=1.0))),
    "lengths kept": Variant(keep=True),
    "tanh": Variant(partial(deep_stack, norm=BatchNorm, activation=nn.Tanh)),
    "linear": Variant(partial(deep_stack, norm=BatchNorm, activation=nn.Identity)),
    "warm-up": Variant(warm_up=STEPS // 2),
    "gamma 0.1": Variant(partial(deep_stack, norm=gamma(0.1))),
    "tanh, gamma 0.1": Variant(partial(deep_stack, norm=gamma(0.1), activation=nn.Tanh)),
    "beta 3": Variant(partial(deep_stack, norm=gamma(1.0, 3.0))),
    "residual": Variant(partial(residual_stack, norm=BatchNorm)),
    "residual, gamma 0.1": Variant(partial(_branches, 0.1)),
    "residual, gamma 0": Variant(partial(_branches, 0.0)),
    "layer norm": Variant(partial(deep_stack, norm="layer_norm")),
}
COMPARED = (1e-4, 0.4)
"""The learning rates of the variants that are trained at 100 layers alone."""


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """The stack with BN and without at each depth and learning rate, and the other variants at 100 layers."""
    grid = itertools.product(("batch norm", "no norm"), DEPTHS, LEARNING_RATES)
    others = itertools.product([name for name in VARIANTS if name not in ("batch norm", "no norm")], (100,), COMPARED)
    return {cell: SEEDS[scale] for cell in (*grid, *others)}


def sentence(dtype: torch.dtype = torch.float64, characters: int = CHARACTERS) -> tuple[Tensor, Tensor]:
    """All different characters, one-hot, each with the one that follows it; the last is followed by the first."""
    return torch.eye(characters, dtype=dtype), (torch.arange(characters) + 1) % characters


def descend(variant: str, depth: int, lr: float, seed: int, device: str = "cpu") -> Iterator[float]:
    """The losses of gradient descent with all characters in each step, before the first step and after each."""
    chosen = VARIANTS[variant]
    x, y = (each.to(device) for each in sentence(chosen.dtype))
    model = chosen.build(depth=depth, width=WIDTH, seed=seed).to(device, chosen.dtype)
    hidden = [each.weight for each in model.modules() if isinstance(each, nn.Linear)][:-1]
    lengths = [weight.detach().norm(dim=1, keepdim=True) for weight in hidden]
    parameters = list(model.parameters())
    for step in itertools.count(1):
        loss = F.cross_entropy(model(x), y)
        yield loss.item()
        gradients = torch.autograd.grad(loss, parameters)
        rate = lr * min(1.0, step / chosen.warm_up) if chosen.warm_up else lr
        with torch.no_grad():
            torch._foreach_add_(parameters, gradients, alpha=-rate)
            if chosen.keep:
                for weight, length in zip(hidden, lengths, strict=True):
                    weight.mul_(length / weight.norm(dim=1, keepdim=True))


def measure(variant: str, depth: int, lr: float, *, seed: int, device: str) -> dict[str, Any]:
    """Returns ``start``, the loss before the first step, and ``change`` in each, nan from where it is not finite.

    Changes are kept and not losses, because they may be small against the loss.
    """
    losses = list(itertools.islice(descend(variant, depth, lr, seed, device), STEPS + 1))
    end = next((step for step, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    losses[end:] = [math.nan] * (len(losses) - end)
    return {"start": losses[0], "change": np.diff(losses)}


EXPERIMENT = Measurement(
    name="depth.descent",
    question="What makes full-batch descent on 100 layers with BN noisy, and what helps?",
    source="Kari, a question on Stack Exchange, March 2018",
    axes=("variant", "depth", "lr"),
    cells=cells,
    measure=measure,
)


@dataclass(frozen=True)
class Curves:
    """Losses of several runs, shape (runs, steps + 1).

    With |change| of a step: ``jitter``, its mean over the last half of the steps; ``progress``, what a step gained on
    average over the same; ``roughness``, the sum of all |change| over what they come to. Shape (runs,) each; nan for a
    run that diverged.
    """

    losses: np.ndarray

    @property
    def jitter(self) -> np.ndarray:
        """Mean |change| of a step, last half, in nats."""
        return np.abs(np.diff(self._late)).mean(1)

    @property
    def progress(self) -> np.ndarray:
        """Mean fall of the loss in a step, last half, in nats."""
        return (self._late[:, 0] - self._late[:, -1]) / (self._late.shape[1] - 1)

    @property
    def roughness(self) -> np.ndarray:
        """Length of the way over the distance, 1 for a loss that only falls; of all steps."""
        return np.abs(np.diff(self.losses)).sum(1) / np.abs(self.losses[:, -1] - self.losses[:, 0])

    @property
    def _late(self) -> np.ndarray:
        return self.losses[:, (self.losses.shape[1] - 1) // 2 :]


def curves(start: np.ndarray, change: np.ndarray) -> Curves:
    """The losses from those before the first step, (runs,), and the changes, (runs, steps)."""
    return Curves(np.concatenate([start[:, None], start[:, None] + np.cumsum(change, 1)], 1))


@cache
def load() -> dict[tuple, Curves]:
    """The committed result."""
    return {cell: curves(row["start"], row["change"]) for cell, row in EXPERIMENT.load("quick").items()}


def lookup(depth: int, lr: float) -> dict[str, Curves]:
    """The stack with BN and without."""
    return {name: load()[name, depth, lr] for name in ("batch norm", "no norm")}


def compare(variant: str, lr: float) -> dict[str, Curves]:
    """A variant beside the plain stack with BN, both of 100 layers."""
    return {name: load()[name, 100, lr] for name in ("batch norm", variant)}


_live_seed = itertools.count(100)


def train(depth: int, lr: float) -> Iterator[tuple[int, int, Mapping[str, Curves]]]:
    """Train both with a seed that no result has used, a new one a call: steps done, steps in all, the curves so far."""
    yield from _live(lookup(depth, lr), depth, lr)


def train_variant(variant: str, lr: float) -> Iterator[tuple[int, int, Mapping[str, Curves]]]:
    """The same for a variant and the plain stack with BN, both of 100 layers."""
    yield from _live(compare(variant, lr), 100, lr)


def _live(shown: dict[str, Curves], depth: int, lr: float) -> Iterator[tuple[int, int, Mapping[str, Curves]]]:
    seed = next(_live_seed)
    runs = {name: descend(name, depth, lr, seed) for name in shown}
    losses: dict[str, list[float]] = {f"{name}, your run": [] for name in runs}
    for step in range(STEPS + 1):
        for name, run in runs.items():
            losses[f"{name}, your run"].append(next(run))
        if step % 5 == 0:
            yield step, STEPS, shown | {name: Curves(np.array([values])) for name, values in losses.items()}
