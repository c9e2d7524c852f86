"""Inputs and layers that the tests of ``FullNorm`` share."""

import numpy as np
import torch

import bnlib
from bnlib import reference

ORACLES = reference.ORACLES


def data(shape, dtype=torch.float64, seed=0, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(0.5, 2, shape[1], dtype=dtype).view(-1, *[1] * (len(shape) - 2))
    return torch.randn(shape, generator=generator, dtype=dtype) * spread + offset


def layer_of(channels, **options):
    """A layer in float64 with a weight and a bias that are not the initial ones."""
    layer = bnlib.FullNorm(channels, dtype=torch.float64, **options)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(0.5, -1.5, channels))
        layer.bias.copy_(torch.linspace(-1, 1, channels))
    return layer


class Reference:
    """Algorithm 3 in NumPy, step by step, with the running gradients of the "running" oracle."""

    def __init__(self, layer):
        channels = layer.num_features
        self.estimates = reference.Estimates(np.zeros(channels), np.ones(channels))
        self.history = np.zeros(channels), np.zeros(channels)
        self.layer = layer

    def step(self, x, g, alpha):
        affine = self.layer.weight.detach().numpy(), self.layer.bias.detach().numpy()
        y, self.estimates, cache = reference.full_norm_forward(x, self.estimates, alpha, *affine, self.layer.eps)
        grads = reference.full_norm_backward(g, cache, self.layer.oracle, self.history)
        self.history = tuple((1 - alpha) * old + alpha * new for old, new in zip(self.history, grads[1:], strict=True))
        return y, *grads


def close(actual, expected, tolerance=1e-10):
    np.testing.assert_allclose(actual.detach().double().numpy(), expected, rtol=tolerance, atol=tolerance)
