"""The convolutional networks: their layers, sizes and initial weights."""

import pytest
import torch
from model_examples import count, types
from torch import nn
from torch.nn import functional as F

import bnlib
from bnlib import models


def test_figure6_without_norm_is_pytorchs_example():
    """21,840 parameters, and before each ReLU what it was."""
    model = models.lian_figure_6_cnn(norm=None)
    block = [nn.Conv2d, nn.ReLU, nn.MaxPool2d]
    assert types(model) == [*block, *block, nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]
    assert count(model) == 10 * 26 + 20 * (250 + 1) + 50 * 321 + 10 * 51 == 21840
    x = torch.randn(2, 1, 28, 28)
    hidden = F.relu(F.max_pool2d(model[3](F.relu(F.max_pool2d(model[0](x), 2))), 2))
    torch.testing.assert_close(model(x), model[9](F.relu(model[7](hidden.view(-1, 320)))))


def test_figure6_has_a_norm_between_its_layers_and_no_bias_before():
    model = models.lian_figure_6_cnn()
    block = [nn.Conv2d, bnlib.BatchNorm, nn.ReLU, nn.MaxPool2d]
    assert types(model) == [*block, *block, nn.Flatten, nn.Linear, bnlib.BatchNorm, nn.ReLU, nn.Linear]
    assert count(model) == 21840 + 10 + 20 + 50
    assert model[0].bias is None and model[4].bias is None and model[9].bias is None and model[-1].bias is not None


@pytest.mark.parametrize(
    ("shape", "flat"),
    [
        ((1, 28, 28), 20 * 4 * 4),
        ((3, 32, 32), 20 * 5 * 5),
        ((1, 8, 8), 20 * 2 * 2),
        ((1, 4, 5), 20),
        ((2, 15, 40), 20 * 3 * 10),
        ((1, 16, 17), 20),
    ],
)
def test_figure6_takes_images_of_any_size(shape, flat):
    model = models.lian_figure_6_cnn(shape, 7)
    assert model[9].in_features == flat
    assert model(torch.randn(3, *shape)).shape == (3, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_shape": (8, 8)}, r"image_shape must be channels, height and width, at least 4 x 4, got \(8, 8\)"),
        ({"image_shape": (1, 3, 8)}, r"image_shape must be .* got \(1, 3, 8\)"),
        ({"image_shape": (0, 8, 8)}, "in_channels must be an integer, at least 1, got 0"),
        ({"channels": (4,)}, r"channels must be those of two convolutions, got \(4,\)"),
        ({"channels": (4, 0)}, "channels must be an integer, at least 1, got 0"),
    ],
)
def test_figure6_names_what_it_cannot_use(options, message):
    with pytest.raises(ValueError, match=message):
        models.lian_figure_6_cnn(**options)


@pytest.mark.parametrize(("norm", "extra"), [(None, 7 * 4), ("batch_norm", 2 * 7 * 4), ("weight_norm", 2 * 7 * 4)])
def test_small_cnn_has_as_many_parameters_as_counted_by_hand(norm, extra):
    model = models.small_cnn(5, 2, norm, width=4)
    assert count(model) == 9 * (2 * 4 + 4 * 8 + 8 * 16) + extra + 17 * 5
    assert model(torch.randn(3, 2, 8, 8)).shape == (3, 5)
    assert model[:-3](torch.randn(3, 2, 8, 8)).shape == (3, 16, 2, 2)


@pytest.mark.parametrize(
    ("depth", "torchvision"), [(11, 132_863_336), (13, 133_047_848), (16, 138_357_544), (19, 143_667_240)]
)
def test_vgg_has_the_usual_number_of_parameters_but_for_the_classifier(depth, torchvision):
    classifier = (512 * 49 + 1) * 4096 + 4097 * 4096 + 4097 * 1000
    with torch.device("meta"):
        plain, normalised = models.vgg(norm=None, depth=depth), models.vgg(depth=depth)
    channels = [layer.out_channels for layer in plain if isinstance(layer, nn.Conv2d)]
    assert len(channels) == depth - 3
    assert count(plain) == torchvision - classifier + 513 * 10
    assert count(normalised) == count(plain) + sum(channels)
    assert all(layer.bias is None for layer in normalised if isinstance(layer, nn.Conv2d))


def test_vgg_leaves_one_pixel_of_32_x_32():
    model = models.vgg(7, 1, width=2)
    assert model[:-3](torch.randn(2, 1, 32, 32)).shape == (2, 16, 1, 1)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 7)
    assert model(torch.randn(2, 1, 64, 64)).shape == (2, 7)


def test_vgg_starts_as_glorot_and_bengio_propose():
    for layer in models.vgg(norm=None, depth=11, width=8):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            area = layer.weight[0, 0].numel()
            bound = (6 / (layer.weight.size(0) * area + layer.weight.size(1) * area)) ** 0.5
            assert 0.95 * bound < layer.weight.abs().max() <= bound
            assert not layer.bias.any()


def test_another_depth_of_vgg_is_named():
    with pytest.raises(ValueError, match="depth must be one of 11, 13, 16, 19, got 12"):
        models.vgg(depth=12)
