"""Try suspects and cures of the noise of 100 layers with BN that ``descent`` leaves out, the cures at several rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import BatchNorm, BatchRenorm
from bnlib.experiments.depth import descent
from bnlib.experiments.depth.descent import Variant, batch_norm_with, sentence
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.gradient_clipping import clipped
from bnlib.models import SkipConnection, deep_stack, residual_stack
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


def _post_activation(gamma: float, **sizes) -> nn.Module:
    """Build the stack of relu(x + norm(linear(x))), with an initial gamma in each residual branch."""
    model = _residual("post-activation", **sizes)
    for block in model.modules():
        if isinstance(block, SkipConnection):
            nn.init.constant_(block.branch[1].weight, gamma)
    return model


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
    "residual, gamma 0.1": descent.VARIANTS["residual, gamma 0.1"],
    "residual, gamma 0": descent.VARIANTS["residual, gamma 0"],
    "residual, norm before the head": _blocks("activation in the branch", True),
    "post-activation, gamma 1": Variant(partial(_post_activation, 1.0)),
    "post-activation, gamma 0": Variant(partial(_post_activation, 0.0)),
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
    "post-activation, gamma 1": (SMALL_RATE, 0.0064, 0.025, 0.1, 0.4),
    "post-activation, gamma 0": (SMALL_RATE, 0.1, 0.4, 1.6, 6.4),
    "pre-activation": (SMALL_RATE, 0.4, 1.6, 6.4, 25.6),
    "residual, gamma 0.1": (0.025, 0.1, 1.6),
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


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")
