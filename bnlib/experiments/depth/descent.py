"""Train stacks of up to 100 layers by full-batch gradient descent; test what makes the loss jump, and what helps."""

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

from bnlib import BatchNorm, tables
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import SkipConnection, deep_stack, residual_stack

CHARACTERS, WIDTH, STEPS = 50, 63, 60
DEPTHS = (5, 10, 20, 40, 100)
LEARNING_RATES = (1e-4, 1e-3, 1e-2, 0.1, 0.4, 10.0)
SEEDS = {"quick": range(3), "paper": range(20)}
DIVERGED = 1e6
"""A run whose loss (nats) exceeds this has diverged, even if a later loss is smaller."""


def batch_norm_with(value: float, shift: float = 0.0) -> Callable[[int], nn.Module]:
    """Return a factory of BN layers with other initial gammas and betas."""
    return partial(_batch_norm, value, shift)


def _batch_norm(value: float, shift: float, num_features: int) -> nn.Module:
    layer = BatchNorm(num_features)
    with torch.no_grad():
        layer.weight.fill_(value)
        layer.bias.fill_(shift)
    return layer


def _residual_with_gamma(value: float, **sizes) -> nn.Module:
    """Build the stack with skip connections, with another initial gamma in each residual branch."""
    model = residual_stack(norm=BatchNorm, **sizes)
    for block in model:
        if isinstance(block, SkipConnection):
            nn.init.constant_(block.branch[1].weight, value)
    return model


_STACK = partial(deep_stack, norm=BatchNorm)


@dataclass(frozen=True)
class Variant:
    """How a stack differs from the baseline: BN and ReLU, trained in float64.

    Attributes:
        build: builds the network from ``depth``, ``width`` and ``seed``.
        dtype: dtype of weights and samples.
        fix_weight_norms: rescale the rows of the hidden weights to their initial norms after each step.
        warm_up: number of steps over which the learning rate rises linearly to its value.
        characters: number of characters, all of which are in the one batch.
        clip: takes parameters and gradients and returns the gradients of the step.
    """

    build: Callable[..., nn.Module] = _STACK
    dtype: torch.dtype = torch.float64
    fix_weight_norms: bool = False
    warm_up: int = 0
    characters: int = CHARACTERS
    clip: Callable[[Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]] | None = None


