"""Measure the invariances and promises of each norm on one layer, for vectors and for images.

The layer starts with a bias of zero, is trained for a few steps, and is measured in train mode. A norm is invariant to
a change of the layer or the input if its output stays the same. A norm that divides by running averages becomes
invariant only once they have adapted, so each invariance is measured immediately and after ``ADAPTATION_PASSES``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor, nn

from bnlib import BatchRenorm, CrossIterationBatchNorm, OnlineNorm
from bnlib.norm.registry import NORMS, Norm
from bnlib.probes import batch_dependence, relative_difference, train_eval_difference

FAN_IN, CHANNELS, SAMPLES, SIDE = 6, 8, 16, 4
KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "vectors": (lambda: nn.Linear(FAN_IN, CHANNELS), (FAN_IN,)),
    "images": (lambda: nn.Conv2d(FAN_IN, CHANNELS, 1), (FAN_IN, SIDE, SIDE)),
}
FACTOR, ADAPTATION_PASSES = 3.0, 300
_CORRECTING_RENORM = Norm(
    "batch_renorm_with_correction",
    "Batch Renorm with correction",
    partial(BatchRenorm, momentum=0.1, r_max=3.0, d_max=5.0),
)
_FAST_ONLINE_NORM = replace(NORMS["online_norm"], make_layer=partial(OnlineNorm, alpha_forward=0.99))
LAYERS = {
    norm.name: norm
    for each in (NORMS | {"online_norm": _FAST_ONLINE_NORM}).values()
    for norm in ((each, _CORRECTING_RENORM) if each.name == "batch_renorm" else (each,))
}
"""The registry, and Batch Renorm as in ``batch_sizes``: with the paper's schedule its first 5000 steps equal BN.

The averages of Online Norm move as fast as those of BN: by 1 % per sample, which is 15 % per batch.
"""
TOLERANCE = 0.01
"""Smaller relative changes come from rounding, eps or averages that have nearly adapted; broken promises are above."""


@dataclass(frozen=True)
class NormProperties:
    """Measured properties of one norm on one kind of input; relative changes are 0 if a promise or invariance holds.

    Attributes:
        batch_dependence: ``probes.batch_dependence``.
        gradient_dependence: change of the gradient at one input, for a mean loss, when the other samples change.
        train_eval_difference: ``probes.train_eval_difference``.
        weight_scale, channel_scale, channel_bias: change of the output, immediately and once averages have adapted,
            when all weights or those of one channel are multiplied by ``FACTOR``, or one channel gets a bias; nan
            without a bias.
        input_scale: change of a sample's output when the sample is multiplied by ``FACTOR``.
        single_sample_gradient: norm of the gradient at the weights from a batch of one sample, over that from
            ``SAMPLES``; nan if the layer refuses one sample.
        parameters_per_channel: learned parameters besides those of the plain layer.
        buffers_per_channel: numbers stored in buffers.
    """

    batch_dependence: float
    gradient_dependence: float
    train_eval_difference: float
    weight_scale: tuple[float, float]
    channel_scale: tuple[float, float]
    channel_bias: tuple[float, float]
    input_scale: float
    single_sample_gradient: float
    parameters_per_channel: float
    buffers_per_channel: float


def measure(name: str, kind: str, seed: int = 0) -> NormProperties:
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
    scaled, others = x.clone(), 2 * x.flip(0)
    scaled[0] *= FACTOR
    others[-1] = x[-1]  # the last one, because Online Norm takes the samples one after another
    has_bias = _first(model).bias is not None
    return NormProperties(
        batch_dependence(model, x),
        relative_difference(_gradient(model, x), _gradient(model, others)),
        train_eval_difference(model, x),
        _change(model, x, lambda layer: _weight(layer).mul_(FACTOR)),
        _change(model, x, lambda layer: _weight(layer)[0].mul_(FACTOR)),
        _change(model, x, lambda layer: layer.bias[0].add_(FACTOR)) if has_bias else (float("nan"),) * 2,
        relative_difference(*(_outputs(model, each)[0] for each in (x, scaled))),
        _single_sample_gradient(model, x),
        (_count_numbers(model.parameters()) - _count_numbers(plain.parameters())) / CHANNELS,
        _count_numbers(each for each in model.buffers() if each.dim()) / CHANNELS,
    )


@cache
def table() -> dict[tuple[str, str], NormProperties]:
    """Measure all norms on all kinds of input that they accept."""
    made = {kind: make() for kind, (make, _) in KINDS.items()}
    return {
        (name, kind): measure(name, kind)
        for name, norm in LAYERS.items()
        for kind in KINDS
        if isinstance(made[kind], norm.layer_types)
    }


def folds_at_inference(name: str, kind: str, seed: int = 0) -> bool:
    """Tell whether a layer with its norm is an affine map in eval mode; its weights can then absorb the norm.

    An affine map takes the midpoint of two inputs to the midpoint of their outputs.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        make, shape = KINDS[kind]
        model = _trained(LAYERS[name], make().double(), shape).eval()
        first, second = torch.randn(2, SAMPLES, *shape, dtype=torch.float64)
    with torch.no_grad():
        middle, one, other = (model(x) for x in ((first + second) / 2, first, second))
    return relative_difference((one + other) / 2, middle) < 1e-9


