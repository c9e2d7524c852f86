"""The IDX reader on whatever bytes: an array that is right, or a DatasetError, and nothing else."""

import gzip

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bnlib.datasets import DatasetError, read_idx

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
MANY = settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
ARRAYS = st.sampled_from(sorted(CODES)).flatmap(
    lambda code: arrays.arrays(code, arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))
)


def idx(array: np.ndarray) -> bytes:
    code = CODES[array.dtype.str[1:]]
    sizes = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, code, array.ndim]) + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("idx") / "file"


def read_or_none(file, content):
    file.write_bytes(content)
    try:
        return read_idx(file)
    except DatasetError as error:
        assert str(file) in str(error) and "expected" in str(error)
        return None


@MANY
@given(array=ARRAYS, zipped=st.booleans())
def test_what_was_written_is_read(file, array, zipped):
    content = idx(array)
    read = read_or_none(file, gzip.compress(content) if zipped else content)
    assert read.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(read, array)


@MANY
@given(content=st.binary(max_size=200))
def test_any_bytes_are_an_array_or_a_clear_error(file, content):
    read_or_none(file, content)


@MANY
@given(
    head=st.sampled_from(sorted(CODES.values())),
    ndim=st.integers(0, 255),
    rest=st.binary(max_size=100),
    zipped=st.booleans(),
)
def test_any_header_is_an_array_or_a_clear_error(file, head, ndim, rest, zipped):
    content = bytes([0, 0, head, ndim]) + rest
    read_or_none(file, gzip.compress(content) if zipped else content)


@MANY
@given(array=ARRAYS, data=st.data())
def test_a_shortened_file_is_refused(file, array, data):
    content = idx(array)
    assert read_or_none(file, content[: data.draw(st.integers(0, len(content) - 1))]) is None


@MANY
@given(array=ARRAYS, data=st.data())
def test_a_flipped_bit_in_a_gzip_file_never_changes_the_array_unnoticed(file, array, data):
    content = bytearray(gzip.compress(idx(array), mtime=0))
    place = data.draw(st.integers(0, 8 * len(content) - 1))
    content[place // 8] ^= 1 << place % 8
    read = read_or_none(file, bytes(content))
    if read is not None:  # a bit of the gzip header that says nothing of the data
        np.testing.assert_array_equal(read, array)
