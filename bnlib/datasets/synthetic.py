"""Synthetic data sets from Lian and Liu (2019): three points, and vectors with widely varying elements."""

from __future__ import annotations

import torch
from torch import Tensor

from bnlib.arguments import check_integer, check_number
from bnlib.datasets.dataset import Dataset


def three_points() -> Dataset:
    """Make the three samples (0, 0, 0), (1, 1, 1), (2, 2, 2) with the labels 0, 1, 2, for training and testing.

    Source: Lian and Liu 2019, figure 1.

    Example:
        >>> datasets.three_points().train_x.tolist()
        [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    """
    x = torch.arange(3, dtype=torch.float32, device="cpu")[:, None].repeat(1, 3)
    y = torch.arange(3, device="cpu")
    return Dataset("three_points", x, y, x.clone(), y.clone(), 3)


def wide_variation(
    num_classes: int = 1000,
    num_train: int = 10_000,
    num_test: int = 100,
    max_value: float = 50.0,
    noise: float = 1.0,
    seed: int = 0,
) -> Dataset:
    """Make vectors in which the element of the sample's class is uniform on (0, ``max_value``) and the others are 0.

    All elements get additional normal noise with standard deviation ``noise``.

    Arguments:
        num_classes: number of classes, and length of the vectors.
        num_train, num_test: number of training and test samples.
        max_value: largest value before the noise.
        noise: standard deviation of the noise.
        seed: seed of the random numbers; the same seed gives the same data.

    Raises:
        TypeError, ValueError: if an argument is of the wrong type or out of range.

    Source: Lian and Liu 2019, figure 3.

    Example:
        >>> datasets.wide_variation(num_classes=5, num_train=20, num_test=10)
        Dataset('wide_variation', 5 classes, train: (20, 5) on cpu, test: (10, 5) on cpu)
    """
    for name, value in (("num_classes", num_classes), ("num_train", num_train), ("num_test", num_test)):
        check_integer(name, value)
    check_number("max_value", max_value)
    check_number("noise", noise, at_least=0)
    check_integer("seed", seed, at_least=0)
    generator = torch.Generator("cpu").manual_seed(int(seed))
    settings = {"generator": generator, "device": "cpu"}

    def sample(count: int) -> tuple[Tensor, Tensor]:
        y = torch.randint(num_classes, (count,), **settings)
        x = noise * torch.randn(count, num_classes, dtype=torch.float32, **settings)
        x[torch.arange(count, device="cpu"), y] += max_value * torch.rand(count, dtype=torch.float32, **settings)
        return x, y

    return Dataset("wide_variation", *sample(num_train), *sample(num_test), num_classes)
