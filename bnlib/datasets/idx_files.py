"""Read IDX files, the format of MNIST's images and labels."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bnlib.arguments import check_kind
from bnlib.datasets.files import check_head, wrong_file

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


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
    check_kind("path", path, (str, os.PathLike), "the path of a file")
    path = Path(path)
    zipped = check_head(path, "an IDX file")[:2] == b"\x1f\x8b"
    with path.open("rb") as raw:
        try:
            return _parse_idx(gzip.open(raw) if zipped else raw, path, zipped)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise wrong_file(path, f"damaged or cut-off gzip data ({error})", "a whole gzip file") from error


def _parse_idx(stream: BinaryIO, path: Path, zipped: bool) -> np.ndarray:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_TYPES:
        types = ", ".join(f"{code:02x}" for code in _IDX_TYPES)
        raise wrong_file(
            path, f"{magic.hex(' ') or 'no bytes'} at its start", f"00 00, a type ({types}), the dimensions"
        )
    dtype, ndim = np.dtype(_IDX_TYPES[magic[2]]), magic[3]
    sizes = stream.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise wrong_file(path, f"a header of {len(sizes)} bytes", f"{4 * ndim} bytes for {ndim} dimensions")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    promised = math.prod(shape) * dtype.itemsize
    # Deflate compresses by a factor of at most 1032. A header that announces more data is wrong; allocate nothing then.
    room = path.stat().st_size * (1032 if zipped else 1)
    data = _read_up_to(stream, promised + 1) if promised <= room and ndim <= 32 else b""
    if len(data) != promised:
        found = f"more than {promised:,}" if len(data) > promised else f"{len(data):,}" if data else "fewer"
        raise wrong_file(path, f"{found} bytes of data", f"{promised:,} for the shape {shape} in its header")
    return np.frombuffer(bytes(data), dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _read_up_to(stream: BinaryIO, limit: int) -> bytearray:
    data = bytearray()
    while len(data) < limit and (piece := stream.read(min(1 << 20, limit - len(data)))):
        data += piece
    return data
