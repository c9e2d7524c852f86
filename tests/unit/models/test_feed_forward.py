"""The networks of linear layers: their layers, sizes and initial weights."""

import functools

import pytest
import torch
from model_examples import count, types
from torch import nn

import bnlib
from bnlib import models


@pytest.mark.parametrize("norm", [None, bnlib.BatchNorm, "batch_norm"])
def test_mlp_is_flat_and_its_layers_are_drawn_in_order(norm):
    model = models.mlp((5, 4, 3, 2), norm, seed=3)
    hidden = [nn.Linear, nn.ReLU] if norm is None else [nn.Linear, bnlib.BatchNorm, nn.ReLU]
    assert types(model) == [nn.Flatten, *hidden, *hidden, nn.Linear]
    torch.manual_seed(3)
    for layer in (layer for layer in model if isinstance(layer, nn.Linear)):
        expected = nn.Linear(layer.in_features, layer.out_features)
        assert torch.equal(layer.weight, expected.weight) and torch.equal(layer.bias, expected.bias)


def test_a_norm_that_changes_the_layer_adds_none_to_the_mlp():
    layers = models.mlp((5, 8, 2), "weight_norm")
    assert len(layers) == 4 and isinstance(layers[1], nn.Linear) and isinstance(layers[2], nn.ReLU)
    assert count(layers) == 5 * 8 + 8 + 8 + 9 * 2
    assert types(models.mlp((5, 8, 2), "cosine"))[1:3] == [bnlib.CosineLinear, nn.ReLU]
    assert types(models.mlp((5, 8, 2), "weight_standardisation"))[2:4] == [nn.GroupNorm, nn.ReLU]


@pytest.mark.parametrize(("norm", "gammas_and_betas"), [(None, 0), ("batch_norm", 2 * 7)])
def test_mlp_has_as_many_parameters_as_counted_by_hand(norm, gammas_and_betas):
    assert count(models.mlp((5, 4, 3, 2), norm)) == 6 * 4 + 5 * 3 + 4 * 2 + gammas_and_betas


def test_the_norm_can_come_after_the_activation():
    after = models.mlp((5, 8, 2), "batch_norm", placement="after")
    assert types(after) == [nn.Flatten, nn.Linear, nn.ReLU, bnlib.BatchNorm, nn.Linear]
    x = torch.randn(6, 5)
    hidden = after[1](x).relu()
    expected = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(after[:-1](x), expected)
    standardised = models.mlp((5, 8, 2), "weight_standardisation", placement="after")
    assert types(standardised)[2:4] == [nn.ReLU, nn.GroupNorm]


@pytest.mark.parametrize("activation", [nn.Tanh, functools.partial(nn.LeakyReLU, 0.2), nn.PReLU])
def test_each_hidden_layer_has_an_activation_of_its_own(activation):
    model = models.mlp((5, 4, 3, 2), "batch_norm", activation=activation)
    made = [layer for layer in model if isinstance(layer, type(activation()))]
    assert len(made) == 2 and made[0] is not made[1] and repr(made[0]) == repr(activation())
    assert nn.ReLU not in types(model)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sizes": (3,)}, ValueError, r"sizes must have at least an input and an output width, got \(3,\)"),
        ({"placement": "behind"}, ValueError, "placement must be one of 'before', 'after', got 'behind'"),
        ({"activation": nn.ReLU()}, TypeError, r"activation must be a class .*, got ReLU\(\)"),
    ],
)
def test_mlp_names_what_it_cannot_use(options, error, message):
    with pytest.raises(error, match=message):
        models.mlp(**{"sizes": (3, 4, 2)} | options)


def test_deep_stack_is_an_mlp_of_so_many_hidden_layers():
    model = models.deep_stack(7, 6, "batch_norm", activation=nn.Tanh, placement="after", in_features=4, num_classes=3)
    twin = models.mlp((4, *[6] * 7, 3), "batch_norm", activation=nn.Tanh, placement="after")
    assert repr(model) == repr(twin)
    pairs = zip(model.state_dict().values(), twin.state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_deep_stack_is_that_of_the_question():
    model = models.deep_stack(norm="batch_norm")
    assert count(model) == 51 * 63 + 99 * 64 * 63 + 64 * 50 + 100 * 2 * 63
    assert model(torch.eye(50)).shape == (50, 50)


@pytest.mark.parametrize("placement", ["before", "after"])
def test_a_deep_stack_without_activation_is_linear(placement):
    model = models.deep_stack(5, 6, activation=nn.Identity, placement=placement, in_features=4).double()
    x, y, zero = *torch.randn(2, 3, 4).double(), torch.zeros(3, 4).double()
    torch.testing.assert_close(model(x + 2 * y), model(x) + 2 * model(y) - 2 * model(zero))


def test_the_three_point_network_is_that_of_figure_1():
    model = models.three_point_network()
    assert types(model) == [nn.Flatten, nn.Linear, bnlib.BatchNorm, nn.ReLU, nn.Linear]
    assert count(model) == 12 + 6 + 12 and count(models.three_point_network(None)) == 24
    # It fails at batch size 1: the output is the same whatever the sample.
    points = bnlib.datasets.load("three_points").train_x
    outputs = [model(point[None]) for point in points]
    assert all(torch.equal(output, outputs[0]) for output in outputs)


def test_logistic_regression_normalises_the_features_first():
    model = models.logistic_regression(5, 3, "batch_norm")
    assert types(model) == [nn.Flatten, bnlib.BatchNorm, nn.Linear] and model[1].num_features == 5
    x = 3 * torch.randn(8, 5) + 2
    standardised = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(model(x), model[-1](standardised))
    assert count(model) == 2 * 5 + 6 * 3


def test_logistic_regression_has_nothing_else():
    model = models.logistic_regression(6, 3)
    assert types(model) == [nn.Flatten, nn.Linear] and count(model) == 7 * 3
    assert model(torch.randn(4, 1, 2, 3)).shape == (4, 3)
    assert types(models.logistic_regression(6, 3, "cosine")) == [nn.Flatten, bnlib.CosineLinear]


@pytest.mark.parametrize("norm", [None, bnlib.BatchNorm, "weight_norm"])
def test_an_mlp_takes_an_initialisation(norm):
    model, plain = (models.mlp((300, 400, 10), each, init=nn.init.kaiming_normal_, seed=3) for each in (norm, None))
    assert torch.allclose(model[1].weight, plain[1].weight) and torch.equal(model[-1].weight, plain[-1].weight)
    assert plain[1].weight.var().item() == pytest.approx(2 / 300, rel=0.05)
    assert not model[1].bias.any() and not model[-1].bias.any()
