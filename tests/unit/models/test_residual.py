"""The residual networks: their layers, sizes and shapes."""

from itertools import pairwise

import pytest
import torch
from model_examples import count
from torch import nn

import bnlib
from bnlib import models


def test_resnet18_has_the_usual_number_of_parameters():
    with torch.device("meta"):
        model = models.resnet18()
    assert count(model) == 11_173_962


def test_resnet18_has_a_norm_behind_each_of_its_20_convolutions_and_no_bias():
    leaves = [layer for layer in models.resnet18(width=2).modules() if not list(layer.children())]
    for first, second in pairwise(leaves):
        if isinstance(first, nn.Conv2d):
            assert first.bias is None
            assert isinstance(second, bnlib.BatchNorm) and second.num_features == first.out_channels
    assert sum(isinstance(layer, nn.Conv2d) for layer in leaves) == 20


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


def residual(block, norm=bnlib.BatchNorm, **settings):
    return models.residual_stack(4, 8, norm, block=block, in_features=5, num_classes=3, seed=1, **settings)


def test_each_block_computes_what_it_says():
    """By hand from the layers of a plain stack with the same seed."""
    plain = models.deep_stack(4, 8, bnlib.BatchNorm, in_features=5, num_classes=3, seed=1)
    _, *hidden, head = plain
    linear, norm = hidden[0::3], nn.BatchNorm1d(8)
    x = torch.randn(6, 5)
    start = linear[0](x)
    branch = post = norm(start).relu()
    before = start
    for layer in linear[1:]:
        branch = branch + norm(layer(branch)).relu()
        post = (post + norm(layer(post))).relu()
        before = before + layer(norm(before).relu())
    torch.testing.assert_close(residual("activation in the branch")(x), head(branch))
    torch.testing.assert_close(residual("activation in the branch", norm_before_head=True)(x), head(norm(branch)))
    torch.testing.assert_close(residual("post-activation")(x), head(post))
    torch.testing.assert_close(residual("pre-activation")(x), head(norm(before).relu()))


@pytest.mark.parametrize("block", models.residual.BLOCKS)
def test_residual_blocks_need_no_norm(block):
    model = residual(block, None)
    assert model(torch.randn(6, 5)).shape == (6, 3)
    assert not any(isinstance(layer, bnlib.BatchNorm) for layer in model.modules())


def test_wrong_blocks_and_norms_are_refused():
    with pytest.raises(ValueError, match=r"block must be one of 'activation in the branch', .*, got 'bottleneck'"):
        residual("bottleneck")
    with pytest.raises(ValueError, match=r"norm must be a layer if norm_before_head is True, got 'weight_norm'"):
        residual("post-activation", "weight_norm", norm_before_head=True)
