"""Inputs and layers that the tests of ``FullNorm`` share."""

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
