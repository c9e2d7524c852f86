"""Networks and helpers that the tests of internal covariate shift share."""

import math
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import bnlib
from bnlib import models
from bnlib.models.building import seeded


def dropout_mlp(norm, seed=0):
    first, *rest = models.mlp((6, 5, 4, 3), norm, seed=seed)
    return nn.Sequential(nn.Dropout(0.3), first, *rest[:-1], nn.Dropout(0.3), rest[-1])


def image_network(norm, seed=0):
    with seeded(seed):
        layers = [nn.Conv2d(1, 3, 2, padding=1), norm(3), nn.ReLU(), nn.Conv2d(3, 4, 2), norm(4), nn.ReLU()]
        return nn.Sequential(nn.Unflatten(1, (1, 2, 3)), *layers, nn.Flatten(), nn.Linear(24, 3))


def sequence_network(seed=0):
    lstm = models.lstm_stack(2, 4, bnlib.BatchNorm, steps=2, in_features=3, num_classes=2, seed=seed)
    return nn.Sequential(nn.Unflatten(1, (2, 3)), lstm, nn.Flatten())


NETWORKS = {
    "plain": partial(models.mlp, (6, 5, 4, 3)),
    "BatchNorm": partial(models.mlp, (6, 5, 4, 3), bnlib.BatchNorm),
    "FullNorm": partial(models.mlp, (6, 5, 4, 3), bnlib.FullNorm),
    "BatchRenorm": partial(models.mlp, (6, 5, 4, 3), bnlib.BatchRenorm),
    "NoisyBatchNorm": partial(models.mlp, (6, 5, 4, 3), bnlib.NoisyBatchNorm),
    "weight norm": partial(models.mlp, (6, 5, 4, 3), "weight_norm"),
    "Dropout": partial(dropout_mlp, bnlib.BatchNorm),
    "convolutions": partial(image_network, bnlib.BatchNorm),
    "convolutions, FullNorm": partial(image_network, bnlib.FullNorm),
    "LSTM": sequence_network,
}


def loss_on(x, y):
    return lambda model: F.cross_entropy(model(x), y)


def moved(model, names):
    """Parameters by name, those in ``names`` a step further."""
    generator = torch.Generator().manual_seed(5)
    return {
        name: value.detach() + 0.1 * torch.randn(value.shape, generator=generator).to(value) * (name in names)
        for name, value in model.named_parameters()
    }


def all_moved(model):
    return moved(model, dict(model.named_parameters()))


def norm(*arrays):
    return math.sqrt(sum(np.square(each).sum() for each in arrays))
