"""The form of a data set: a training set and a test set as tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from bnlib.arguments import check_integer, check_kind


@dataclass(frozen=True)
class Dataset:
    """A training set and a test set as tensors.

    Attributes:
        name: name of the data set, as given to ``load``.
        train_x, test_x: inputs, float32: images of shape (N, C, H, W) with values from 0 to 1, or vectors (N, D).
        train_y, test_y: classes from 0 to ``num_classes`` - 1, int64, shape (N,).
        num_classes: number of classes.

    The tensors of a split that was not loaded are None.

    Raises:
        TypeError: if an attribute is of the wrong type.
        ValueError: if a split does not have one class for each input, or a class is out of range.

    Example:
        >>> datasets.load("three_points")
        Dataset('three_points', 3 classes, train: (3, 3) on cpu, test: (3, 3) on cpu)
    """

    name: str
    # Any is for the None of a split that was not loaded, which would need a check wherever a tensor is used.
    train_x: Tensor | Any
    train_y: Tensor | Any
    test_x: Tensor | Any
    test_y: Tensor | Any
    num_classes: int

    def __post_init__(self) -> None:
        check_kind("name", self.name, str, "a text")
        check_integer("num_classes", self.num_classes)
        for split, x, y in (("train", self.train_x, self.train_y), ("test", self.test_x, self.test_y)):
            if x is None and y is None:
                continue
            check_kind(f"{split}_x", x, Tensor, "a tensor, or None like its classes")
            check_kind(f"{split}_y", y, Tensor, "a tensor, or None like its inputs")
            if y.dtype is not torch.int64:
                raise TypeError(
                    f"{split}_y must hold classes as torch.int64, got {y.dtype}; convert them with y.long()"
                )
            if x.dim() == 0 or y.shape != x.shape[:1]:
                raise ValueError(
                    f"{split}_y must have one class for each of the inputs of shape {tuple(x.shape)}, got shape "
                    f"{tuple(y.shape)}"
                )
            if y.numel() and not y.is_meta:
                # Cross-entropy would leave out a class of -100 without a word.
                least, largest = (int(each) for each in y.aminmax())
                if least < 0 or largest >= self.num_classes:
                    raise ValueError(
                        f"{split}_y must hold classes from 0 to num_classes - 1 = {self.num_classes - 1}, got "
                        f"{least if least < 0 else largest}"
                    )

    def to(self, device: torch.device | str) -> Dataset:
        """Return the same data on ``device``; tensors that are there already are not copied."""
        check_kind("device", device, (str, torch.device), "a device such as 'cpu' or 'cuda'")
        return self._each(lambda tensor: tensor.to(device))

    def clone(self) -> Dataset:
        """Return a copy with tensors of its own."""
        return self._each(Tensor.clone)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Dataset:
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: change(v) for k, v in tensors.items() if isinstance(v, Tensor)})

    def __repr__(self) -> str:
        parts = [
            f"{split}: {tuple(x.shape)} on {x.device}"
            for split, x in (("train", self.train_x), ("test", self.test_x))
            if x is not None
        ]
        return f"Dataset({self.name!r}, {self.num_classes} classes, {', '.join(parts)})"
