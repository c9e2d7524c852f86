"""The files of CIFAR-10, in their archive and unpacked: what is read, and how a wrong file is explained."""

import gzip
import re
import tarfile
import tracemalloc

import pytest
from dataset_examples import ARCHIVE, FILES, RECORDS, UNPACKED, WHOLE_CIFAR10, check_cifar10, member, tar

from bnlib.datasets import DatasetError, load


@pytest.fixture
def three_records(monkeypatch):
    """Files of CIFAR-10 hold three pictures each."""
    monkeypatch.setattr("bnlib.datasets.cifar10_files._RECORDS_PER_FILE", 3)


@pytest.mark.parametrize("folder", [".", "cifar10"])
def test_cifar10_reads_the_archive(tmp_path, three_records, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / ARCHIVE).write_bytes(gzip.compress(WHOLE_CIFAR10))
    check_cifar10(load("cifar10", root=tmp_path))


@pytest.mark.parametrize("folder", [".", UNPACKED, "cifar10", f"cifar10/{UNPACKED}"])
def test_cifar10_reads_unpacked_files(tmp_path, three_records, folder, monkeypatch):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for name, records in zip(FILES, RECORDS, strict=True):
        (tmp_path / folder / name).write_bytes(records.tobytes())
    monkeypatch.setenv("BNLIB_DATA", str(tmp_path))
    check_cifar10(load("cifar10"))


def test_one_part_of_cifar10_needs_its_files_alone(tmp_path, three_records):
    (tmp_path / "test_batch.bin").write_bytes(RECORDS[5].tobytes())
    data = load("cifar10", root=tmp_path, splits=["test"])
    assert data.test_y.tolist() == [5, 6, 7] and data.train_x is None and data.train_y is None
    lacking = (
        rf"{ARCHIVE} is missing.*data_batch_5\.bin, in {re.escape(str(tmp_path))} and .*cifar10, given by root.*http"
    )
    with pytest.raises(DatasetError, match=lacking):
        load("cifar10", root=tmp_path, splits=["train"])
    with pytest.raises(ValueError, match="validation"):
        load("cifar10", root=tmp_path, splits=["validation"])


def test_one_part_of_cifar10_needs_its_members_alone(tmp_path, three_records):
    (tmp_path / ARCHIVE).write_bytes(gzip.compress(tar([member("test_batch.bin", RECORDS[5].tobytes())])))
    assert load("cifar10", root=tmp_path, splits=["test"]).test_y.tolist() == [5, 6, 7]


def test_a_file_of_cifar10_has_ten_thousand_records(tmp_path):
    with (tmp_path / "test_batch.bin").open("wb") as file:
        file.truncate(10_000 * 3073)
    data = load("cifar10", root=tmp_path, splits=["test"])
    assert data.test_x.shape == (10_000, 3, 32, 32) and data.test_y.tolist() == [0] * 10_000


def crafted(raw_size: bytes) -> bytes:
    """The header of a member whose field for the size is ``raw_size``."""
    header = bytearray(member("data_batch_1.bin")[0].tobuf(tarfile.GNU_FORMAT))
    header[124:136], header[148:156] = raw_size, b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


