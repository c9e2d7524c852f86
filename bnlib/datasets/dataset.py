"""The form of a data set: a training set and a test set as tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dataset:
    """A training set and a test set as tensors.

    Attributes:
        name: name of the data set, as given to ``load``.
        train_x, test_x: inputs, float32: images of shape (N, C, H, W) with values from 0 to 1, or vectors (N, D).
        train_y, test_y: classes, int64, shape (N,).
        num_classes: number of classes.

    The tensors of a split that was not loaded are None.

    Example:
        >>> datasets.load("three_points")
        Dataset('three_points', 3 classes, train: (3, 3) on cpu, test: (3, 3) on cpu)
    """

    name: str
    train_x: Tensor | None
    train_y: Tensor | None
    test_x: Tensor | None
    test_y: Tensor | None
    num_classes: int

    def to(self, device: torch.device | str) -> Dataset:
        """Return the same data on ``device``; tensors that are there already are not copied."""
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
