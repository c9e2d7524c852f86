"""Data sets of images: handwritten digits, MNIST, Fashion-MNIST and CIFAR-10."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bnlib.datasets.cifar10_files import read_cifar10
from bnlib.datasets.dataset import Dataset
from bnlib.datasets.mnist_files import read_fashion_mnist, read_mnist

_DIGITS = Path(__file__).parents[1] / "static" / "digits.npz"


def digits() -> Dataset:
    """Load 1797 handwritten digits of 8x8 pixels: 1437 for training and 360 for testing, a fixed stratified split.

    Source: Alpaydin and Kaynak 1998, the test set of the UCI data set (https://doi.org/10.24432/C50P49, CC BY 4.0), in
    the form in which scikit-learn ships it; a file of this package holds it.

    Example:
        >>> datasets.digits().train_y.bincount().tolist()
        [142, 146, 142, 146, 145, 145, 145, 143, 139, 144]
    """
    # Each call makes new tensors, because the caller may write into them.
    tensors = {
        name: torch.tensor(values, dtype=torch.int64 if name.endswith("_y") else torch.float32, device="cpu")
        for name, values in _digits_file().items()
    }
    return Dataset("digits", num_classes=10, **tensors)


@cache
def _digits_file() -> dict[str, np.ndarray]:
    """Return the arrays of the digits; they must not be changed."""
    with np.load(_DIGITS) as stored:
        return {
            f"{split}_{kind}": stored[f"{split}_x"][:, None] / 16 if kind == "x" else stored[f"{split}_y"]
            for split in ("train", "test")
            for kind in ("x", "y")
        }


def mnist(root: str | Path | None = None, splits: Sequence[str] = ("train", "test")) -> Dataset:
    """Load MNIST, 70 000 handwritten digits of 28x28 pixels: 60 000 for training and 10 000 for testing.

    Arguments:
        root: folder with the four IDX files, gzipped or not, or with a subfolder ``mnist`` that contains them.
        splits: which of ``"train"`` and ``"test"`` to load; the files of the other split are not needed.

    Source: LeCun, Cortes and Burges 1998.

    Raises:
        ValueError: if a split has another name.
        DatasetError: see ``load``.
    """
    tensors = _no_tensors(splits)
    for split in splits:
        tensors[f"{split}_x"], tensors[f"{split}_y"] = read_mnist(split, root)
    return Dataset("mnist", num_classes=10, **tensors)


def fashion_mnist(root: str | Path | None = None, splits: Sequence[str] = ("train", "test")) -> Dataset:
    """Load Fashion-MNIST, 70 000 pictures of ten kinds of clothes in the form of MNIST: 60 000 train and 10 000 test.

    Nothing is downloaded: the Debian package ``dataset-fashion-mnist`` installs the files where this function finds
    them.

    Arguments:
        root: folder with the four IDX files, gzipped or not, or with a subfolder ``fashion_mnist`` that contains them.
            None looks in the subfolder ``fashion_mnist`` of ``BNLIB_DATA`` and in Debian's folder.
        splits: which of ``"train"`` and ``"test"`` to load; the files of the other split are not needed.

    Source: Xiao, Rasul and Vollgraf 2017 (https://arxiv.org/abs/1708.07747).

    Raises:
        ValueError: if a split has another name.
        DatasetError: see ``load``.
    """
    tensors = _no_tensors(splits)
    for split in splits:
        tensors[f"{split}_x"], tensors[f"{split}_y"] = read_fashion_mnist(split, root)
    return Dataset("fashion_mnist", num_classes=10, **tensors)


def cifar10(root: str | Path | None = None, splits: Sequence[str] = ("train", "test")) -> Dataset:
    """Load CIFAR-10, 60 000 colour photographs of 32x32 pixels in ten balanced classes: 50 000 train and 10 000 test.

    Arguments:
        root: folder with the archive ``cifar-10-binary.tar.gz``, or with the ``.bin`` files from it, which may be in
            their folder ``cifar-10-batches-bin``; or a folder with a subfolder ``cifar10`` that contains them.
        splits: which of ``"train"`` and ``"test"`` to load; the ``.bin`` files of the other split are not needed.

    Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".

    Raises:
        ValueError: if a split has another name.
        DatasetError: see ``load``.
    """
    tensors = _no_tensors(splits)
    for split, records in read_cifar10(splits, root).items():
        rows = torch.from_numpy(records)
        tensors[f"{split}_x"] = rows[:, 1:].float().div_(255).view(-1, 3, 32, 32)
        tensors[f"{split}_y"] = rows[:, 0].long()
    return Dataset("cifar10", num_classes=10, **tensors)


def _no_tensors(splits: Sequence[str]) -> dict[str, Tensor | None]:
    """Check the names of the splits and return None for each tensor of a data set."""
    given = splits if isinstance(splits, Sequence) and not isinstance(splits, str) else [None]
    if not given or set(given) - {"train", "test"}:
        hint = f"; did you mean ({splits!r},)?" if splits in ("train", "test") else ""
        raise ValueError(f"splits must name 'train', 'test' or both, got {splits!r}{hint}")
    return dict.fromkeys(("train_x", "train_y", "test_x", "test_y"))
