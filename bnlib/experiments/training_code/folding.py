"""Fold batch norm into the layer in front of it: how exact that is, and what it costs to do it too early."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bnlib import datasets
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import small_cnn
from bnlib.norm import BatchNorm
from bnlib.samplers import shuffled
from bnlib.training import error_rate

MOMENTA = (0.1, 0.01)
WIDTH, BATCH_SIZE, LEARNING_RATE = 8, 32, 0.1
STEPS = (5, 10, 20, 40, 80, 160, 320)
"""Numbers of steps after which the network is folded and evaluated."""
SEEDS = {"quick": range(5), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return one cell per momentum of the running statistics."""
    return {(momentum,): SEEDS[scale] for momentum in MOMENTA}


def fold(model: nn.Sequential) -> nn.Sequential:
    """Return the network in eval mode with each batch norm folded into the convolution in front of it."""
    layers: list[nn.Module] = []
    for layer in copy.deepcopy(model).eval():
        if isinstance(layer, BatchNorm):
            layers[-1] = fuse_conv_bn_eval(layers[-1], layer)
        else:
            layers.append(layer)
    return nn.Sequential(*layers).eval()


def measure(momentum: float, *, seed: int, device) -> dict[str, list | float]:
    """Train a convolutional network, and fold it after each number of ``STEPS``.

    Returns:
        shares of wrong test predictions: ``folded``; ``train_mode``, of the network in train mode in one batch of the
        whole test set; then at the end ``difference32`` and ``difference64``, the largest difference between the logits
        of the folded network and those in eval mode, divided by the standard deviation of the logits, in float32 and
        float64.
    """
    data = datasets.load("digits").to(device)
    model = small_cnn(width=WIDTH, seed=seed).to(device)
    for layer in model:
        if isinstance(layer, BatchNorm):
            layer.momentum = momentum
    optimiser = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    folded, train_mode = [], []
    for step, index in enumerate(itertools.islice(shuffled(data.train_y.cpu(), BATCH_SIZE, seed), STEPS[-1]), 1):
        optimiser.zero_grad()
        F.cross_entropy(model(data.train_x[index]), data.train_y[index]).backward()
        optimiser.step()
        if step in STEPS:
            folded.append(error_rate(fold(model), data.test_x, data.test_y))
            train_mode.append(_error_in_train_mode(model, data))
    return {
        "folded": folded,
        "train_mode": train_mode,
        "difference32": difference(model, data.test_x),
        "difference64": difference(model.double(), data.test_x.double()),
    }


@torch.no_grad()
def difference(model: nn.Sequential, x: Tensor) -> float:
    """Return the largest difference of a logit of the folded network, in standard deviations of the logits."""
    logits = copy.deepcopy(model).eval()(x)
    return ((fold(model)(x) - logits).abs().max() / logits.std()).item()


@torch.no_grad()
def _error_in_train_mode(model: nn.Module, data: datasets.Dataset) -> float:
    logits = copy.deepcopy(model).train()(data.test_x)
    return (logits.argmax(1) != data.test_y).float().mean().item()


EXPERIMENT = Measurement(
    name="training_code.folding",
    question="How exact is a network whose batch norm is folded into the convolutions, and how early can it be folded?",
    source="Jacob et al. 2018, section 3.2",
    axes=("momentum",),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def early_rows(numbers: Sequence[int]) -> list[dict]:
    """Return test errors (%) for ``tables.Table`` after these numbers of steps, folded and in train mode."""
    rows = {f"folded, momentum {momentum:g}": load()[momentum,]["folded"] for momentum in MOMENTA}
    rows["not folded, train mode"] = load()[0.1,]["train_mode"]
    return [
        {"network": name} | {("steps", str(number)): 100 * errors[:, STEPS.index(number)] for number in numbers}
        for name, errors in rows.items()
    ]


def border_difference(shift: float, padding_value: bool = False, seed: int = 0) -> Tensor:
    """Fold batch norm into the padded convolution *behind* it, and return how far the outputs are off at each pixel.

    Arguments:
        shift: the beta of batch norm; with 0 and a mean of 0 padding commutes with batch norm.
        padding_value: pad the input with the value that batch norm maps to 0, in place of 0.
        seed: seed of the weights and of the input.

    Returns:
        shape (8, 8): the largest difference over samples and channels divided by the outputs' standard deviation.

    Example:
        >>> from bnlib.experiments.training_code.folding import border_difference
        >>> off = border_difference(shift=0.5)
        >>> bool(off[1:-1, 1:-1].max() < 1e-12), bool(off[0].min() > 0.1)
        (True, True)
    """
    generator = torch.Generator().manual_seed(seed)
    norm, convolution = nn.BatchNorm2d(4).double().eval(), nn.Conv2d(4, 8, 3, padding=1).double()
    with torch.no_grad():
        convolution.weight.normal_(generator=generator)
        norm.weight.uniform_(0.5, 2, generator=generator)
        norm.bias.fill_(shift)
        norm.running_var.uniform_(0.5, 2, generator=generator)
        x = torch.randn(16, 4, 8, 8, generator=generator, dtype=torch.double)
        expected = convolution(norm(x))
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        offset = norm.bias - norm.running_mean * scale
        weight = convolution.weight * scale.view(1, -1, 1, 1)
        bias = convolution.bias + (convolution.weight.sum((2, 3)) * offset).sum(1)
        padding = (-offset / scale if padding_value else torch.zeros_like(offset)).view(1, -1, 1, 1)
        padded = F.pad(x - padding, (1, 1, 1, 1)) + padding
        found = F.conv2d(padded, weight, bias)
    return (found - expected).abs().amax((0, 1)) / expected.std()
