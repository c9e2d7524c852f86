"""Any data set with each of its samples multiplied by a random number."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bnlib.arguments import check_integer, check_number
from bnlib.datasets.dataset import Dataset
from bnlib.datasets.registry import load


def randomly_scaled(name: str, low: float = -2.5, high: float = 2.5, seed: int = 0) -> Dataset:
    """Load a data set and multiply each training and test sample by its own random number.

    Arguments:
        name: name of the data set, as for ``load``.
        low, high: the numbers are uniform on (``low``, ``high``) and drawn once.
        seed: seed of the numbers; the same seed gives the same numbers.

    Raises:
        TypeError, ValueError: if an argument is of the wrong type or out of range; see also ``load``.

    Source: Lian and Liu 2019, section 6.1. The paper does not say whether its test set was multiplied, too.

    Example:
        >>> changed = datasets.randomly_scaled("three_points")
        >>> factors = changed.train_x[1:, 0] / datasets.load("three_points").train_x[1:, 0]
        >>> bool((factors.abs() <= 2.5).all()), bool(factors[0] != factors[1])
        (True, True)
    """
    check_number("low", low)
    check_number("high", high, at_least=low)
    check_integer("seed", seed, at_least=0)
    data, generator = load(name), torch.Generator("cpu").manual_seed(int(seed))

    def times(x: Tensor) -> Tensor:
        factors = low + (high - low) * torch.rand(len(x), dtype=x.dtype, generator=generator, device="cpu")
        return x * factors.view(-1, *[1] * (x.dim() - 1))

    return replace(data, name=f"{name}, multiplied", train_x=times(data.train_x), test_x=times(data.test_x))
