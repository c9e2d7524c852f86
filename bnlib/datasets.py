"""Data sets as tensors in memory: digits (embedded in scikit-learn), MNIST, and the synthetic sets of the papers."""

from __future__ import annotations

import difflib
import gzip
import math
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class DatasetError(RuntimeError):
    """A file of a data set is missing or is not what it should be; the message names it and says what to do."""


@dataclass(frozen=True)
class Dataset:
    """Training and test set as tensors.

    Attributes:
        name: as given to ``load``.
        train_x, test_x: float32; pictures (N, 1, H, W) with values from 0 to 1, vectors (N, D).
        train_y, test_y: int64 class numbers, (N,).
        num_classes: number of classes.

    The tensors of a part that was not asked for are None.
    """

    name: str
    train_x: Tensor | None
    train_y: Tensor | None
    test_x: Tensor | None
    test_y: Tensor | None
    num_classes: int

    def to(self, device: torch.device | str) -> Dataset:
        """The same data on ``device``."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Dataset:
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: change(v) for k, v in tensors.items() if isinstance(v, Tensor)})

    def __repr__(self) -> str:
        parts = [
            f"{part}: {tuple(x.shape)} on {x.device}"
            for part, x in (("train", self.train_x), ("test", self.test_x))
            if x is not None
        ]
        return f"Dataset({self.name!r}, {self.num_classes} classes, {', '.join(parts)})"


def load(name: str, root: str | Path | None = None, **options) -> Dataset:
    """Load a data set by name: see ``NAMES`` and, for the options of each, its function in this module.

    Arguments:
        name: ``"digits"``, ``"mnist"``, ``"three_points"`` or ``"wide_variation"``.
        root: for sets that come as files, the folder that holds them; else the environment variable ``BNLIB_DATA``,
            else the user's cache, into which they are downloaded once.

    Raises:
        ValueError: an unknown name.
        TypeError: an option that the data set does not have.
        DatasetError: a file is missing, broken or not the right one.
    """
    if name not in _LOADERS:
        close = difflib.get_close_matches(str(name), NAMES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"name must be one of {', '.join(map(repr, NAMES))}, got {name!r}{hint}")
    if name in _FROM_FILES:
        return _LOADERS[name](root, **options)
    return _LOADERS[name](**options)


@cache
def digits() -> Dataset:
    """1797 handwritten digits of 8x8 pixels; 1437 to train and 360 to test, the same share of each class.

    Source: Alpaydin and Kaynak 1998, the test part of the UCI set as scikit-learn ships it; the split is fixed.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError("the digits come with scikit-learn, which is missing: pip install scikit-learn") from error
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    classes = torch.tensor(labels, dtype=torch.int64)
    train, test = train_test_split(np.arange(len(labels)), test_size=360, stratify=labels, random_state=0)
    return Dataset("digits", images[train], classes[train], images[test], classes[test], 10)


def mnist(root: str | Path | None = None, parts: Sequence[str] = ("train", "test")) -> Dataset:
    """70 000 handwritten digits of 28x28 pixels; 60 000 to train and 10 000 to test.

    Arguments:
        root: folder with the four IDX files, gzipped or not, or with a subfolder ``mnist`` that has them.
        parts: which of ``"train"`` and ``"test"`` to load; the files of the other are not needed.

    Source: LeCun, Cortes and Burges.

    Raises:
        ValueError: another part.
        DatasetError: see ``load``.
    """
    if not parts or set(parts) - {"train", "test"}:
        raise ValueError(f"parts must name 'train', 'test' or both, got {parts!r}")
    tensors: dict[str, Tensor | None] = dict.fromkeys(("train_x", "train_y", "test_x", "test_y"))
    for part in parts:
        prefix = {"train": "train", "test": "t10k"}[part]
        images = _locate(f"{prefix}-images-idx3-ubyte.gz", root)
        labels = _locate(f"{prefix}-labels-idx1-ubyte.gz", root)
        tensors[f"{part}_x"], tensors[f"{part}_y"] = _pictures(images, labels)
    return Dataset("mnist", num_classes=10, **tensors)


def three_points() -> Dataset:
    """The three samples (0, 0, 0), (1, 1, 1), (2, 2, 2) with labels 0, 1, 2, to train and to test.

    Source: Lian and Liu 2019, figure 1.
    """
    x, y = torch.arange(3.0)[:, None].expand(3, 3).clone(), torch.arange(3)
    return Dataset("three_points", x, y, x, y, 3)


def wide_variation(
    num_classes: int = 1000,
    num_train: int = 10_000,
    num_test: int = 100,
    max_value: float = 50.0,
    noise: float = 1.0,
    seed: int = 0,
) -> Dataset:
    """Vectors of ``num_classes`` elements: element i of class i is uniform on (0, ``max_value``), all have noise.

    The noise is normal with standard deviation ``noise``. The same ``seed`` gives the same data.

    Source: Lian and Liu 2019, figure 3.
    """
    generator = torch.Generator().manual_seed(seed)

    def sample(count: int) -> tuple[Tensor, Tensor]:
        y = torch.randint(num_classes, (count,), generator=generator)
        x = noise * torch.randn(count, num_classes, generator=generator)
        x[torch.arange(count), y] += max_value * torch.rand(count, generator=generator)
        return x, y

    return Dataset("wide_variation", *sample(num_train), *sample(num_test), num_classes)


