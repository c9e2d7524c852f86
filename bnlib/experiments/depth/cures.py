"""Try suspects and cures of the noise of 100 layers with BN that ``descent`` leaves out, the cures at several rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import BatchNorm, BatchRenorm
from bnlib.experiments.depth import descent, gradient_growth
from bnlib.experiments.depth.descent import Curves, Variant, batch_norm_with, curves, sentence
from bnlib.experiments.framework.best_rates import BestRate, best_rates
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.gradient_clipping import clipped
from bnlib.models import deep_stack, residual_stack
from bnlib.probes import gradient_norms_by_layer, growth_per_layer

DEPTH = 100
SMALL_RATE = 1e-4
"""The learning rate at which the noise is largest compared with the progress; every arm is tried at it."""

SEEDS = {"quick": range(3), "paper": range(20)}


class VarianceClippedBatchNorm(nn.Module):
    """Batch norm that divides by the root of max(variance of the batch, ``least``); it has no running statistics.

    Arguments:
        num_features: number of channels.
        least: the smallest variance by which it divides.
    """

    def __init__(self, num_features: int, least: float) -> None:
        super().__init__()
        self.least = least
        self.weight, self.bias = nn.Parameter(torch.ones(num_features)), nn.Parameter(torch.zeros(num_features))

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``input``, shape (N, C)."""
        variance, mean = torch.var_mean(input, 0, correction=0)
        return self.weight * (input - mean) / variance.clamp(min=self.least).sqrt() + self.bias


