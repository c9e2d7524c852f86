"""Networks with skip connections."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from bnlib.arguments import check_one_of
from bnlib.models.building import NormLike, activation_behind, as_norm, check_counts, convolution, seeded
from bnlib.models.feed_forward import deep_stack
from bnlib.norm.batch_norm import BatchNorm


def resnet18(
    num_classes: int = 10,
    in_channels: int = 3,
    norm: NormLike = BatchNorm,
    *,
    width: int = 64,
    seed: int = 0,
) -> nn.Sequential:
    r"""Build a ResNet-18 for small images, such as the 32 x 32 images of CIFAR-10.

    The first convolution is 3 x 3 with stride 1, and no pooling follows it. Then come four stages of two basic blocks
    with ``width`` times 1, 2, 4 and 8 channels; each stage except the first halves the image. Average pooling over the
    whole image and a linear layer follow. Two networks with the same sizes and ``seed`` get the same initial weights,
    with or without normalisation. Convolutions have a bias only if no normalisation layer follows.

    Arguments:
        num_classes: number of outputs.
        in_channels: channels of the images.
        norm: normalisation of each convolution, including those in skip connections, see ``bnlib.models``; None for no
            normalisation.
        width: channels of the first stage, 64 in the paper.
        seed: seed of the initialisation; the global generator does not change.

    Shape:
        Input (N, ``in_channels``, H, W); output (N, ``num_classes``).

    Raises:
        ValueError: if a number of classes or channels is below 1, or the name ``norm`` is unknown.
        TypeError: if ``norm`` has another type, or cannot be applied to convolutions.

    Source: He et al. 2016 (https://arxiv.org/abs/1512.03385), Table 1, with the first layer of its section 4.2.

    Example:
        >>> model = models.resnet18(norm="batch_norm", width=4)
        >>> model(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    check_counts(num_classes=num_classes, in_channels=in_channels, width=width)
    with seeded(seed):
        layers = [*convolution(in_channels, width, 3, norm), activation_behind(norm)]
        channels = width
        for stage in range(4):
            for block in range(2):
                fan_in, channels = channels, width * 2**stage
                layers.append(BasicBlock(fan_in, channels, 2 if stage > 0 and block == 0 else 1, norm))
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]
    return nn.Sequential(*layers)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with a skip connection, which is a 1 x 1 convolution if the shape changes.

    Arguments:
        fan_in: input channels.
        fan_out: output channels.
        stride: stride of the first convolution and of the skip connection.
        norm: normalisation of each convolution, see ``bnlib.models``.

    Shape:
        Input (N, ``fan_in``, H, W); output (N, ``fan_out``, ceil(H / ``stride``), ceil(W / ``stride``)).

    Source: He et al. 2016, Figure 5 left and option B of section 4.1.

    Example:
        >>> models.BasicBlock(4, 8, stride=2, norm=bnlib.BatchNorm)(torch.zeros(2, 4, 9, 9)).shape
        torch.Size([2, 8, 5, 5])
    """

    def __init__(self, fan_in: int, fan_out: int, stride: int, norm: NormLike) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *convolution(fan_in, fan_out, 3, norm, stride=stride),
            activation_behind(norm),
            *convolution(fan_out, fan_out, 3, norm),
        )
        changes = stride != 1 or fan_in != fan_out
        self.skip = nn.Sequential(*convolution(fan_in, fan_out, 1, norm, stride=stride) if changes else ())

    def forward(self, input: Tensor) -> Tensor:
        """Return relu(residual(input) + skip(input))."""
        return torch.relu(self.residual(input) + self.skip(input))


BLOCKS = ("activation in the branch", "post-activation", "pre-activation")
"""The residual blocks of ``residual_stack``."""


def residual_stack(
    depth: int = 100,
    width: int = 63,
    norm: NormLike = None,
    *,
    block: str = "activation in the branch",
    norm_before_head: bool = False,
    activation: Callable[[], nn.Module] = nn.ReLU,
    in_features: int = 50,
    num_classes: int = 50,
    init: Callable[[Tensor], object] | None = None,
    seed: int = 0,
) -> nn.Sequential:
    r"""Build a ``deep_stack`` with a skip connection around every hidden layer except the first.

    The initial weights are those of a ``deep_stack`` with the same sizes and ``seed``.

    Arguments:
        depth, width, norm, activation, in_features, num_classes, init, seed: see ``deep_stack``.
        block: ``"activation in the branch"`` computes x + activation(norm(linear(x))); ``"post-activation"`` computes
            activation(x + norm(linear(x))), the order of the first ResNets; ``"pre-activation"`` computes
            x + linear(activation(norm(x))), and a norm and an activation follow the last block.
        norm_before_head: add a norm before the last linear layer; pre-activation blocks have one anyway.

    Shape:
        Input (N, \*) with ``in_features`` values per sample; output (N, ``num_classes``).

    Raises:
        ValueError: if a count is below 1, ``block`` is unknown, or ``norm`` is no layer that could stand before the
            head; and the errors of ``mlp``.

    Source: He et al. 2016 (https://arxiv.org/abs/1512.03385) for the skip connections and the post-activation block;
    He et al. 2016 (https://arxiv.org/abs/1603.05027) for the pre-activation block.

    Example:
        >>> model = models.residual_stack(10, norm=bnlib.BatchNorm)
        >>> sum(isinstance(layer, models.SkipConnection) for layer in model)
        9
    """
    check_one_of("block", block, BLOCKS)
    options = {"activation": activation, "in_features": in_features, "num_classes": num_classes}
    flatten, *layers, last = deep_stack(depth, width, norm, init=init, seed=seed, **options)
    size = len(layers) // depth
    hidden = [layers[size * i : size * (i + 1)] for i in range(depth)]
    first, *others = hidden
    if block == "pre-activation":
        branches = [[*before[1:], each[0]] for before, each in pairwise(hidden)]
        blocks = [SkipConnection(nn.Sequential(*each)) for each in branches]
        return nn.Sequential(flatten, first[0], *blocks, *hidden[-1][1:], last)
    if block == "post-activation":
        blocks = [nn.Sequential(SkipConnection(nn.Sequential(*branch)), active) for *branch, active in others]
    else:
        blocks = [SkipConnection(nn.Sequential(*each)) for each in others]
    end = [_norm_layer(norm, width)] if norm_before_head else []
    return nn.Sequential(flatten, *first, *blocks, *end, last)


def _norm_layer(norm: NormLike, width: int) -> nn.Module:
    make = as_norm(norm).make_layer
    if make is None:
        raise ValueError(f"norm must be a layer if norm_before_head is True, got {norm!r}; it has none to place there")
    return make(width)


class SkipConnection(nn.Module):
    """A module with a skip connection around it, which returns ``input + branch(input)``.

    Arguments:
        branch: a module whose output has the shape of its input.

    Shape:
        Any shape that ``branch`` accepts; the output has the same shape.

    Example:
        >>> models.SkipConnection(nn.ReLU())(torch.tensor([-1.0, 2.0]))
        tensor([-1.,  4.])
    """

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, input: Tensor) -> Tensor:
        """Return input + branch(input)."""
        return input + self.branch(input)