_LOADERS = {"digits": digits, "mnist": mnist, "three_points": three_points, "wide_variation": wide_variation}
_FROM_FILES = ("mnist",)
NAMES = tuple(_LOADERS)


def _locate(file: str, root: str | Path | None) -> Path:
    """The file in ``root`` or ``BNLIB_DATA``, where it must be if either is given, else in the cache."""
    given = root if root is not None else os.environ.get("BNLIB_DATA")
    if given is None:
        return _fetch(file)
    folder = Path(given).expanduser()
    for place in (folder, folder / "mnist"):
        for name in (file, file.removesuffix(".gz")):
            if (place / name).exists():
                return place / name
    where = "root" if root is not None else "the environment variable BNLIB_DATA"
    raise DatasetError(
        f"{file} is missing: looked for it, gzipped or not, in {folder} and {folder / 'mnist'}, named by {where}. "
        f"Put it there from {MNIST_URL}{file}, name another folder, or name none to have it downloaded."
    )


def _fetch(file: str) -> Path:
    """The file in the user's cache, downloaded and checked if it is not there yet."""
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            f"downloading {file} needs pooch, which is missing: pip install pooch. Or set BNLIB_DATA to a folder that "
            "has the file."
        ) from error
    folder = pooch.os_cache("bnlib") / "mnist"
    try:
        # pooch writes to a temporary file and moves it into place once its hash is right.
        return Path(pooch.retrieve(MNIST_URL + file, f"sha256:{MNIST_SHA256[file]}", file, folder, progressbar=True))
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{file} is not in the cache {folder} and could not be downloaded from {MNIST_URL}{file}: {error}. Try "
            "again, or get the file elsewhere and set BNLIB_DATA to the folder that has it."
        ) from error


def _pictures(images_path: Path, labels_path: Path) -> tuple[Tensor, Tensor]:
    """Pictures (N, 1, 28, 28) from 0 to 1 and labels (N,) from two IDX files that must fit each other."""
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or images.shape[1:] != (28, 28) or images.dtype != np.uint8:
        raise _wrong(images_path, f"{images.dtype} values of shape {images.shape}", "MNIST pictures: uint8 (N, 28, 28)")
    if labels.ndim != 1 or labels.dtype != np.uint8:
        raise _wrong(labels_path, f"{labels.dtype} values of shape {labels.shape}", "MNIST labels: uint8 (N,)")
    if len(labels) != len(images):
        raise _wrong(labels_path, f"{len(labels)} labels", f"{len(images)}, one for each picture of {images_path}")
    if len(labels) and labels.max() > 9:
        raise _wrong(labels_path, f"a label {labels.max()}", "labels from 0 to 9")
    return torch.from_numpy(images).float().div_(255).unsqueeze(1), torch.from_numpy(labels).long()


def read_idx(path: str | Path) -> np.ndarray:
    """Read an IDX file, gzipped or not (seen from its content, not its name), as an array in native byte order.

    No more is unpacked than the header promises, whatever the file holds.

    Source: the format description of LeCun's MNIST page.

    Raises:
        DatasetError: the file is missing, cut off, damaged, or not IDX; names it, what was found and expected.
    """
    path = Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise _wrong(path, found, "an IDX file")
    with path.open("rb") as raw:
        head = raw.read(64)
        raw.seek(0)
        if head.lstrip()[:1] == b"<":
            raise _wrong(path, "what looks like a web page", "an IDX file; the download got an error page")
        zipped = head[:2] == b"\x1f\x8b"
        try:
            return _parse_idx(gzip.open(raw) if zipped else raw, path, zipped)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise _wrong(path, f"damaged or cut-off gzip data ({error})", "a whole gzip file") from error


def _parse_idx(stream: BinaryIO, path: Path, zipped: bool) -> np.ndarray:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_TYPES:
        types = ", ".join(f"{code:02x}" for code in _IDX_TYPES)
        raise _wrong(path, f"{magic.hex(' ') or 'no bytes'} at its start", f"00 00, a type ({types}), the dimensions")
    dtype, ndim = np.dtype(_IDX_TYPES[magic[2]]), magic[3]
    sizes = stream.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise _wrong(path, f"a header of {len(sizes)} bytes", f"{4 * ndim} bytes for {ndim} dimensions")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    promised = math.prod(shape) * dtype.itemsize
    # Deflate packs at most 1032 bytes into one: a header that promises more lies, and must not make us allocate.
    room = path.stat().st_size * (1032 if zipped else 1)
    data = _read_up_to(stream, promised + 1) if promised <= room and ndim <= 32 else b""
    if len(data) != promised:
        found = f"more than {promised:,}" if len(data) > promised else f"{len(data):,}" if data else "fewer"
        raise _wrong(path, f"{found} bytes of data", f"{promised:,} for the shape {shape} that its header promises")
    return np.frombuffer(bytes(data), dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _read_up_to(stream: BinaryIO, limit: int) -> bytearray:
    data = bytearray()
    while len(data) < limit and (piece := stream.read(min(1 << 20, limit - len(data)))):
        data += piece
    return data


def _wrong(path: Path, found: str, expected: str) -> DatasetError:
    return DatasetError(f"{path}: found {found}, expected {expected}. Remove the file and get it again.")
