"""Data sets as tensors in memory: handwritten digits, MNIST, CIFAR-10, and synthetic data sets from papers."""

from __future__ import annotations

import difflib
import gzip
import io
import math
import os
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

_DIGITS = Path(__file__).parent / "static" / "digits.npz"

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
"""Address of the folder with MNIST's files."""

MNIST_SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
"""SHA-256 hash of each file of MNIST."""

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
"""Address of CIFAR-10's binary archive."""

CIFAR10_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
"""SHA-256 hash of CIFAR-10's archive."""

_CIFAR10_FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
_CIFAR10_RECORDS = 10_000  # in each file
_CIFAR10_RECORD = 1 + 3 * 32 * 32  # bytes: a label and a picture
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class DatasetError(RuntimeError):
    """The error for a missing or wrong file of a data set; its message names the file and says what to do."""


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
        """Return the same data on ``device``."""
        return self._each(lambda tensor: tensor.to(device))

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


def load(name: str, root: str | Path | None = None, **options) -> Dataset:
    """Load a data set by name.

    Arguments:
        name: ``"digits"``, ``"mnist"``, ``"cifar10"``, ``"three_points"`` or ``"wide_variation"``.
        root: for MNIST and CIFAR-10, the folder with their files. If None, the folder is the environment variable
            ``BNLIB_DATA``; if that is not set, the files are downloaded once into the user's cache.
        options: arguments of the function of this module that has the data set's name.

    Raises:
        ValueError: if the name is unknown.
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
    if name not in _LOADERS:
        close = difflib.get_close_matches(str(name), NAMES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"name must be one of {', '.join(map(repr, NAMES))}, got {name!r}{hint}")
    if name in _FROM_FILES:
        return _LOADERS[name](root, **options)
    return _LOADERS[name](**options)


@cache
def digits() -> Dataset:
    """Load 1797 handwritten digits of 8x8 pixels: 1437 for training and 360 for testing, a fixed stratified split.

    Source: Alpaydin and Kaynak 1998, the test set of the UCI data set (https://doi.org/10.24432/C50P49, CC BY 4.0), in
    the form in which scikit-learn ships it; a file of this package holds it.

    Example:
        >>> datasets.digits().train_y.bincount().tolist()
        [142, 146, 142, 146, 145, 145, 145, 143, 139, 144]
    """
    with np.load(_DIGITS) as stored:
        images = {
            name: torch.tensor(stored[f"{name}_x"] / 16, dtype=torch.float32)[:, None] for name in ("train", "test")
        }
        labels = {name: torch.tensor(stored[f"{name}_y"], dtype=torch.int64) for name in ("train", "test")}
    return Dataset("digits", images["train"], labels["train"], images["test"], labels["test"], 10)


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
        prefix = {"train": "train", "test": "t10k"}[split]
        images = _locate(f"{prefix}-images-idx3-ubyte.gz", root)
        labels = _locate(f"{prefix}-labels-idx1-ubyte.gz", root)
        tensors[f"{split}_x"], tensors[f"{split}_y"] = _pictures(images, labels)
    return Dataset("mnist", num_classes=10, **tensors)


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
    records = _cifar10_records([file for split in splits for file in _CIFAR10_FILES[split]], root)
    for split in splits:
        rows = torch.from_numpy(np.concatenate([records[file] for file in _CIFAR10_FILES[split]]))
        tensors[f"{split}_x"] = rows[:, 1:].float().div_(255).view(-1, 3, 32, 32)
        tensors[f"{split}_y"] = rows[:, 0].long()
    return Dataset("cifar10", num_classes=10, **tensors)


def three_points() -> Dataset:
    """Make the three samples (0, 0, 0), (1, 1, 1), (2, 2, 2) with the labels 0, 1, 2, for training and testing.

    Source: Lian and Liu 2019, figure 1.

    Example:
        >>> datasets.three_points().train_x.tolist()
        [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
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
    """Make vectors in which the element of the sample's class is uniform on (0, ``max_value``) and the others are 0.

    All elements get additional normal noise with standard deviation ``noise``.

    Arguments:
        num_classes: number of classes, and length of the vectors.
        num_train, num_test: number of training and test samples.
        max_value: largest value before the noise.
        noise: standard deviation of the noise.
        seed: seed of the random numbers; the same seed gives the same data.

    Source: Lian and Liu 2019, figure 3.

    Example:
        >>> datasets.wide_variation(num_classes=5, num_train=20, num_test=10)
        Dataset('wide_variation', 5 classes, train: (20, 5) on cpu, test: (10, 5) on cpu)
    """
    generator = torch.Generator().manual_seed(seed)

    def sample(count: int) -> tuple[Tensor, Tensor]:
        y = torch.randint(num_classes, (count,), generator=generator)
        x = noise * torch.randn(count, num_classes, generator=generator)
        x[torch.arange(count), y] += max_value * torch.rand(count, generator=generator)
        return x, y

    return Dataset("wide_variation", *sample(num_train), *sample(num_test), num_classes)


def randomly_scaled(name: str, low: float = -2.5, high: float = 2.5, seed: int = 0) -> Dataset:
    """Load a data set and multiply each training and test sample by its own random number.

    Arguments:
        name: name of the data set, as for ``load``.
        low, high: the numbers are uniform on (``low``, ``high``) and drawn once.
        seed: seed of the numbers; the same seed gives the same numbers.

    Source: Lian and Liu 2019, section 6.1. The paper does not say whether its test set was multiplied, too.

    Example:
        >>> changed = datasets.randomly_scaled("three_points")
        >>> factors = changed.train_x[1:, 0] / datasets.load("three_points").train_x[1:, 0]
        >>> bool((factors.abs() <= 2.5).all()), bool(factors[0] != factors[1])
        (True, True)
    """
    data, generator = load(name), torch.Generator().manual_seed(seed)

    def times(x: Tensor) -> Tensor:
        factors = low + (high - low) * torch.rand(len(x), generator=generator)
        return x * factors.view(-1, *[1] * (x.dim() - 1))

    return replace(data, name=f"{name}, multiplied", train_x=times(data.train_x), test_x=times(data.test_x))


_LOADERS = {
    "digits": digits,
    "mnist": mnist,
    "cifar10": cifar10,
    "three_points": three_points,
    "wide_variation": wide_variation,
}
_FROM_FILES = ("mnist", "cifar10")
NAMES = tuple(_LOADERS)
"""The names that ``load`` accepts."""


def _no_tensors(splits: Sequence[str]) -> dict[str, Tensor | None]:
    """Check the names of the splits and return None for each tensor of a data set."""
    if not splits or set(splits) - {"train", "test"}:
        raise ValueError(f"splits must name 'train', 'test' or both, got {splits!r}")
    return dict.fromkeys(("train_x", "train_y", "test_x", "test_y"))


def _folders(root: str | Path | None, name: str) -> list[Path]:
    """Return the folder of ``root`` or ``BNLIB_DATA`` and its subfolder ``name``; an empty list if neither is given."""
    given = root if root is not None else os.environ.get("BNLIB_DATA")
    if given is None:
        return []
    folder = Path(given).expanduser()
    return [folder, folder / name]


def _missing(what: str, folders: Sequence[Path], root: str | Path | None, url: str) -> DatasetError:
    where = "root" if root is not None else "the environment variable BNLIB_DATA"
    return DatasetError(
        f"{what}, in {folders[0]} and {folders[1]}, given by {where}. "
        f"Download it from {url} into this folder, give another folder, or give none to have it downloaded."
    )


def _locate(file: str, root: str | Path | None) -> Path:
    """Return the path of an IDX file in ``root`` or ``BNLIB_DATA``, or in the cache if neither is given."""
    folders = _folders(root, "mnist")
    if not folders:
        return _fetch("mnist", MNIST_URL + file, MNIST_SHA256[file])
    for folder in folders:
        for name in (file, file.removesuffix(".gz")):
            if (folder / name).exists():
                return folder / name
    raise _missing(f"{file} is missing: looked for it, gzipped or not", folders, root, MNIST_URL + file)


def _fetch(folder: str, url: str, sha256: str) -> Path:
    """Return the path of a file in the user's cache; download it and check its hash if it is not there yet."""
    file = url.rsplit("/", 1)[-1]
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            f"downloading {file} needs pooch, which is missing: pip install pooch. Or set BNLIB_DATA to a folder that "
            "contains the file."
        ) from error
    cache = pooch.os_cache("bnlib") / folder
    try:
        # pooch writes to a temporary file and moves it into place once its hash is right.
        return Path(pooch.retrieve(url, f"sha256:{sha256}", file, cache, progressbar=True))
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{file} is not in the cache {cache} and could not be downloaded from {url}: {error}. Try "
            "again, or get the file elsewhere and set BNLIB_DATA to the folder that contains it."
        ) from error


