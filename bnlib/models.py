"""The networks of the experiments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from bnlib.norm.batch_norm import BatchNorm

NormFactory = Callable[[int], nn.Module]


def mlp(
    sizes: Sequence[int],
    norm: NormFactory | None = None,
    *,
    seed: int = 0,
) -> nn.Sequential:
    r"""Build a fully connected ReLU network: linear, norm, ReLU for each hidden layer, then linear.

    The linear layers of two networks built from the same ``sizes`` and ``seed`` start from the same numbers
    whether or not there is a ``norm``, so that a comparison starts from the same place.

    Arguments:
        sizes: widths from the input to the output, at least two, e.g. ``(64, 100, 100, 10)``.
        norm: called with the width of each hidden layer, e.g. ``bnlib.BatchNorm``; None for no normalisation.
        seed: seed of the initialisation; the global generator is left as it was.

    Shape:
        (N, \*) with ``sizes[0]`` values a sample, to (N, ``sizes[-1]``).

    Raises:
        ValueError: fewer than two sizes.
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes must name at least an input and an output width, got {tuple(sizes)}")
    layers: list[nn.Module] = [nn.Flatten()]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for fan_in, fan_out in pairwise(sizes[:-1]):
            layers.append(nn.Linear(fan_in, fan_out))
            if norm is not None:
                layers.append(norm(fan_out))
            layers.append(nn.ReLU())
        layers.append(nn.Linear(sizes[-2], sizes[-1]))
    return nn.Sequential(*layers)


def resnet18(
    num_classes: int = 10,
    in_channels: int = 3,
    norm: NormFactory | None = BatchNorm,
    *,
    width: int = 64,
    seed: int = 0,
) -> nn.Sequential:
    r"""Build the ResNet-18 for small images, such as the 32 x 32 of CIFAR-10.

    The first convolution is 3 x 3 with stride 1 and no pooling follows it; four stages of two basic blocks, ``width``,
    2, 4 and 8 ``width`` channels wide, each stage but the first halving the image; the mean over what is left of the
    image; a linear layer. The convolutions of two networks built from the same sizes and ``seed`` start from the same
    numbers whether or not there is a ``norm``; they have biases only if there is none.

    Arguments:
        num_classes: number of outputs.
        in_channels: channels of the images.
        norm: called with the number of channels of each convolution's output, also in the shortcuts; None for no
            normalisation.
        width: channels of the first stage, 64 in the paper.
        seed: seed of the initialisation; the global generator is left as it was.

    Shape:
        (N, ``in_channels``, H, W) to (N, ``num_classes``).

    Raises:
        ValueError: a number of classes or channels below 1.

    Source: He et al. 2016 (https://arxiv.org/abs/1512.03385), Table 1, with the first layer of its section 4.2.
    """
    for name, count in (("num_classes", num_classes), ("in_channels", in_channels), ("width", width)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [*_convolution(in_channels, width, 3, 1, norm), nn.ReLU()]
        channels = width
        for stage in range(4):
            for block in range(2):
                fan_in, channels = channels, width * 2**stage
                layers.append(BasicBlock(fan_in, channels, 2 if stage > 0 and block == 0 else 1, norm))
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]
    return nn.Sequential(*layers)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut around them, projected by a 1 x 1 convolution where the shape changes.

    Shape:
        (N, ``fan_in``, H, W) to (N, ``fan_out``, ceil(H / ``stride``), ceil(W / ``stride``)).

    Source: He et al. 2016, Figure 5 left and option B of section 4.1.
    """

    def __init__(self, fan_in: int, fan_out: int, stride: int, norm: NormFactory | None) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_convolution(fan_in, fan_out, 3, stride, norm), nn.ReLU(), *_convolution(fan_out, fan_out, 3, 1, norm)
        )
        changes = stride != 1 or fan_in != fan_out
        self.shortcut = nn.Sequential(*_convolution(fan_in, fan_out, 1, stride, norm) if changes else ())

    def forward(self, input: Tensor) -> Tensor:
        """Return relu(residual + shortcut)."""
        return torch.relu(self.residual(input) + self.shortcut(input))


def _convolution(fan_in: int, fan_out: int, size: int, stride: int, norm: NormFactory | None) -> list[nn.Module]:
    convolution = nn.Conv2d(fan_in, fan_out, size, stride, padding=size // 2)
    if norm is None:
        return [convolution]
    # The norm has a shift of its own. Drawn and dropped, so that the next weights are the same as without a norm.
    convolution.bias = None
    return [convolution, norm(fan_out)]
