"""Small networks of each kind, and helpers that the tests of models share."""

import functools

import pytest
from torch import nn

import bnlib
from bnlib import models

CONVOLUTIONAL, LINEAR = {"cosine"}, {"instance_norm"}
CHANGE_THE_LAYER = {"instance_norm", "weight_norm", "weight_standardisation", "cosine", "filter_response_norm"} | {
    "moving_average_batch_norm",
    "cross_iteration_batch_norm",
}

# What builds a small one, the shape of its input, the norms that do not fit and what is said of them.
NETWORKS = {
    "mlp": (functools.partial(models.mlp, (5, 8, 8, 2)), (6, 5), LINEAR, TypeError),
    "mlp after": (functools.partial(models.mlp, (5, 8, 8, 2), placement="after"), (6, 5), LINEAR, TypeError),
    "deep_stack": (functools.partial(models.deep_stack, 5, 8, in_features=6), (6, 6), LINEAR, TypeError),
    "three_point_network": (models.three_point_network, (3, 3), LINEAR, TypeError),
    "logistic": (functools.partial(models.logistic_regression, 6, 4), (6, 6), LINEAR, TypeError),
    "lian_figure_6_cnn": (
        functools.partial(models.lian_figure_6_cnn, (1, 8, 8), channels=(4, 8), hidden=12),
        (6, 1, 8, 8),
        CONVOLUTIONAL | LINEAR,
        TypeError,
    ),
    "small_cnn": (functools.partial(models.small_cnn, width=4), (6, 1, 8, 8), CONVOLUTIONAL, TypeError),
    "vgg": (functools.partial(models.vgg, depth=11, width=4), (6, 3, 32, 32), CONVOLUTIONAL, TypeError),
    "resnet18": (functools.partial(models.resnet18, width=4), (6, 3, 16, 16), CONVOLUTIONAL, TypeError),
    "lstm_stack": (
        functools.partial(models.lstm_stack, 2, 8, in_features=6),
        (6, 3, 6),
        CHANGE_THE_LAYER,
        ValueError,
    ),
    "lstm_stack per step": (
        functools.partial(models.lstm_stack, 2, 8, in_features=6, steps=3),
        (6, 3, 6),
        CHANGE_THE_LAYER,
        ValueError,
    ),
}
BUILDERS = pytest.mark.parametrize("build", [case[0] for case in NETWORKS.values()], ids=list(NETWORKS))
PAIRS = [pytest.param(name, *case, id=f"{kind}-{name}") for kind, case in NETWORKS.items() for name in bnlib.NORMS]


def weights(model):
    """The weights that are learned in convolutions, linear and LSTM layers, in order."""
    names = ("weight", "parametrizations.weight.original", "parametrizations.weight.original1")
    return [
        value
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.LSTM)
        for name, value in layer.named_parameters()
        if name in names or name.startswith("weight_")
    ]


def count(model):
    return sum(values.numel() for values in model.parameters())


def types(model):
    return [type(layer) for layer in model]


def drawing(channels):
    """A norm that needs random numbers."""
    layer = bnlib.BatchNorm(channels)
    nn.init.normal_(layer.weight)
    return layer
