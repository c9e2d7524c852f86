"""Find by perturbation which values a norm couples, in the forward and in the backward pass.

Forward: perturb each input of the norm; does the first output change? Backward: perturb the gradient at the first
output; at which inputs does the gradient change? In train mode, float64.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from bnlib.experiments.alternatives.norm_properties import LAYERS

CHANNELS, INPUTS, SIDE = 8, 5, 2
BATCH_SIZES = (1, 3)
KINDS = ("vectors", "images")
NORMS = {
    "batch norm": "batch_norm",
    "Full Norm": "full_norm",
    "Batch Renorm": "batch_renorm_with_correction",
    "layer norm": "layer_norm",
    "group norm": "group_norm",
    "instance norm": "instance_norm",
    "weight norm": "weight_norm",
    "weight standardisation + GN": "weight_standardisation",
    "cosine normalisation": "cosine",
}


@dataclass(frozen=True)
class NormalisationGroup:
    """What the first value (first sample, channel and position) is normalised together with.

    Attributes:
        forward: which inputs of the norm change the first output, (batch size, channels, positions).
        backward: at which inputs the gradient depends on the gradient at the first output, of the same shape.
        weights: which learned weights change other weights of the first channel, (channels, inputs); all False if
            weights are not normalised.
        past_forward, past_backward: whether averages over earlier batches have an influence.
    """

    forward: np.ndarray
    backward: np.ndarray
    weights: np.ndarray
    past_forward: bool
    past_backward: bool


@cache
def lookup(norm: str, kind: str, batch_size: int) -> NormalisationGroup | None:
    """Return the groups of a norm of ``NORMS`` for ``"vectors"`` or ``"images"``; None if it does not accept them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)  # values for which Batch Renorm clips nothing; where it clips, it does what BN does
        layer = nn.Linear(INPUTS, CHANNELS) if kind == "vectors" else nn.Conv2d(INPUTS, CHANNELS, 1)
        entry = LAYERS[NORMS[norm]]
        if not isinstance(layer, entry.layer_types):
            return None
        model = entry.apply(layer).double()
        behind = model[1] if isinstance(model, nn.Sequential) else nn.Identity()
        shape = (CHANNELS,) if kind == "vectors" else (CHANNELS, SIDE, SIDE)
        for _ in range(50):  # averages that are not those at the start
            y = behind(torch.randn(16, *shape, dtype=torch.float64, requires_grad=True))
            y.sin().mean().backward()
        x = torch.randn(batch_size, *shape, dtype=torch.float64)
    back = _gradient(behind, x)
    return NormalisationGroup(
        _changed_by_perturbation(behind, x).numpy().reshape(batch_size, CHANNELS, -1),
        _differs(back, _gradient(behind, x, first=1.5)).numpy().reshape(batch_size, CHANNELS, -1),
        _coupled_weights(model[0] if isinstance(model, nn.Sequential) else model, norm),
        bool(_differs(_output(behind, x), _output(_with_other_average(behind, "running_mean"), x)).any()),
        bool(_differs(back, _gradient(_with_other_average(behind, "running_grad_bias"), x)).any()),
    )


def sizes(norm: str, batch_size: int, kind: str = "vectors") -> tuple[int, int]:
    """Return on how many values one output depends, and on how many output gradients one input gradient depends.

    Raises:
        ValueError: the norm does not accept this kind of input.
    """
    found = lookup(norm, kind, batch_size)
    if found is None:
        raise ValueError(f"kind must be one that {norm} accepts, got {kind!r}; use 'images'")
    return int(found.forward.sum()), int(found.backward.sum())


def _output(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return copy.deepcopy(layer).train()(x)


def _differs(first: Tensor, second: Tensor) -> Tensor:
    return (first - second).abs() > 1e-9


def _changed_by_perturbation(layer: nn.Module, x: Tensor) -> Tensor:
    before, found = _output(layer, x).flatten()[0], torch.zeros(x.numel(), dtype=torch.bool)
    for place in range(x.numel()):
        moved = x.clone()
        moved.view(-1)[place] += 1e-3
        found[place] = _differs(before, _output(layer, moved).flatten()[0])
    return found


def _gradient(layer: nn.Module, x: Tensor, first: float = 1.0) -> Tensor:
    """Return the gradient at the inputs for a gradient of 1 at each output and ``first`` at the first."""
    x = x.clone().requires_grad_()
    arriving = torch.ones_like(x)
    arriving.view(-1)[0] = first
    copy.deepcopy(layer).train()(x).backward(arriving)
    return x.grad


def _with_other_average(layer: nn.Module, name: str) -> nn.Module:
    twin = copy.deepcopy(layer)
    if getattr(twin, name, None) is not None:
        getattr(twin, name).add_(0.1)
    return twin


def _coupled_weights(layer: nn.Module, norm: str) -> np.ndarray:
    """Tell which learned weights change another effective weight of the first channel."""
    found = np.zeros((CHANNELS, INPUTS), dtype=bool)
    if norm == "cosine normalisation":
        found[0] = True  # divided by its length in the forward pass
    if not hasattr(layer, "parametrizations"):
        return found
    learned = max(layer.parameters(), key=torch.numel)
    before = layer.weight.detach().clone().flatten(1)
    for channel in range(CHANNELS):
        for place in range(INPUTS):
            with torch.no_grad():
                learned[channel, place] += 1e-3
                changed = _differs(before, layer.weight.detach().flatten(1))[0]
                learned[channel, place] -= 1e-3
            changed[place] &= channel > 0
            found[channel, place] = bool(changed.any())
    return found
