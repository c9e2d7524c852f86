"""The networks: their shapes, sizes and seeds."""

from itertools import pairwise

import pytest
import torch
from torch import nn

import bnlib
from bnlib import models


def weights(model):
    """The weights of the convolutions and linear layers, in order."""
    return [layer.weight for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


BUILDERS = pytest.mark.parametrize(
    "build",
    [
        lambda norm, seed=0: models.mlp((5, 4, 3, 2), norm, seed=seed),
        lambda norm, seed=0: models.resnet18(norm=norm, width=2, seed=seed),
    ],
    ids=["mlp", "resnet18"],
)


@BUILDERS
@pytest.mark.parametrize("other", [None, nn.BatchNorm2d, lambda channels: nn.GroupNorm(1, channels)])
def test_weights_start_from_the_same_numbers_whatever_the_norm(build, other):
    ours, theirs = weights(build(bnlib.BatchNorm)), weights(build(other))
    assert len(ours) == len(theirs) > 0
    assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


@BUILDERS
def test_another_seed_gives_other_weights(build):
    pairs = zip(weights(build(None)), weights(build(None, seed=1)), strict=True)
    assert not any(torch.equal(*pair) for pair in pairs)


@BUILDERS
def test_the_global_generator_is_left_alone(build):
    before = torch.random.get_rng_state()
    build(bnlib.BatchNorm)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_resnet18_has_the_usual_number_of_parameters():
    with torch.device("meta"):
        model = models.resnet18()
    assert sum(values.numel() for values in model.parameters()) == 11_173_962


def test_resnet18_has_a_norm_behind_each_of_its_20_convolutions_and_no_bias():
    leaves = [layer for layer in models.resnet18(width=2).modules() if not list(layer.children())]
    for first, second in pairwise(leaves):
        if isinstance(first, nn.Conv2d):
            assert first.bias is None
            assert isinstance(second, bnlib.BatchNorm) and second.num_features == first.out_channels
    assert sum(isinstance(layer, nn.Conv2d) for layer in leaves) == 20


def test_resnet18_without_norm_has_biases():
    model = models.resnet18(norm=None, width=2)
    assert all(layer.bias is not None for layer in model.modules() if isinstance(layer, nn.Conv2d))
    assert not list(model.buffers())
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 10)


@pytest.mark.parametrize(("side", "last"), [(32, 4), (28, 4), (1, 1)])
def test_resnet18_halves_the_image_three_times(side, last):
    model = models.resnet18(num_classes=7, in_channels=1, width=3)
    image = torch.randn(2, 1, side, side)
    assert model(image).shape == (2, 7)
    assert model[:-3](image).shape == (2, 24, last, last)


def test_a_block_adds_its_input():
    block = models.BasicBlock(3, 3, 1, bnlib.BatchNorm)
    nn.init.zeros_(block.residual[-1].weight)
    x = torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(block(x), x.relu(), rtol=0, atol=0)


def test_every_parameter_of_resnet18_gets_a_gradient():
    model = models.resnet18(width=2)
    model(torch.randn(4, 3, 8, 8)).square().sum().backward()
    assert all(values.grad is not None and values.grad.abs().sum() > 0 for values in model.parameters())


@pytest.mark.parametrize("name", ["num_classes", "in_channels", "width"])
def test_counts_below_one_are_named(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        models.resnet18(**{name: 0})
