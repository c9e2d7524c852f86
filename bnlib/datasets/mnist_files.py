"""Find and read the four files of MNIST, and those of Fashion-MNIST, which has the same form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bnlib.datasets.files import DatasetError, fetch, missing_file, user_folders, wrong_file
from bnlib.datasets.idx_files import read_idx

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
"""Address of the folder with MNIST's files."""

MNIST_SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
"""SHA-256 hash of each file of MNIST."""

FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""The folder in which Debian and Ubuntu install Fashion-MNIST."""

FASHION_MNIST_URL = "https://github.com/zalandoresearch/fashion-mnist"
"""Address of the repository with Fashion-MNIST's files."""


def read_mnist(split: str, root: str | Path | None) -> tuple[Tensor, Tensor]:
    """Return the images of a split, shape (N, 1, 28, 28) with values from 0 to 1, and the labels, shape (N,)."""
    return _read_images_and_labels(*(_locate(file, root) for file in _files(split)))


def read_fashion_mnist(split: str, root: str | Path | None) -> tuple[Tensor, Tensor]:
    """Return the same for Fashion-MNIST."""
    return _read_images_and_labels(*(_locate_fashion(file, root) for file in _files(split)))


def _files(split: str) -> tuple[str, str]:
    prefix = {"train": "train", "test": "t10k"}[split]
    return f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"


def _locate(file: str, root: str | Path | None) -> Path:
    """Return the path of an IDX file in ``root`` or ``BNLIB_DATA``, or in the cache if neither is given."""
    folders = user_folders(root, "mnist")
    if not folders:
        return fetch("mnist", MNIST_URL + file, MNIST_SHA256[file])
    if found := _in_folders(file, folders):
        return found
    raise missing_file(f"{file} is missing: looked for it, gzipped or not", folders, root, MNIST_URL + file)


def _locate_fashion(file: str, root: str | Path | None) -> Path:
    """Return the path of an IDX file in ``root``, or else in ``BNLIB_DATA`` or where a system package puts it.

    The files of MNIST have the same names, so only the subfolder of ``BNLIB_DATA`` counts.
    """
    given = user_folders(root, "fashion_mnist")
    folders = given if root is not None else [*given[1:], FASHION_MNIST_FOLDER]
    if found := _in_folders(file, folders):
        return found
    where = " and in ".join(map(str, folders))
    raise DatasetError(
        f"{file} of Fashion-MNIST is missing: looked for it, gzipped or not, in {where}. Install it with `apt install "
        f"dataset-fashion-mnist` (Debian, Ubuntu), or get the four files from {FASHION_MNIST_URL} and give their "
        "folder as root, or put them into the subfolder fashion_mnist of the folder that the environment variable "
        "BNLIB_DATA names."
    )


def _in_folders(file: str, folders: Sequence[Path]) -> Path | None:
    """Return the first path of a file in folders, gzipped or not."""
    paths = (folder / name for folder in folders for name in (file, file.removesuffix(".gz")))
    return next((path for path in paths if path.exists()), None)


def _read_images_and_labels(images_path: Path, labels_path: Path) -> tuple[Tensor, Tensor]:
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or images.shape[1:] != (28, 28) or images.dtype != np.uint8:
        raise wrong_file(
            images_path, f"{images.dtype} values of shape {images.shape}", "MNIST pictures: uint8 (N, 28, 28)"
        )
    if labels.ndim != 1 or labels.dtype != np.uint8:
        raise wrong_file(labels_path, f"{labels.dtype} values of shape {labels.shape}", "MNIST labels: uint8 (N,)")
    if len(labels) != len(images):
        raise wrong_file(labels_path, f"{len(labels)} labels", f"{len(images)}, one for each picture of {images_path}")
    if len(labels) and labels.max() > 9:
        raise wrong_file(labels_path, f"a label {labels.max()}", "labels from 0 to 9")
    return torch.from_numpy(images).float().div_(255).unsqueeze(1), torch.from_numpy(labels).long()
