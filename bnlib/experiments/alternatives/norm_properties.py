"""What each normalisation keeps and what it breaks, measured on one layer with its norm, for vectors and for images.

The layer has no bias to begin with, is trained for some steps, and is looked at in train mode. A change of the layer or
of the input that leaves the output as it was is an invariance. Where a norm divides by running averages these must
follow first, so each invariance is measured twice: at once, and after ``FOLLOWED`` passes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from bnlib import BatchRenorm
from bnlib.norm.registry import NORMS, Norm
from bnlib.probes import batch_dependence, relative_difference, train_eval_difference

FAN_IN, CHANNELS, SAMPLES, SIDE = 6, 8, 16, 4
KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "vectors": (lambda: nn.Linear(FAN_IN, CHANNELS), (FAN_IN,)),
    "images": (lambda: nn.Conv2d(FAN_IN, CHANNELS, 1), (FAN_IN, SIDE, SIDE)),
}
FACTOR, FOLLOWED = 3.0, 300
_CORRECTS = Norm(
    "batch_renorm, corrects", "Batch Renorm, corrects", partial(BatchRenorm, momentum=0.1, r_max=3.0, d_max=5.0)
)
LAYERS = {
    norm.name: norm
    for each in NORMS.values()
    for norm in ((each, _CORRECTS) if each.name == "batch_renorm" else (each,))
}
"""The registry, and Batch Renorm as ``bnlib.experiments.alternatives`` has it: in that of its paper the first 5000
steps are BN's."""
KEPT = 0.01
"""A change below it is one of rounding, of eps or of averages that have nearly followed; broken contracts are above."""


@dataclass(frozen=True)
class Kept:
    """What was measured of one norm on one kind of input; changes are relative, 0 for a contract or invariance kept.

    Attributes:
        company: ``probes.batch_dependence``.
        gradient: change of the gradient at one input, of a loss that is a mean, when the other samples and their
            losses are others.
        mode: ``probes.train_eval_difference``.
        all_weights, one_row, one_bias: change of the output, at once and after the averages have followed, when all
            weights or those into one channel are multiplied by ``FACTOR``, or when one channel gets a bias; nan where
            there is no bias.
        contrast: change of a sample's output when it is multiplied by ``FACTOR``.
        one_sample: size of the gradient at the weights from a batch of one sample, over that from ``SAMPLES``; nan
            where the layer refuses.
        parameters: numbers learned besides the plain layer's, a channel.
        state: numbers of buffers kept, a channel.
    """

    company: float
    gradient: float
    mode: float
    all_weights: tuple[float, float]
    one_row: tuple[float, float]
    one_bias: tuple[float, float]
    contrast: float
    one_sample: float
    parameters: float
    state: float


