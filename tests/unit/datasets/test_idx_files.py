"""The IDX reader: a broken file is explained, and a file that lies about its size is not unpacked."""

import gzip

import numpy as np
import pytest
from dataset_examples import idx

from bnlib.datasets import DatasetError, read_idx

WHOLE = idx(np.arange(60).reshape(3, 4, 5))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no bytes at its start"),
        (b"<!DOCTYPE html><html>403</html>", "web page"),
        (b"PK\x03\x04 not idx at all", "50 4b 03 04 at its start"),
        (b"\0\0\x07\x01" + bytes(8), "00 00 07 01 at its start"),
        (WHOLE[:9], "header of 5 bytes, expected 12 bytes for 3 dimensions"),
        (WHOLE[:-1], r"59 bytes of data, expected 60 for the shape \(3, 4, 5\)"),
        (WHOLE + b"x", "more than 60 bytes"),
        (gzip.compress(WHOLE)[:-9], "damaged or cut-off gzip"),
        (gzip.compress(WHOLE)[:-8] + bytes(8), "damaged or cut-off gzip"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "fewer bytes of data"),
    ],
    ids=[
        "empty",
        "web page",
        "zip",
        "type",
        "header",
        "short",
        "long",
        "cut gzip",
        "bad checksum",
        "absurd size",
    ],
)
def test_a_broken_idx_file_is_explained(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DatasetError, match=f"file: found .*{message}.*get it again"):
        read_idx(tmp_path / "file")


def test_a_folder_or_nothing_in_place_of_a_file_is_explained(tmp_path):
    with pytest.raises(DatasetError, match="found a folder"):
        read_idx(tmp_path)
    with pytest.raises(DatasetError, match="found nothing"):
        read_idx(tmp_path / "missing")


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    """The header promises one byte; ten million follow."""
    (tmp_path / "bomb").write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 1]) + bytes(10_000_000)))
    with pytest.raises(DatasetError, match="more than 1 bytes"):
        read_idx(tmp_path / "bomb")
