"""Networks and helpers that the tests of the loss landscape share."""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

import bnlib
from bnlib import models
from bnlib.models.building import seeded


def dropout_mlp(norm, seed=0):
    first, *rest = models.mlp((6, 5, 4, 3), norm, seed=seed)
    return nn.Sequential(nn.Dropout(0.3), first, *rest[:-1], nn.Dropout(0.3), rest[-1])


def mixed_mlp(seed=0):
    """Return a network with all layers that have a state or draw random numbers."""
    with seeded(seed):
        layers = [nn.Dropout(0.3), nn.Linear(6, 5), bnlib.BatchNorm(5), nn.ReLU(), nn.Linear(5, 4), bnlib.FullNorm(4)]
        return nn.Sequential(*layers, nn.ReLU(), nn.Dropout(0.3), nn.Linear(4, 3))


NETWORKS = {
    "plain": partial(models.mlp, (6, 5, 4, 3)),
    "BatchNorm": partial(models.mlp, (6, 5, 4, 3), bnlib.BatchNorm),
    "torch's": partial(models.mlp, (6, 5, 4, 3), nn.BatchNorm1d),
    "FullNorm": partial(models.mlp, (6, 5, 4, 3), bnlib.FullNorm),
    "NoisyBatchNorm": partial(models.mlp, (6, 5, 4, 3), bnlib.NoisyBatchNorm),
    "weight norm": partial(models.mlp, (6, 5, 4, 3), "weight_norm"),
    "Dropout": partial(dropout_mlp, bnlib.BatchNorm),
    "all": mixed_mlp,
}


class Quadratic(nn.Module):
    """The loss of which is w.A w / 2 + b.w, in two parameters."""

    def __init__(self, matrix, point, linear=0.0):
        super().__init__()
        self.first, self.rest = nn.Parameter(point[:1].clone()), nn.Parameter(point[1:].clone())
        self.matrix, self.linear = matrix, linear

    def forward(self):
        w = torch.cat([self.first, self.rest])
        return w @ self.matrix @ w / 2 + (self.linear * w).sum()


def loss_of(model):
    return model()


def symmetric(eigenvalues, seed=0):
    with seeded(seed):
        basis = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues)).double()).Q
    return basis @ torch.diag(torch.tensor(eigenvalues).double()) @ basis.T, basis


def quadratic(eigenvalues=(5.0, 2.0, 1.0, 0.5)):
    with seeded(1):
        point = torch.randn(len(eigenvalues)).double()
    return Quadratic(symmetric(eigenvalues)[0], point), point


def batch(samples=8, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, 6, generator=generator), torch.randint(3, (samples,), generator=generator)


def loss_on(x, y):
    return lambda model: F.cross_entropy(model(x), y)


def close(ours, theirs, **options):
    torch.testing.assert_close(ours, theirs, **({"rtol": 1e-10, "atol": 1e-10} | options))