def measure(name: str, kind: str, seed: int = 0) -> Kept:
    """Measure the norm ``name`` of ``LAYERS`` on ``"vectors"`` or ``"images"``, in float64.

    Raises:
        TypeError: the norm is not for this kind of layer.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        make, shape = KINDS[kind]
        plain = make().double()
        model = _trained(LAYERS[name], copy.deepcopy(plain), shape)
        x = 1 + torch.randn(SAMPLES, *shape, dtype=torch.float64)
    louder, others = x.clone(), 2 * x.flip(0)
    louder[0] *= FACTOR
    others[0] = x[0]
    has_bias = _first(model).bias is not None
    return Kept(
        batch_dependence(model, x),
        relative_difference(_gradient(model, x), _gradient(model, others)),
        train_eval_difference(model, x),
        _change(model, x, lambda layer: _weight(layer).mul_(FACTOR)),
        _change(model, x, lambda layer: _weight(layer)[0].mul_(FACTOR)),
        _change(model, x, lambda layer: layer.bias[0].add_(FACTOR)) if has_bias else (float("nan"),) * 2,
        relative_difference(*(_outputs(model, each)[0] for each in (x, louder))),
        _from_one(model, x),
        (_numbers(model.parameters()) - _numbers(plain.parameters())) / CHANNELS,
        _numbers(each for each in model.buffers() if each.dim()) / CHANNELS,
    )


def table() -> dict[tuple[str, str], Kept]:
    """All norms on all kinds of input that they are for."""
    made = {kind: make() for kind, (make, _) in KINDS.items()}
    return {
        (name, kind): measure(name, kind)
        for name, norm in LAYERS.items()
        for kind in KINDS
        if isinstance(made[kind], norm.takes)
    }


PROMISES = {
    "company": "company",
    "gradient": "gradient",
    "mode": "mode",
    "weights": "all_weights",
    "row": "one_row",
    "bias": "one_bias",
    "loudness": "contrast",
    "from one": "one_sample",
}
"""Names of what is kept or not, and the attributes of ``Kept`` that say so."""


def verdicts(found: Kept) -> dict[str, str]:
    """For each of ``PROMISES`` "yes" or "no"; "later" if only once averages have followed, "-" if there is none."""
    return {
        promise: ("yes" if found.one_sample > 1e-6 else "no") if promise == "from one" else _verdict(found, attribute)
        for promise, attribute in PROMISES.items()
    }


def _verdict(found: Kept, attribute: str) -> str:
    value = getattr(found, attribute)
    at_once, later = value if isinstance(value, tuple) else (value, value)
    if math.isnan(at_once):
        return "-"
    return "yes" if at_once < KEPT else "later" if later < KEPT else "no"


def _trained(norm: Norm, layer: nn.Module, shape: tuple[int, ...], steps: int = 20) -> nn.Module:
    nn.init.zeros_(layer.bias)
    model = norm.apply(layer).double()
    learned = [each for name, each in model.named_parameters() if each is not _first(model).bias]
    optimiser = torch.optim.SGD(learned, lr=0.05)
    for _ in range(steps):
        optimiser.zero_grad()
        y = model(1 + torch.randn(SAMPLES, *shape, dtype=torch.float64))
        (y.sin() + 0.1 * y.square()).mean().backward()
        optimiser.step()
    return model


def _first(model: nn.Module) -> nn.Module:
    """The layer itself, without the norm that may follow."""
    return model[0] if isinstance(model, nn.Sequential) else model


def _weight(layer: nn.Module) -> Tensor:
    """What is learned as weights: before a parametrisation, and of weight norm the direction."""
    return max(layer.parameters(), key=torch.numel)


def _change(model: nn.Module, x: Tensor, change: Callable[[nn.Module], object]) -> tuple[float, float]:
    """Change of the output, at once and after ``FOLLOWED`` passes with the changed layer."""

    def outputs(passes: int) -> list[Tensor]:
        found = []
        for changed in (False, True):
            twin = copy.deepcopy(model).train()
            with torch.no_grad():
                if changed:
                    change(_first(twin))
                for _ in range(passes):
                    twin(x)
                found.append(twin(x))
        return found

    at_once = relative_difference(*outputs(0))
    if at_once < KEPT or not any(True for _ in model.buffers()):
        return at_once, at_once
    return at_once, relative_difference(*outputs(FOLLOWED))


def _outputs(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return copy.deepcopy(model).train()(x)


def _gradient(model: nn.Module, x: Tensor) -> Tensor:
    """At the first sample, of a loss of which each sample has its own part."""
    x = x.clone().requires_grad_()
    copy.deepcopy(model).train()(x).sin().mean().backward()
    return x.grad[0]


def _from_one(model: nn.Module, x: Tensor) -> float:
    sizes = []
    for inputs in (x[:1], x):
        twin = copy.deepcopy(model).train()
        for parameter in twin.parameters():
            parameter.grad = None
        try:
            twin(inputs).sin().mean().backward()
        except ValueError:
            return float("nan")
        sizes.append(_weight(_first(twin)).grad.norm())
    return (sizes[0] / sizes[1]).item()


def _numbers(tensors) -> int:
    return sum(each.numel() for each in tensors)
