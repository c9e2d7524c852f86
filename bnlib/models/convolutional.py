"""Convolutional networks without skip connections."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from bnlib.models.building import NormLike, activation_behind, check_counts, convolution, seeded, with_norm
from bnlib.norm.batch_norm import BatchNorm

_VGG_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def lian_figure_6_cnn(
    image_shape: Sequence[int] = (1, 28, 28),
    num_classes: int = 10,
    norm: NormLike = BatchNorm,
    *,
    channels: Sequence[int] = (10, 20),
    hidden: int = 50,
    seed: int = 0,
) -> nn.Sequential:
    r"""Build a network like the "simple neural network" in figure 6 of Lian and Liu (2019).

    The paper says that the network is normalised between the layers, uses ReLU and the negative log likelihood, and
    takes MNIST and CIFAR-10. It does not give the layers and their sizes in its text, and the figure was not available.
    This builder therefore uses PyTorch's MNIST example of 2018, because its defaults are the settings of the paper
    (batch size 64, learning rate 0.01, momentum 0.5, ``nll_loss``): two convolutions of 5 x 5, each with max pooling,
    and two linear layers. The normalisation replaces the example's dropout and comes before each ReLU, as in figure 1
    of the paper. The outputs are logits, so use ``cross_entropy`` as the loss. For a fully connected network instead,
    use ``mlp``.

    Images with a side below 16, e.g. 8 x 8, are padded by 2 in both convolutions, because they are too small for 5 x 5
    convolutions without padding.

    Arguments:
        image_shape: channels, height and width of the images; at least 4 x 4.
        num_classes: number of outputs.
        norm: normalisation of all layers except the last, see ``bnlib.models``; None for no normalisation. Layers in
            front of a normalisation layer have no bias.
        channels: output channels of the two convolutions.
        hidden: width of the first linear layer.
        seed: seed of the initialisation; the global generator does not change.

    Shape:
        Input (N, channels, height, width); output (N, ``num_classes``).

    Raises:
        ValueError: if a count is below 1, ``image_shape`` does not have three values or is too small, ``channels`` does
            not have two values, or the name ``norm`` is unknown.
        TypeError: if ``norm`` has another type, or cannot be applied to both convolutions and linear layers.

    Source: Lian and Liu 2019 (https://proceedings.mlr.press/v89/lian19a.html), Figure 6 and section 6.

    Example:
        >>> models.lian_figure_6_cnn()(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
        >>> models.lian_figure_6_cnn((3, 32, 32), norm="group_norm")(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    if len(image_shape) != 3 or min(image_shape[1:]) < 4:
        raise ValueError(f"image_shape must be channels, height and width, at least 4 x 4, got {tuple(image_shape)}")
    if len(channels) != 2:
        raise ValueError(f"channels must be those of two convolutions, got {tuple(channels)}")
    in_channels, *sides = image_shape
    first, second = channels
    check_counts(in_channels=in_channels, num_classes=num_classes, channels=min(channels), hidden=hidden)
    padding = 0 if min(sides) >= 16 else 2
    height, width = (((side + 2 * padding - 4) // 2 + 2 * padding - 4) // 2 for side in sides)
    with seeded(seed):
        layers: list[nn.Module] = []
        for fan_in, fan_out in ((in_channels, first), (first, second)):
            layers += with_norm(nn.Conv2d(fan_in, fan_out, 5, padding=padding), norm, bias=False)
            layers += [activation_behind(norm), nn.MaxPool2d(2)]
        layers += [nn.Flatten(), *with_norm(nn.Linear(second * height * width, hidden), norm, bias=False)]
        layers += [activation_behind(norm), nn.Linear(hidden, num_classes)]
    return nn.Sequential(*layers)


def small_cnn(
    num_classes: int = 10,
    in_channels: int = 1,
    norm: NormLike = BatchNorm,
    *,
    width: int = 16,
    seed: int = 0,
) -> nn.Sequential:
    r"""Build a small convolutional network for the digits, which plays the role of a ResNet-18 on CIFAR-10.

    It has three convolutions of 3 x 3 with ``width``, 2 ``width`` and 4 ``width`` channels, with max pooling between
    them; for the digits the images have 8 x 8, 4 x 4 and 2 x 2 pixels. Then follow average pooling over the whole image
    and a linear layer.

    Arguments:
        num_classes: number of outputs.
        in_channels: channels of the images.
        norm: normalisation of each convolution, see ``bnlib.models``; None for no normalisation. Convolutions in front
            of a normalisation layer have no bias.
        width: channels of the first convolution.
        seed: seed of the initialisation; the global generator does not change.

    Shape:
        Input (N, ``in_channels``, H, W) with H and W at least 4; output (N, ``num_classes``).

    Raises:
        ValueError: if a count is below 1, or the name ``norm`` is unknown.
        TypeError: if ``norm`` has another type, or cannot be applied to convolutions.

    Example:
        >>> models.small_cnn(norm=bnlib.FullNorm)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    check_counts(num_classes=num_classes, in_channels=in_channels, width=width)
    with seeded(seed):
        layers = [*convolution(in_channels, width, 3, norm), activation_behind(norm), nn.MaxPool2d(2)]
        layers += [*convolution(width, 2 * width, 3, norm), activation_behind(norm), nn.MaxPool2d(2)]
        layers += [*convolution(2 * width, 4 * width, 3, norm), activation_behind(norm)]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, num_classes)]
    return nn.Sequential(*layers)


def vgg(
    num_classes: int = 10,
    in_channels: int = 3,
    norm: NormLike = BatchNorm,
    *,
    depth: int = 16,
    width: int = 64,
    seed: int = 0,
) -> nn.Sequential:
    r"""Build a VGG network for images of 32 x 32, as Santurkar et al. trained it with and without Batch Normalization.

    It has five stages of 3 x 3 convolutions with ``width`` times 1, 2, 4, 8 and 8 channels, and max pooling at the end
    of each stage. One linear layer replaces the paper's three, although ``depth`` counts all three. As in Santurkar et
    al., the weights are drawn with the initialisation of Glorot and Bengio, and the biases are 0. With PyTorch's
    default initialisation the activations of a network without normalisation would shrink from layer to layer.

    Arguments:
        num_classes: number of outputs.
        in_channels: channels of the images.
        norm: normalisation of each convolution, see ``bnlib.models``; None for no normalisation. Convolutions in front
            of a normalisation layer have no bias.
        depth: 11, 13, 16 or 19.
        width: channels of the first stage, 64 in the paper.
        seed: seed of the initialisation; the global generator does not change.

    Shape:
        Input (N, ``in_channels``, H, W) with H and W at least 32; output (N, ``num_classes``).

    Raises:
        ValueError: if the depth is not listed above, a count is below 1, or the name ``norm`` is unknown.
        TypeError: if ``norm`` has another type, or cannot be applied to convolutions.

    Source: Simonyan and Zisserman 2015 (https://arxiv.org/abs/1409.1556), Table 1, columns A, B, D and E; Santurkar et
    al. 2018 (https://arxiv.org/abs/1805.11604).

    Example:
        >>> model = models.vgg(norm="batch_norm", depth=11, width=4)
        >>> model(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    if depth not in _VGG_CONVOLUTIONS:
        raise ValueError(f"depth must be one of {', '.join(map(str, _VGG_CONVOLUTIONS))}, got {depth}")
    check_counts(num_classes=num_classes, in_channels=in_channels, width=width)
    layers: list[nn.Module] = []
    channels = in_channels
    with seeded(seed):
        for stage, count in enumerate(_VGG_CONVOLUTIONS[depth]):
            for _ in range(count):
                fan_in, channels = channels, width * min(2**stage, 8)
                plain = _glorot(nn.Conv2d(fan_in, channels, 3, padding=1))
                layers += [*with_norm(plain, norm, bias=False), activation_behind(norm)]
            layers.append(nn.MaxPool2d(2))
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), _glorot(nn.Linear(channels, num_classes))]
    return nn.Sequential(*layers)


def _glorot(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