VARIANTS: dict[str, Variant] = {
    "batch norm": Variant(),
    "without normalisation": Variant(deep_stack),
    "without normalisation, He init": Variant(partial(deep_stack, init=nn.init.kaiming_normal_)),
    "float32": Variant(dtype=torch.float32),
    "eps 0.1": Variant(partial(deep_stack, norm=partial(BatchNorm, eps=0.1))),
    "eps 1": Variant(partial(deep_stack, norm=partial(BatchNorm, eps=1.0))),
    "weight norms fixed": Variant(fix_weight_norms=True),
    "tanh": Variant(partial(deep_stack, norm=BatchNorm, activation=nn.Tanh)),
    "linear": Variant(partial(deep_stack, norm=BatchNorm, activation=nn.Identity)),
    "warm-up": Variant(warm_up=STEPS // 2),
    "gamma 0.1": Variant(partial(deep_stack, norm=batch_norm_with(0.1))),
    "tanh, gamma 0.1": Variant(partial(deep_stack, norm=batch_norm_with(0.1), activation=nn.Tanh)),
    "beta 3": Variant(partial(deep_stack, norm=batch_norm_with(1.0, 3.0))),
    "residual": Variant(partial(residual_stack, norm=BatchNorm)),
    "residual, gamma 0.1": Variant(partial(_residual_with_gamma, 0.1)),
    "residual, gamma 0": Variant(partial(_residual_with_gamma, 0.0)),
    "layer norm": Variant(partial(deep_stack, norm="layer_norm")),
}
LABELS = {
    "residual": "skip connections",
    "residual, gamma 0.1": "skip connections, gamma 0.1",
    "residual, gamma 0": "skip connections, gamma 0",
}
"""Names of variants in tables and sliders, where they differ from the keys."""

COMPARED = (1e-4, 0.4)
"""Learning rates of the variants, which are trained with 100 layers only."""


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return the stack with and without BN at each depth and learning rate, and the other variants at 100 layers."""
    grid = itertools.product(("batch norm", "without normalisation"), DEPTHS, LEARNING_RATES)
    names = [name for name in VARIANTS if name not in ("batch norm", "without normalisation")]
    others = itertools.product(names, (100,), COMPARED)
    return {cell: SEEDS[scale] for cell in (*grid, *others)}


def sentence(dtype: torch.dtype = torch.float64, characters: int = CHARACTERS) -> tuple[Tensor, Tensor]:
    """Return all characters, one-hot, and the index of the character that follows each; the first follows the last."""
    return torch.eye(characters, dtype=dtype), (torch.arange(characters) + 1) % characters


def descend(variant: str | Variant, depth: int, lr: float, seed: int, device: str = "cpu") -> Iterator[float]:
    """Yield the losses (nats) of full-batch gradient descent before the first step and after each step."""
    chosen = VARIANTS[variant] if isinstance(variant, str) else variant
    x, y = (each.to(device) for each in sentence(chosen.dtype, chosen.characters))
    sizes = {"in_features": chosen.characters, "num_classes": chosen.characters}
    model = chosen.build(depth=depth, width=WIDTH, seed=seed, **sizes).to(device, chosen.dtype)
    hidden = [each.weight for each in model.modules() if isinstance(each, nn.Linear)][:-1]
    lengths = [weight.detach().norm(dim=1, keepdim=True) for weight in hidden]
    parameters = list(model.parameters())
    for step in itertools.count(1):
        loss = F.cross_entropy(model(x), y)
        yield loss.item()
        gradients = torch.autograd.grad(loss, parameters)
        if chosen.clip is not None:
            gradients = chosen.clip(parameters, gradients)
        rate = lr * min(1.0, step / chosen.warm_up) if chosen.warm_up else lr
        with torch.no_grad():
            torch._foreach_add_(parameters, gradients, alpha=-rate)
            if chosen.fix_weight_norms:
                for weight, length in zip(hidden, lengths, strict=True):
                    weight.mul_(length / weight.norm(dim=1, keepdim=True))


def measure(variant: str | Variant, depth: int, lr: float, *, seed: int, device: str) -> dict[str, Any]:
    """Return ``initial_loss`` and ``loss_changes`` of each step, in nats; nan once the loss is not finite.

    Changes are stored instead of losses because they can be tiny compared with the loss.
    """
    losses = list(itertools.islice(descend(variant, depth, lr, seed, device), STEPS + 1))
    end = next((step for step, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    losses[end:] = [math.nan] * (len(losses) - end)
    return {"initial_loss": losses[0], "loss_changes": np.diff(losses)}


EXPERIMENT = Measurement(
    name="depth.descent",
    question="What makes the loss of full-batch descent on 100 layers with BN jump, and what helps?",
    source="Kari, a question on Stack Exchange, March 2018",
    axes=("variant", "depth", "lr"),
    cells=cells,
    measure=measure,
)


@dataclass(frozen=True)
class Curves:
    """Losses of several runs, shape (runs, steps + 1).

    ``jitter``, ``progress`` and ``roughness`` have shape (runs,) and are nan for a run that diverged.
    """

    losses: np.ndarray

    @property
    def jitter(self) -> np.ndarray:
        """Mean |change of the loss| per step over the last half of the steps, in nats."""
        return np.abs(np.diff(self._last_half)).mean(1)

    @property
    def progress(self) -> np.ndarray:
        """Mean decrease of the loss per step over the last half of the steps, in nats."""
        return (self._last_half[:, 0] - self._last_half[:, -1]) / (self._last_half.shape[1] - 1)

    @property
    def roughness(self) -> np.ndarray:
        """Sum of |change of the loss| over all steps / |total change|; 1 for a loss that only decreases."""
        return np.abs(np.diff(self.losses)).sum(1) / np.abs(self.losses[:, -1] - self.losses[:, 0])

    @property
    def _last_half(self) -> np.ndarray:
        return self.losses[:, (self.losses.shape[1] - 1) // 2 :]


def curves(initial_loss: np.ndarray, loss_changes: np.ndarray) -> Curves:
    """Add up initial losses (runs,) and changes (runs, steps) to losses.

    A run has diverged, and is nan from there on, once its loss is above ``DIVERGED``: the changes of so large a loss,
    which are rounded, do not add up to a small one.
    """
    first = initial_loss[:, None]
    losses = np.concatenate([first, first + np.cumsum(loss_changes, 1)], 1)
    diverged = np.maximum.accumulate(~(losses <= DIVERGED), 1)
    return Curves(np.where(diverged, np.nan, losses))


@cache
def load() -> dict[tuple, Curves]:
    """Load the committed result."""
    return {cell: curves(row["initial_loss"], row["loss_changes"]) for cell, row in EXPERIMENT.load("quick").items()}


def lookup(depth: int, lr: float) -> dict[str, Curves]:
    """Return the curves of the stack with BN and without."""
    return {name: load()[name, depth, lr] for name in ("batch norm", "without normalisation")}


_live_seed = itertools.count(100)


def train(depth: int, lr: float) -> Iterator[tuple[int, int, Mapping[str, Curves]]]:
    """Train both now, with a new seed in each call; yield steps done, total steps and the curves so far."""
    yield from live(lookup(depth, lr), depth, lr)


def live(
    shown: Mapping[str, Curves], depth: int, lr: float, variants: Mapping[str, Variant] = VARIANTS
) -> Iterator[tuple[int, int, Mapping[str, Curves]]]:
    """Train each of the variants that are shown now, with a new seed in each call; yields as ``train`` does."""
    seed = next(_live_seed)
    runs = {name: descend(variants[name], depth, lr, seed) for name in shown}
    losses: dict[str, list[float]] = {f"{name}, your run": [] for name in runs}
    for step in range(STEPS + 1):
        for name, run in runs.items():
            losses[f"{name}, your run"].append(next(run))
        if step % 5 == 0:
            yield step, STEPS, {**shown} | {name: Curves(np.array([values])) for name, values in losses.items()}


def median(values: np.ndarray) -> float:
    """Return the median over seeds; a seed that diverged (NaN) counts as infinite."""
    return float(np.median(np.nan_to_num(values, nan=np.inf, posinf=np.inf)))


def variant_rows() -> list[dict]:
    """Return table rows, one per variant of 100 layers: medians of the first loss, jitter, roughness and final loss."""
    measures = {
        "jitter (nats)": lambda run: tables.significant(median(run.jitter)),
        "roughness": lambda run: tables.significant(median(run.roughness), 3),
        "final loss (nats)": lambda run: median(run.losses[:, -1]),
    }
    return [
        {
            "variant": LABELS.get(name, name),
            "loss before training (nats)": median(load()[name, 100, COMPARED[0]].losses[:, 0]),
        }
        | {
            (f"learning rate {lr:g}", header): measure(load()[name, 100, lr])
            for lr in COMPARED
            for header, measure in measures.items()
        }
        for name in VARIANTS
    ]
