"""The residual network without norms: its signal keeps its size, and no sample sees another one."""

import math

import torch
from torch import nn

from bnlib import models
from bnlib.norm import BatchNorm


def test_the_weights_have_mean_0_and_variance_1_over_the_fan_in():
    layer = models.normaliser_free_stack(2, 32, in_features=50)[1]
    torch.testing.assert_close(layer.weight.mean(1), torch.zeros(32), atol=1e-6, rtol=0)
    torch.testing.assert_close(50 * layer.weight.square().mean(1), torch.ones(32), atol=5e-3, rtol=0)


def test_the_signal_of_a_wide_network_grows_as_beta_says():
    """Each block adds alpha^2 to a variance of 1 at first, and the blocks divide by its root."""
    model = models.normaliser_free_stack(30, 512, in_features=512, alpha=0.3)
    x = torch.randn(200, 512, generator=torch.Generator().manual_seed(0))
    blocks = [layer for layer in model if isinstance(layer, models.ScaledSkipConnection)]
    assert [block.beta for block in blocks[:3]] == [1.0, math.sqrt(1.09), math.sqrt(1.18)]
    with torch.no_grad():
        x = model[:2](x)
        for block in blocks:
            assert abs(x.std().item() / block.beta - 1) < 0.1
            x = block(x)


def test_a_block_by_hand():
    block = models.ScaledSkipConnection(nn.Linear(1, 1), alpha=0.5, beta=4.0)
    nn.init.constant_(block.branch.weight, 3.0)
    nn.init.constant_(block.branch.bias, 1.0)
    assert block(torch.tensor([[8.0]])).item() == 8 + 0.5 * (3 * 2 + 1)


def test_a_sample_does_not_see_the_others():
    model, x = models.normaliser_free_stack(4, 16, in_features=6), torch.randn(5, 6)
    torch.testing.assert_close(model(x)[:1], model(x[:1]))
    assert not any(isinstance(layer, BatchNorm) for layer in model.modules())


def test_every_parameter_is_trained():
    model = models.normaliser_free_stack(4, 16, in_features=6)
    model(torch.randn(5, 6)).square().sum().backward()
    assert all(values.grad is not None and values.grad.abs().sum() > 0 for values in model.parameters())
