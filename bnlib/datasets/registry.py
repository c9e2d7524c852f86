"""The names of the data sets, and the function that loads a data set by its name."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from bnlib.arguments import check_one_of, suggestion
from bnlib.datasets.dataset import Dataset
from bnlib.datasets.images import cifar10, digits, fashion_mnist, mnist
from bnlib.datasets.synthetic import three_points, wide_variation

_LOADERS = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "three_points": three_points,
    "wide_variation": wide_variation,
}
_FROM_FILES = ("mnist", "fashion_mnist", "cifar10")
NAMES = tuple(_LOADERS)
"""The names that ``load`` accepts."""


def load(name: str, root: str | Path | None = None, **options: Any) -> Dataset:
    """Load a data set by name; its tensors are new ones on the CPU, which the caller may change.

    Arguments:
        name: ``"digits"``, ``"mnist"``, ``"fashion_mnist"``, ``"cifar10"``, ``"three_points"`` or
            ``"wide_variation"``.
        root: for data sets of files only, the folder with these files. If None, the folder is the environment variable
            ``BNLIB_DATA``; if that is not set, MNIST and CIFAR-10 are downloaded once into the user's cache, and
            Fashion-MNIST is read from the folder of its Debian package.
        options: arguments of the function that has the data set's name, such as ``datasets.mnist``.

    Raises:
        ValueError: if the name is unknown, or a ``root`` is given for a data set that has no files.
        TypeError: if the data set does not have an option.
        DatasetError: if a file is missing, damaged or wrong.

    Example:
        >>> datasets.load("digits")
        Dataset('digits', 10 classes, train: (1437, 1, 8, 8) on cpu, test: (360, 1, 8, 8) on cpu)
        >>> datasets.load("cifar")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: name must be one of ..., got 'cifar'; did you mean 'cifar10'?
    """
    check_one_of("name", name, NAMES)
    loader = _LOADERS[name]
    if root is not None and name not in _FROM_FILES:
        raise ValueError(f"root must be None for {name}, which is not read from files of the user, got {root!r}")
    known = inspect.signature(loader).parameters.keys() - {"root"}
    for option in options:
        if option not in known:
            raise TypeError(
                f"options must be among the arguments of {name}, {', '.join(sorted(known)) or 'which has none'}, got "
                f"{option!r}{suggestion(option, known)}"
            )
    return loader(root, **options) if name in _FROM_FILES else loader(**options)