def _cifar10_records(files: Sequence[str], root: str | Path | None) -> dict[str, np.ndarray]:
    """Return the records of each file, shape (N, 3073): a label followed by an image; from the files or the archive."""
    folders, archive = _folders(root, "cifar10"), CIFAR10_URL.rsplit("/", 1)[-1]
    if not folders:
        return _read_cifar10_archive(_fetch("cifar10", CIFAR10_URL, CIFAR10_SHA256), files)
    for folder in folders:
        for place in (folder, folder / "cifar-10-batches-bin"):
            if all((place / file).exists() for file in files):
                return {file: _records(_read_bin(place / file), place / file) for file in files}
        if (folder / archive).exists():
            return _read_cifar10_archive(folder / archive, files)
    what = f"{archive} is missing: looked for it, or for all of {', '.join(files)}"
    raise _missing(what, folders, root, CIFAR10_URL)


def _read_bin(path: Path) -> bytes:
    if not path.is_file():
        raise _wrong(path, "a folder", "a file of CIFAR-10")
    with path.open("rb") as raw:
        # Read one byte more than expected, which is enough to notice that a file is too long.
        return raw.read(_CIFAR10_RECORDS * _CIFAR10_RECORD + 1)


def _read_cifar10_archive(path: Path, files: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the records of the files in the archive; unpack it in memory, and no more bytes than CIFAR-10 has."""
    _check_head(path, "the gzipped archive of CIFAR-10")
    # Six files, plus 1 MiB for the headers, the class names and the web page in the archive.
    limit = 6 * _CIFAR10_RECORDS * _CIFAR10_RECORD + (1 << 20)
    try:
        with gzip.open(path) as stream:
            content = stream.read(limit + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _wrong(path, f"damaged or cut-off gzip data ({error})", "a whole gzip file") from error
    if len(content) > limit:
        raise _wrong(path, f"more than {limit:,} bytes once unpacked", "the archive of CIFAR-10, which has fewer")
    members = _tar_members(content, path)
    if lacking := [file for file in files if file not in members]:
        raise _wrong(path, f"no {', '.join(lacking)} in it", "the binary archive of CIFAR-10")
    return {file: _records(members[file], f"{path}: {file}") for file in files}


def _tar_members(content: bytes, path: Path) -> dict[str, memoryview]:
    """Return the regular files of the tar archive ``content`` by their names without folders."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            # CIFAR-10 has nine members. A malicious archive may have very many members, or an endless loop of them.
            members = [each for each in islice(tar, 100) if each.isreg() and not each.issparse()]
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:  # malicious headers can cause these
        raise _wrong(path, f"a damaged or cut-off tar archive ({error})", "a whole tar archive") from error
    data = memoryview(content)
    return {Path(each.name).name: data[each.offset_data : each.offset_data + each.size] for each in members}


def _records(data: bytes | memoryview, source: Path | str) -> np.ndarray:
    """Check the bytes of one file of CIFAR-10 and return them as an array of shape (N, 3073)."""
    expected = _CIFAR10_RECORDS * _CIFAR10_RECORD
    if len(data) != expected:
        found = f"more than {expected:,}" if len(data) > expected else f"{len(data):,}"
        raise _wrong(source, f"{found} bytes", f"{expected:,}: {_CIFAR10_RECORDS:,} times a label and 3x32x32 pixels")
    records = np.frombuffer(data, np.uint8).reshape(_CIFAR10_RECORDS, _CIFAR10_RECORD)
    if records[:, 0].max() > 9:
        raise _wrong(source, f"a label {records[:, 0].max()}", "labels from 0 to 9")
    return records


def _pictures(images_path: Path, labels_path: Path) -> tuple[Tensor, Tensor]:
    """Read images, shape (N, 1, 28, 28) with values from 0 to 1, and labels, shape (N,), from two IDX files."""
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
    """Read an IDX file as an array in native byte order.

    The file may be gzipped; the function detects this from the content, not from the name. It never unpacks more bytes
    than the header announces.

    Source: the description of the format on LeCun's MNIST page.

    Raises:
        DatasetError: if the file is missing, cut off, damaged, or not an IDX file. The message names the file and says
            what was found and what was expected.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "labels")
        ...     written = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
        ...     datasets.read_idx(file)
        array([7, 2, 1], dtype=uint8)
    """
    path = Path(path)
    zipped = _check_head(path, "an IDX file")[:2] == b"\x1f\x8b"
    with path.open("rb") as raw:
        try:
            return _parse_idx(gzip.open(raw) if zipped else raw, path, zipped)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise _wrong(path, f"damaged or cut-off gzip data ({error})", "a whole gzip file") from error


def _check_head(path: Path, expected: str) -> bytes:
    """Return the first bytes of a file; raise an error if it does not exist or is a web page."""
    if not path.is_file():
        raise _wrong(path, "a folder" if path.is_dir() else "nothing", expected)
    with path.open("rb") as raw:
        head = raw.read(64)
    if head.lstrip()[:1] == b"<":
        raise _wrong(path, "what looks like a web page", f"{expected}; the download got an error page")
    return head


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
    # Deflate compresses by a factor of at most 1032. A header that announces more data is wrong; allocate nothing then.
    room = path.stat().st_size * (1032 if zipped else 1)
    data = _read_up_to(stream, promised + 1) if promised <= room and ndim <= 32 else b""
    if len(data) != promised:
        found = f"more than {promised:,}" if len(data) > promised else f"{len(data):,}" if data else "fewer"
        raise _wrong(path, f"{found} bytes of data", f"{promised:,} for the shape {shape} in its header")
    return np.frombuffer(bytes(data), dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _read_up_to(stream: BinaryIO, limit: int) -> bytearray:
    data = bytearray()
    while len(data) < limit and (piece := stream.read(min(1 << 20, limit - len(data)))):
        data += piece
    return data


def _wrong(path: Path | str, found: str, expected: str) -> DatasetError:
    return DatasetError(f"{path}: found {found}, expected {expected}. Remove the file and get it again.")
