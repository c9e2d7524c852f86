"""Find and read the files of CIFAR-10, in their archive or unpacked."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from bnlib.datasets.files import check_head, fetch, missing_file, user_folders, wrong_file

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
"""Address of CIFAR-10's binary archive."""

CIFAR10_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
"""SHA-256 hash of CIFAR-10's archive."""

_FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
_RECORDS_PER_FILE = 10_000
_RECORD_BYTES = 1 + 3 * 32 * 32  # a label and an image


def read_cifar10(splits: Sequence[str], root: str | Path | None) -> dict[str, np.ndarray]:
    """Return the records of each split, shape (N, 3073): a label followed by an image."""
    records = _read_files([file for split in splits for file in _FILES[split]], root)
    return {split: np.concatenate([records[file] for file in _FILES[split]]) for split in splits}


def _read_files(files: Sequence[str], root: str | Path | None) -> dict[str, np.ndarray]:
    """Return the records of each file, from the files or the archive, which is downloaded if no folder is given."""
    folders, archive = user_folders(root, "cifar10"), CIFAR10_URL.rsplit("/", 1)[-1]
    if not folders:
        return _read_archive(fetch("cifar10", CIFAR10_URL, CIFAR10_SHA256), files)
    for folder in folders:
        for place in (folder, folder / "cifar-10-batches-bin"):
            if all((place / file).exists() for file in files):
                return {file: _records(_read_bin(place / file), place / file) for file in files}
        if (folder / archive).exists():
            return _read_archive(folder / archive, files)
    what = f"{archive} is missing: looked for it, or for all of {', '.join(files)}"
    raise missing_file(what, folders, root, CIFAR10_URL)


def _read_bin(path: Path) -> bytes:
    if not path.is_file():
        raise wrong_file(path, "a folder", "a file of CIFAR-10")
    with path.open("rb") as raw:
        # Read one byte more than expected, which is enough to notice that a file is too long.
        return raw.read(_RECORDS_PER_FILE * _RECORD_BYTES + 1)


def _read_archive(path: Path, files: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the records of the files in the archive; unpack it in memory, and no more bytes than CIFAR-10 has."""
    check_head(path, "the gzipped archive of CIFAR-10")
    # Six files, plus 1 MiB for the headers, the class names and the web page in the archive.
    limit = 6 * _RECORDS_PER_FILE * _RECORD_BYTES + (1 << 20)
    try:
        with gzip.open(path) as stream:
            content = stream.read(limit + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise wrong_file(path, f"damaged or cut-off gzip data ({error})", "a whole gzip file") from error
    if len(content) > limit:
        raise wrong_file(path, f"more than {limit:,} bytes once unpacked", "the archive of CIFAR-10, which has fewer")
    members = _tar_members(content, path)
    if lacking := [file for file in files if file not in members]:
        raise wrong_file(path, f"no {', '.join(lacking)} in it", "the binary archive of CIFAR-10")
    return {file: _records(members[file], f"{path}: {file}") for file in files}


def _tar_members(content: bytes, path: Path) -> dict[str, memoryview]:
    """Return the regular files of the tar archive ``content`` by their names without folders."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            # CIFAR-10 has nine members. A malicious archive may have very many members, or an endless loop of them.
            members = [each for each in islice(tar, 100) if each.isreg() and not each.issparse()]
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:  # malicious headers can cause these
        raise wrong_file(path, f"a damaged or cut-off tar archive ({error})", "a whole tar archive") from error
    data = memoryview(content)
    return {Path(each.name).name: data[each.offset_data : each.offset_data + each.size] for each in members}


def _records(data: bytes | memoryview, source: Path | str) -> np.ndarray:
    """Check the bytes of one file of CIFAR-10 and return them as an array of shape (N, 3073)."""
    expected = _RECORDS_PER_FILE * _RECORD_BYTES
    if len(data) != expected:
        found = f"more than {expected:,}" if len(data) > expected else f"{len(data):,}"
        raise wrong_file(
            source, f"{found} bytes", f"{expected:,}: {_RECORDS_PER_FILE:,} times a label and 3x32x32 pixels"
        )
    records = np.frombuffer(data, np.uint8).reshape(_RECORDS_PER_FILE, _RECORD_BYTES)
    if records[:, 0].max() > 9:
        raise wrong_file(source, f"a label {records[:, 0].max()}", "labels from 0 to 9")
    return records
