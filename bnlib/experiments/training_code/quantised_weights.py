"""Quantise the weights of trained networks with folded batch norm, with one scale per tensor or one per channel."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from bnlib import datasets
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.training_code.folding import fold
from bnlib.models import small_cnn
from bnlib.models.building import seeded
from bnlib.norm import BatchNorm
from bnlib.schedules import LinearRamp
from bnlib.training import error_rate, fit

DENSE, SEPARABLE = "convolutional", "depthwise separable"
SPREADS = (1, 10, 100)
BITS = (8, 7, 6, 5, 4, 3, 2)
PER_TENSOR, PER_CHANNEL, EQUALISED = "per tensor", "per channel", "per tensor, equalised"
WIDTH, EPOCHS = 8, 6
SEEDS = {"quick": range(5), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return one cell per network and spread of its channels; only a separable network has that symmetry."""
    return dict.fromkeys([(DENSE, 1), *itertools.product((SEPARABLE,), SPREADS)], SEEDS[scale])


def separable_cnn(seed: int) -> nn.Sequential:
    """Build a network of depthwise and pointwise convolutions for digits, each with BN and ReLU."""

    def block(*arguments: int, **settings: int) -> list[nn.Module]:
        return [nn.Conv2d(*arguments, bias=False, **settings), BatchNorm(arguments[1]), nn.ReLU()]

    with seeded(seed):
        layers = block(1, WIDTH, 3, padding=1)
        for width in (WIDTH, 2 * WIDTH):
            layers += block(width, width, 3, padding=1, groups=width)
            layers += [*block(width, 2 * width, 1), nn.MaxPool2d(2)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * WIDTH, 10))


@cache
def trained(network: str, seed: int, device: str = "cpu") -> nn.Sequential:
    """Train a network of ``DENSE`` or ``SEPARABLE`` for six epochs of SGD whose learning rate falls to 0."""
    model = small_cnn(width=WIDTH, seed=seed) if network == DENSE else separable_cnn(seed)
    settings = {"batch_size": 32, "lr": 0.2, "epochs": EPOCHS, "schedule": LinearRamp(1.0, 0.0, 0, EPOCHS)}
    settings |= {"checkpoints": 1, "seed": seed, "device": device}
    fit(model, datasets.load("digits"), progress=False, **settings)
    return model.eval()


@torch.no_grad()
def rescaled(model: nn.Sequential, spread: float, seed: int) -> nn.Sequential:
    """Return a network of the same function whose channels in front of depthwise convolutions have other scales.

    The gamma and beta of a channel are multiplied by a factor between 1 and ``spread``, and the running statistics
    behind the depthwise convolution follow, as they would in training: that batch norm removes the factor.
    """
    model, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    for place in _depthwise_places(model):
        before, after = _last_before(place, model, BatchNorm), model[place + 1]
        factor = spread ** torch.rand(before.num_features, generator=generator).to(before.weight.device)
        before.weight *= factor
        before.bias *= factor
        after.running_mean *= factor
        after.running_var.copy_((after.running_var + after.eps) * factor.square() - after.eps)
    return model


def _depthwise_places(model: nn.Sequential) -> list[int]:
    return [n for n, layer in enumerate(model) if isinstance(layer, nn.Conv2d) and layer.groups > 1]


def _last_before(place: int, model: nn.Sequential, kind: type[nn.Module]) -> nn.Module:
    return next(layer for layer in reversed(model[:place]) if isinstance(layer, kind))


@torch.no_grad()
def quantised(model: nn.Sequential, bits: int, per_channel: bool) -> nn.Sequential:
    """Return a copy whose weights are rounded to ``bits`` bits, symmetric about 0; biases and activations stay."""
    model, largest = copy.deepcopy(model), 2 ** (bits - 1) - 1
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.copy_(_round(layer.weight, largest, per_channel))
    return model


def _round(weight: Tensor, largest: int, per_channel: bool) -> Tensor:
    if not per_channel:
        scale = weight.abs().max().item() / largest
        return torch.fake_quantize_per_tensor_affine(weight, scale, 0, -largest, largest)
    scales = ranges(weight).clamp(min=1e-12) / largest
    zeros = torch.zeros(len(scales), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -largest, largest)


def ranges(weight: Tensor) -> Tensor:
    """Return the largest absolute weight of each output channel."""
    return weight.detach().flatten(1).abs().amax(1)


@torch.no_grad()
def equalised(folded: nn.Sequential) -> nn.Sequential:
    """Return a folded separable network of the same function with equal ranges around each depthwise channel.

    A positive factor passes through ReLU and max pooling, so it can move from one layer to the next.
    """
    folded = copy.deepcopy(folded)
    for place in _depthwise_places(folded):
        before, after = _last_before(place, folded, nn.Conv2d), folded[place]
        factor = (ranges(after.weight) / ranges(before.weight)).sqrt()
        before.weight *= factor.view(-1, 1, 1, 1)
        before.bias *= factor
        after.weight /= factor.view(-1, 1, 1, 1)
    return folded


def measure(network: str, spread: float, *, seed: int, device) -> dict[str, list | float]:
    """Train, change the scales of the channels, fold, and quantise the weights.

    Returns:
        shares of wrong test predictions: ``float``, without quantisation; ``per tensor``, ``per channel`` and ``per
        tensor, equalised`` at each of ``BITS``; ``ranges``: largest weight of each channel of the first depthwise
        convolution, or of the second convolution of a network without one.
    """
    data = datasets.load("digits").to(device)
    folded = fold(rescaled(trained(network, seed, str(device)), spread, seed))
    arms = {PER_TENSOR: (folded, False), PER_CHANNEL: (folded, True), EQUALISED: (equalised(folded), False)}
    errors = {
        name: [error_rate(quantised(model, bits, each), data.test_x, data.test_y) for bits in BITS]
        for name, (model, each) in arms.items()
    }
    second = list(_convolutions(folded))[1]
    return {"float": error_rate(folded, data.test_x, data.test_y), **errors, "ranges": ranges(second.weight).tolist()}


def _convolutions(model: nn.Sequential) -> Iterator[nn.Conv2d]:
    return (layer for layer in model if isinstance(layer, nn.Conv2d))


EXPERIMENT = Measurement(
    name="training_code.quantised_weights",
    question="How many bits do the weights of a network with folded batch norm need, per tensor and per channel?",
    source="Krishnamoorthi 2018, section 3; Nagel et al. 2019",
    axes=("network", "spread"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


LABELS = {
    "convolutional": (DENSE, 1),
    "depthwise separable": (SEPARABLE, 1),
    "depthwise separable, scales up to 100": (SEPARABLE, 100),
}
"""Cells by their labels beside the slider."""


def lookup(network: str, bits: int) -> Mapping[str, np.ndarray]:
    """Return the committed numbers of a network; ``bits`` is the place that the figure marks."""
    return load()[LABELS[network]]


def error_rows(labels: Sequence[str], numbers: Sequence[int]) -> list[dict]:
    """Return test errors (%) for ``tables.Table``, two rows per network of ``LABELS``, at these numbers of bits."""
    return [
        {"network": label, "scales": arm}
        | {"float32": 100 * load()[LABELS[label]]["float"]}
        | {("bits", str(number)): 100 * load()[LABELS[label]][arm][:, BITS.index(number)] for number in numbers}
        for label in labels
        for arm in (PER_TENSOR, PER_CHANNEL)
    ]