BACK = b"\xff" + (-1024).to_bytes(11, "big", signed=True)  # to the member before
LONG_NAME = member("x", b"name", tarfile.GNUTYPE_LONGNAME)
CUT = gzip.compress(WHOLE_CIFAR10)[:-9]
BROKEN_ARCHIVES = {
    "empty": (b"", "damaged or cut-off tar archive"),
    "web page": (
        b"  <!DOCTYPE html><html>403</html>",
        "what looks like a web page, expected the gzipped archive.*error page",
    ),
    "zip": (b"PK\x03\x04", "damaged or cut-off gzip data.*Not a gzipped file"),
    "cut gzip": (CUT, "damaged or cut-off gzip data.*end-of-stream"),
    "bad checksum": (CUT + bytes(9), "damaged or cut-off gzip data"),
    "no tar": (gzip.compress(b"x" * 2000), "damaged or cut-off tar archive"),
    "cut tar": (gzip.compress(WHOLE_CIFAR10[:20_000]), "damaged or cut-off tar archive .unexpected end"),
    "tar cut at a header": (gzip.compress(WHOLE_CIFAR10[:1536]), r"no data_batch_1\.bin, .*test_batch\.bin in it"),
    "size before the start": (gzip.compress(crafted(BACK)), "damaged or cut-off tar archive"),
    "size that leads back": (
        gzip.compress(tar([member("a"), member("b")])[:1024] + crafted(BACK)),
        r"no .*test_batch\.bin in it",
    ),
    "absurd size": (gzip.compress(crafted(b"\x80" + b"\x7f" * 11) + bytes(1024)), "damaged or cut-off tar archive"),
    "names of names": (gzip.compress(tar([LONG_NAME] * 900)), "damaged or cut-off tar archive .maximum recursion"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN_ARCHIVES.values(), ids=BROKEN_ARCHIVES)
def test_a_broken_archive_is_explained(tmp_path, three_records, content, message):
    (tmp_path / ARCHIVE).write_bytes(content)
    with pytest.raises(DatasetError, match=f"{ARCHIVE}: found .*{message}.*get it again"):
        load("cifar10", root=tmp_path)


def test_a_bomb_is_unpacked_no_further_than_cifar10_goes(tmp_path, three_records):
    (tmp_path / ARCHIVE).write_bytes(gzip.compress(bytes(50_000_000)))
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match=f"{ARCHIVE}: found more than 1,103,890 bytes once unpacked, expected"):
            load("cifar10", root=tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_only_plain_files_of_an_archive_are_read(tmp_path, three_records, kind):
    (tmp_path / "readme.html").write_bytes(RECORDS[5].tobytes())
    members = [member("readme.html", RECORDS[5].tobytes()), member("test_batch.bin", kind=kind)]
    (tmp_path / ARCHIVE).write_bytes(gzip.compress(tar(members)))
    with pytest.raises(DatasetError, match=r"found no test_batch\.bin in it, expected the binary archive of CIFAR-10"):
        load("cifar10", root=tmp_path, splits=["test"])


WRONG_RECORDS = {
    "none": (b"", "found 0 bytes, expected 9,219: 3 times a label and 3x32x32 pixels"),
    "short": (RECORDS[5].tobytes()[:-1], "found 9,218 bytes, expected 9,219"),
    "long": (RECORDS[5].tobytes() + b"x", "found more than 9,219 bytes, expected 9,219"),
    "label": (RECORDS[5].tobytes()[:-3073] + b"\x0a" + bytes(3072), "found a label 10, expected labels from 0 to 9"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("content", "message"), WRONG_RECORDS.values(), ids=WRONG_RECORDS)
def test_a_wrong_file_of_cifar10_is_named(tmp_path, three_records, content, message, packed):
    if packed:
        (tmp_path / ARCHIVE).write_bytes(gzip.compress(tar([member("test_batch.bin", content)])))
    else:
        (tmp_path / "test_batch.bin").write_bytes(content)
    with pytest.raises(DatasetError, match=rf"{f'{ARCHIVE}: ' * packed}test_batch\.bin: {message}.*get it again"):
        load("cifar10", root=tmp_path, splits=["test"])


def test_a_folder_in_place_of_a_file_of_cifar10_is_named(tmp_path):
    (tmp_path / "test_batch.bin").mkdir()
    with pytest.raises(DatasetError, match=r"test_batch\.bin: found a folder, expected a file of CIFAR-10"):
        load("cifar10", root=tmp_path, splits=["test"])
    (tmp_path / ARCHIVE).mkdir()
    with pytest.raises(DatasetError, match=f"{ARCHIVE}: found a folder, expected the gzipped archive"):
        load("cifar10", root=tmp_path, splits=["train"])