def numbers_per_channel_rows() -> list[dict]:
    """Return how many numbers per channel each norm learns and keeps, and whether it ``folds_at_inference``."""
    return [
        {
            "norm": LAYERS[name].title,
            "learned parameters added": round(found.parameters_per_channel),
            "numbers in buffers": round(found.buffers_per_channel),
            "free at inference": folds_at_inference(name, kind),
        }
        for (name, kind), found in table().items()
        if kind == "images" or (name, "images") not in table()
    ]


PROPERTIES = {
    "batch-independent output": "batch_dependence",
    "batch-independent gradient": "gradient_dependence",
    "train = test": "train_eval_difference",
    "weight-scale invariant": "weight_scale",
    "channel-scale invariant": "channel_scale",
    "bias invariant": "channel_bias",
    "input-scale invariant": "input_scale",
    "learns from one sample": "single_sample_gradient",
}
"""Properties by name, and the attributes of ``NormProperties`` that measure them."""


def verdicts(found: NormProperties) -> dict[str, str]:
    """Return "yes" or "no" for each of ``PROPERTIES``; "later" if only adapted averages bring it, "-" if undefined."""
    learns = "yes" if found.single_sample_gradient > 1e-6 else "no"
    by_property = {name: _verdict(found, attribute) for name, attribute in PROPERTIES.items()}
    return by_property | {"learns from one sample": learns}


def _verdict(found: NormProperties, attribute: str) -> str:
    value = getattr(found, attribute)
    immediately, later = value if isinstance(value, tuple) else (value, value)
    if math.isnan(immediately):
        return "-"
    return "yes" if immediately < TOLERANCE else "later" if later < TOLERANCE else "no"


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
    """Return the layer without the norm that may follow or surround it."""
    if isinstance(model, CrossIterationBatchNorm):
        return model.layer
    return model[0] if isinstance(model, nn.Sequential) else model


def _weight(layer: nn.Module) -> Tensor:
    """Return the learned weights, before a parametrisation; for weight norm the direction."""
    return max(layer.parameters(), key=torch.numel)


def _change(model: nn.Module, x: Tensor, change: Callable[[nn.Module], object]) -> tuple[float, float]:
    """Return the change of the output, immediately and after ``ADAPTATION_PASSES`` with the changed layer."""

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

    immediately = relative_difference(*outputs(0))
    if immediately < TOLERANCE or not any(True for _ in model.buffers()):
        return immediately, immediately
    return immediately, relative_difference(*outputs(ADAPTATION_PASSES))


def _outputs(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return copy.deepcopy(model).train()(x)


def _gradient(model: nn.Module, x: Tensor) -> Tensor:
    """Return the gradient at the last sample of a loss that is a mean over samples."""
    x = x.clone().requires_grad_()
    copy.deepcopy(model).train()(x).sin().mean().backward()
    return x.grad[-1]


def _single_sample_gradient(model: nn.Module, x: Tensor) -> float:
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


def _count_numbers(tensors) -> int:
    return sum(each.numel() for each in tensors)