def clip_total_norm(parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
    """Shorten all gradients by one factor so that their total norm is at most 1, as ``clip_grad_norm_`` does."""
    factor = (1 / nn.utils.get_total_norm(gradients)).clamp(max=1.0)
    return [factor * each for each in gradients]


def clip_adaptively(parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
    """Shorten the gradient of each unit to a hundredth of its weights' norm, except in the last layer."""
    pairs = list(zip(parameters, gradients, strict=True))
    return [*[clipped(*pair) for pair in pairs[:-2]], *gradients[-2:]]


def _renorm_from_first_batch(**sizes) -> nn.Module:
    """Build a stack whose running statistics start as those of the first batch, as after a phase of BN."""
    model = deep_stack(norm=partial(BatchRenorm, momentum=1.0, r_max=1.0, d_max=0.0), **sizes).double()
    model(sentence(characters=sizes["in_features"])[0])
    for layer in model:
        if isinstance(layer, BatchRenorm):
            layer.momentum, layer.r_max, layer.d_max = 0.1, 3.0, 5.0
    return model


def _larger_weights(**sizes) -> nn.Module:
    """Build a stack with hidden weights and biases ten times as large."""
    model = deep_stack(norm=BatchNorm, **sizes)
    *hidden, _ = [each for each in model if isinstance(each, nn.Linear)]
    with torch.no_grad():
        for layer in hidden:
            layer.weight.mul_(10)
            layer.bias.mul_(10)
    return model


def _gammas(last: float, others: float, **sizes) -> nn.Module:
    """Build a stack with one gamma in the last norm and another one in all other norms."""
    model = deep_stack(norm=batch_norm_with(others), **sizes)
    nn.init.constant_(model[-3].weight, last)
    return model


def _residual(block: str, norm_before_head: bool = False, **sizes) -> nn.Module:
    return residual_stack(norm=BatchNorm, block=block, norm_before_head=norm_before_head, **sizes)


def _stack(norm: Callable[[int], nn.Module]) -> Variant:
    return Variant(partial(deep_stack, norm=norm))


def _blocks(*settings) -> Variant:
    return Variant(partial(_residual, *settings))


VARIANTS: dict[str, Variant] = {
    "initial weights x 10": Variant(_larger_weights),
    "128 characters": Variant(characters=128),
    "gradient clipping": Variant(clip=clip_total_norm),
    "adaptive gradient clipping": Variant(clip=clip_adaptively),
    "gamma 0.1 in the last norm": Variant(partial(_gammas, 0.1, 1.0)),
    "gamma 0.1 in all norms but the last": Variant(partial(_gammas, 1.0, 0.1)),
    "Batch Renorm": _stack(partial(BatchRenorm, r_max=3.0, d_max=5.0)),
    "Batch Renorm, statistics of the first batch": Variant(_renorm_from_first_batch),
    "variance at least 0.01": _stack(partial(VarianceClippedBatchNorm, least=0.01)),
    "variance at least 0.1": _stack(partial(VarianceClippedBatchNorm, least=0.1)),
    "residual": descent.VARIANTS["residual"],
    "residual, gamma 0": descent.VARIANTS["residual, gamma 0"],
    "residual, norm before the head": _blocks("activation in the branch", True),
    "pre-activation": _blocks("pre-activation"),
}
"""What is tried with 100 layers, in addition to ``descent.VARIANTS``; some of those are here at more learning rates."""

_SUSPECT, _CURE = (SMALL_RATE, 0.4), (SMALL_RATE, 0.1, 0.4, 1.6)
_LOWER = (SMALL_RATE, 0.01, 0.1, 0.4)
RATES: dict[str, tuple[float, ...]] = {
    "initial weights x 10": _SUSPECT,
    "128 characters": _SUSPECT,
    "gradient clipping": _SUSPECT,
    "adaptive gradient clipping": _SUSPECT,
    "gamma 0.1 in the last norm": (SMALL_RATE,),
    "gamma 0.1 in all norms but the last": (SMALL_RATE,),
    "Batch Renorm": _LOWER,
    "Batch Renorm, statistics of the first batch": _LOWER,
    "variance at least 0.01": _SUSPECT,
    "variance at least 0.1": _CURE,
    "residual": (0.0064, 0.025),
    "residual, norm before the head": (SMALL_RATE, 0.4, 1.6, 6.4),
    "pre-activation": (SMALL_RATE, 0.4, 1.6, 6.4),
    "residual, gamma 0": (1.6, 6.4),
}
"""The learning rates of each variant; ``descent`` has 0.0001 and 0.4 for those that it has, too."""


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return each variant at each of its learning rates."""
    return {(name, lr): SEEDS[scale] for name, rates in RATES.items() for lr in rates}


def measure(variant: str, lr: float, *, seed: int, device: str) -> dict[str, Any]:
    """Train 100 layers as ``descent.measure`` does, and measure the growth of the gradient before training.

    Returns:
        ``initial_loss`` and ``loss_changes`` of ``descent.measure``, ``final_loss`` (nats; nan if the run diverged),
        and ``growth``, the factor of the gradient norm from a layer to the one below, without five layers at each end;
        nan where a gradient is 0.
    """
    chosen = VARIANTS[variant]
    found = descent.measure(chosen, DEPTH, lr, seed=seed, device=device)
    final_loss = found["initial_loss"] + found["loss_changes"].sum()
    return found | {"final_loss": final_loss, "growth": _growth(chosen, seed, device)}


def _growth(variant: Variant, seed: int, device: str) -> float:
    x, y = (each.to(device) for each in sentence(variant.dtype, variant.characters))
    sizes = {"in_features": variant.characters, "num_classes": variant.characters}
    model = variant.build(depth=DEPTH, width=descent.WIDTH, seed=seed, **sizes).to(device, variant.dtype)
    layers = gradient_norms_by_layer(model, lambda model: F.cross_entropy(model(x), y))
    norms = [each.gradient_norm.item() for each in layers[5:-6]]
    return growth_per_layer(norms) if min(norms) > 0 else math.nan  # branches with gamma 0 have no gradient at first


EXPERIMENT = Measurement(
    name="depth.cures",
    question="Which changes let 100 layers with BN train, each at its own best learning rate?",
    source="Kari, a question on Stack Exchange, March 2018, and its answers",
    axes=("variant", "lr"),
    cells=cells,
    measure=measure,
)


GROUPS: dict[str, tuple[str, ...]] = {
    "baseline": ("batch norm",),
    "suspects": (
        "float32",
        "eps 0.1",
        "initial weights x 10",
        "weight norms fixed",
        "warm-up",
        "gradient clipping",
        "adaptive gradient clipping",
        "128 characters",
        "gamma 0.1",
        "tanh",
        "Batch Renorm",
        "Batch Renorm, statistics of the first batch",
        "variance at least 0.01",
        "variance at least 0.1",
    ),
    "no growth of the gradient": (
        "linear",
        "beta 3",
        "tanh, gamma 0.1",
        "eps 1",
        "layer norm",
        "without normalisation",
        "without normalisation, He init",
    ),
    "skip connections": (
        "residual",
        "residual, gamma 0.1",
        "residual, gamma 0",
        "residual, norm before the head",
        "pre-activation",
    ),
}
"""The variants of both experiments in the order of the figure."""

LABELS = descent.LABELS | {
    "batch norm": "batch norm and ReLU",
    "linear": "no activation",
    "residual": "skip connections, gamma 1",
    "residual, norm before the head": "skip connections, norm before head",
    "adaptive gradient clipping": "AGC",
    "without normalisation, He init": "without BN, He init",
    "without normalisation": "without BN",
    "pre-activation": "skip connections, pre-activation",
    "Batch Renorm, statistics of the first batch": "Batch Renorm, warm start",
}
"""Names of variants in figures and tables, where they differ from the keys."""


@cache
def runs() -> dict[tuple[str, float], Curves]:
    """Load the committed results of 100 layers, of this experiment and of ``descent``, by variant and learning rate."""
    mine = {cell: curves(row["initial_loss"], row["loss_changes"]) for cell, row in EXPERIMENT.load("quick").items()}
    return {(name, lr): each for (name, depth, lr), each in descent.load().items() if depth == DEPTH} | mine


def best_rate(variant: str) -> BestRate:
    """Return the rate at which the median loss ends lowest, and whether it lies inside those that were tried."""
    ends = {cell: {"loss": each.losses[:, -1]} for cell, each in runs().items() if cell[0] == variant}
    return best_rates(ends, ("variant", "lr"), "loss")[variant,]


@dataclass(frozen=True)
class Outcome:
    """What a variant of 100 layers does in 60 steps.

    Attributes:
        roughness: at a learning rate of 0.0001, one number per seed.
        initial_loss: before training in nats, one number per seed.
        rate: the best of the learning rates that were tried.
        final_loss: at the best rate, in nats, one number per seed.
        roughness_at_rate: at the best rate, one number per seed.
    """

    roughness: np.ndarray
    initial_loss: np.ndarray
    rate: float
    final_loss: np.ndarray
    roughness_at_rate: np.ndarray


def outcome(variant: str) -> Outcome:
    """Return the outcome of a variant of either experiment."""
    rate = best_rate(variant).rate
    small, best = runs()[variant, SMALL_RATE], runs()[variant, rate]
    # The rounded changes do not add up to a tiny loss, so this experiment keeps it.
    row = EXPERIMENT.load("quick").get((variant, rate))
    final_loss = best.losses[:, -1] if row is None else row["final_loss"]
    return Outcome(small.roughness, small.losses[:, 0], rate, final_loss, best.roughness)


def outcomes() -> dict[str, dict[str, Outcome]]:
    """Return the outcomes by group and label, in the order of the figure."""
    return {group: {LABELS.get(name, name): outcome(name) for name in names} for group, names in GROUPS.items()}


def residual_rows() -> list[dict]:
    """Return table rows, one per residual network: losses, and the best learning rate."""
    shown = {LABELS.get(name, name): outcome(name) for name in ("batch norm", *GROUPS["skip connections"])}
    return [
        {
            "100 layers with BN": label,
            "loss before training (nats)": each.initial_loss,
            "best learning rate": f"{each.rate:g}",
            "loss after 60 steps (nats)": each.final_loss,
            "roughness at this rate": each.roughness_at_rate,
        }
        for label, each in shown.items()
    ]


def growth_rows() -> list[dict]:
    """Return table rows of BN, Batch Renorm and clipped variances: growth of the gradient, jitter and final loss."""
    measured = {name: row["growth"] for (name, lr), row in EXPERIMENT.load("quick").items() if lr == SMALL_RATE}
    measured["batch norm"] = gradient_growth.load()["batch norm", descent.CHARACTERS, descent.WIDTH]["growth"][:, 0]
    names = [name for name in GROUPS["suspects"] if name.startswith(("Batch Renorm", "variance"))]
    return [
        {
            "100 layers": LABELS.get(name, name),
            "growth of the gradient norm per layer": measured[name],
            "jitter at 0.0001 (nats)": runs()[name, SMALL_RATE].jitter,
            "roughness at 0.0001": outcome(name).roughness,
            "loss after 60 steps at the best rate (nats)": outcome(name).final_loss,
        }
        for name in ("batch norm", *names)
    ]
