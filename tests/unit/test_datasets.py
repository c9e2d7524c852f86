"""The data sets: what they hold, and how they complain when a file is not what it should be."""

import gzip
import hashlib
import io
import os
import re
import tarfile
import threading
import tracemalloc
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from bnlib import datasets
from bnlib.datasets import DatasetError, load, read_idx

IMAGES, LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
REAL = [Path(path) for path in (os.environ.get("BNLIB_DATA"), Path(__file__).parents[3] / "shared" / "data") if path]


def idx(array: np.ndarray) -> bytes:
    """An unsigned-byte IDX file of ``array``."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype("u1").tobytes()


@pytest.fixture
def mnist_files(tmp_path):
    """Five small pictures in the files and format of MNIST."""
    rng = np.random.default_rng(0)
    (tmp_path / IMAGES).write_bytes(gzip.compress(idx(rng.integers(0, 256, (5, 28, 28)))))
    (tmp_path / LABELS).write_bytes(gzip.compress(idx(np.array([3, 1, 4, 1, 5]))))
    return tmp_path


def test_digits_are_a_stratified_split_of_all_of_them():
    data = load("digits")
    assert data.train_x.shape == (1437, 1, 8, 8) and data.test_x.shape == (360, 1, 8, 8)
    assert data.train_x.dtype == torch.float32 and data.train_y.dtype == torch.int64
    assert data.train_x.min() == 0 and data.train_x.max() == 1
    everything = torch.cat([data.train_x, data.test_x]).flatten(1)
    assert len({tuple(row.tolist()) for row in everything}) == 1797
    shares = [torch.bincount(y, minlength=10) / len(y) for y in (data.train_y, data.test_y)]
    assert (shares[0] - shares[1]).abs().max() < 0.003


def test_digits_are_those_of_scikit_learn():
    images, labels = load_digits(return_X_y=True)
    splits = train_test_split(images / 16, labels, test_size=360, stratify=labels, random_state=0)
    data = load("digits")
    for stored, expected in zip((data.train_x, data.test_x, data.train_y, data.test_y), splits, strict=True):
        assert torch.equal(stored.squeeze(), torch.tensor(expected, dtype=stored.dtype).reshape(stored.squeeze().shape))


def test_digits_show_what_their_label_says():
    """Mean pictures are told apart by the label: a shuffled label would not pass."""
    data = load("digits")
    means = torch.stack([data.train_x[data.train_y == digit].mean(0) for digit in range(10)]).flatten(1)
    nearest = torch.cdist(data.test_x.flatten(1), means).argmin(1)
    assert (nearest == data.test_y).float().mean() > 0.8


def test_three_points_are_the_papers():
    data = load("three_points")
    assert data.train_x.tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    assert data.train_y.tolist() == [0, 1, 2] and torch.equal(data.train_x, data.test_x)


def test_wide_variation_is_the_papers_recipe():
    data = load("wide_variation")
    assert data.train_x.shape == (10_000, 1000) and data.test_x.shape == (100, 1000) and data.num_classes == 1000
    own = data.train_x[torch.arange(10_000), data.train_y]
    assert abs(own.mean() - 25) < 1 and abs(own.std() - (50**2 / 12 + 1) ** 0.5) < 0.5
    others = data.train_x.clone()
    others[torch.arange(10_000), data.train_y] = torch.nan
    assert abs(others.nanmean()) < 0.01 and abs(np.nanstd(others.numpy()) - 1) < 0.01


def test_wide_variation_depends_on_its_seed_alone():
    torch.manual_seed(1)
    first = load("wide_variation", num_train=10, seed=5)
    state = torch.get_rng_state()
    again, other = load("wide_variation", num_train=10, seed=5), load("wide_variation", num_train=10, seed=6)
    assert torch.equal(first.train_x, again.train_x) and not torch.equal(first.train_x, other.train_x)
    assert torch.equal(state, torch.get_rng_state())


def test_each_sample_is_multiplied_by_a_number_of_its_own():
    plain, data, again = load("digits"), datasets.randomly_scaled("digits"), datasets.randomly_scaled("digits")
    for part in ("train", "test"):
        x, times = getattr(plain, f"{part}_x"), getattr(data, f"{part}_x")
        factors = times.flatten(1).sum(1) / x.flatten(1).sum(1)
        torch.testing.assert_close(times, x * factors.view(-1, 1, 1, 1))
        assert -2.5 < factors.min() < -2.3 and 2.3 < factors.max() < 2.5 and abs(factors.mean()) < 0.25
        assert torch.equal(getattr(data, f"{part}_y"), getattr(plain, f"{part}_y"))
        assert torch.equal(times, getattr(again, f"{part}_x"))
    assert not torch.equal(data.train_x, datasets.randomly_scaled("digits", seed=1).train_x)


def test_a_data_set_moves_as_a_whole():
    moved = load("three_points").to("meta")
    assert {moved.train_x.device.type, moved.test_y.device.type} == {"meta"}


@pytest.mark.parametrize(("name", "hint"), [("mnst", "did you mean 'mnist'"), ("imagenet", "got 'imagenet'")])
def test_an_unknown_name_is_answered_with_the_known_ones(name, hint):
    with pytest.raises(ValueError, match=f"'digits', 'mnist', .*{hint}"):
        load(name)


def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match="colour"):
        load("digits", colour=True)


def test_mnist_reads_gzipped_files(mnist_files):
    data = load("mnist", root=mnist_files, splits=["test"])
    assert data.test_x.shape == (5, 1, 28, 28) and data.test_y.tolist() == [3, 1, 4, 1, 5]
    assert data.test_x.max() <= 1 and data.train_x is None


def test_mnist_reads_unpacked_files_in_a_subfolder_named_by_the_environment(mnist_files, monkeypatch):
    (mnist_files / "mnist").mkdir()
    for name in (IMAGES, LABELS):
        plain = gzip.decompress((mnist_files / name).read_bytes())
        (mnist_files / "mnist" / name.removesuffix(".gz")).write_bytes(plain)
        (mnist_files / name).unlink()
    monkeypatch.setenv("BNLIB_DATA", str(mnist_files))
    assert load("mnist", splits=["test"]).test_y.tolist() == [3, 1, 4, 1, 5]


def test_real_mnist_test_files():
    folder = next((path for path in REAL if (path / "mnist" / IMAGES).exists() or (path / IMAGES).exists()), None)
    if folder is None:
        pytest.skip("no MNIST files: set BNLIB_DATA to a folder that has them")
    data = load("mnist", root=folder, splits=["test"])
    assert data.test_x.shape == (10_000, 1, 28, 28)
    assert torch.bincount(data.test_y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.test_x.mean().item() == pytest.approx(0.1325, abs=1e-4)


def test_a_file_missing_in_the_named_folder_is_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "_fetch", lambda *args: pytest.fail("must not download"))
    message = rf"{IMAGES} is missing.*{re.escape(str(tmp_path))}.*https://"
    with pytest.raises(DatasetError, match=message):
        load("mnist", root=tmp_path, splits=["test"])
    monkeypatch.setenv("BNLIB_DATA", str(tmp_path))
    with pytest.raises(DatasetError, match="BNLIB_DATA"):
        load("mnist", splits=["test"])


def test_an_unknown_part_is_named():
    with pytest.raises(ValueError, match="validation"):
        load("mnist", splits=["validation"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (IMAGES, idx(np.zeros(5)), r"shape \(5,\), expected MNIST pictures"),
        (IMAGES, idx(np.zeros((5, 8, 8))), r"shape \(5, 8, 8\), expected MNIST pictures"),
        (LABELS, idx(np.zeros((5, 28, 28))), r"shape \(5, 28, 28\), expected MNIST labels"),
        (LABELS, idx(np.zeros(4)), "4 labels, expected 5"),
        (LABELS, idx(np.full(5, 10)), "a label 10, expected labels from 0 to 9"),
    ],
)
def test_the_wrong_contents_are_named(mnist_files, name, content, message):
    (mnist_files / name).write_bytes(content)
    with pytest.raises(DatasetError, match=f"{name}: found .*{message}"):
        load("mnist", root=mnist_files, splits=["test"])


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


@contextmanager
def server(respond):
    """A web server on this machine that answers every request with ``respond(handler)``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            respond(self)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty user cache, and pooch told not to wait long."""
    monkeypatch.delenv("BNLIB_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / name)
    return tmp_path / "bnlib"


def send(handler, content, promised=None):
    handler.send_response(200)
    handler.send_header("Content-Length", str(promised or len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def left_in(folder):
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_a_download_is_kept_and_not_repeated(cache, mnist_files, monkeypatch):
    asked = []

    def respond(handler):
        asked.append(handler.path)
        send(handler, (mnist_files / handler.path.lstrip("/")).read_bytes())

    hashes = {name: hashlib.sha256((mnist_files / name).read_bytes()).hexdigest() for name in (IMAGES, LABELS)}
    monkeypatch.setattr(datasets, "MNIST_SHA256", hashes)
    with server(respond) as url:
        monkeypatch.setattr(datasets, "MNIST_URL", url)
        assert load("mnist", splits=["test"]).test_y.tolist() == [3, 1, 4, 1, 5]
    assert load("mnist", splits=["test"]).test_y.tolist() == [3, 1, 4, 1, 5]  # the server is gone
    assert asked == [f"/{IMAGES}", f"/{LABELS}"]


def test_an_interrupted_download_leaves_no_half_file(cache, monkeypatch):
    with server(lambda handler: send(handler, b"half", promised=1000)) as url:
        monkeypatch.setattr(datasets, "MNIST_URL", url)
        with pytest.raises(DatasetError, match=rf"{IMAGES} .*{url}.*BNLIB_DATA"):
            load("mnist", splits=["test"])
    assert left_in(cache) == []


def test_a_download_that_the_user_stops_leaves_no_half_file(cache, monkeypatch):
    def stop(self, url, output_file, pooch, **options):
        Path(str(output_file)).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("pooch.HTTPDownloader.__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        load("mnist", splits=["test"])
    assert left_in(cache) == []


def test_a_download_with_the_wrong_hash_is_refused_and_removed(cache, monkeypatch):
    with server(lambda handler: send(handler, b"<html>not found</html>")) as url:
        monkeypatch.setattr(datasets, "MNIST_URL", url)
        with pytest.raises(DatasetError, match=rf"(?s){IMAGES}.*{datasets.MNIST_SHA256[IMAGES]}"):
            load("mnist", splits=["test"])
    assert left_in(cache) == []


def test_offline_with_nothing_cached_says_which_file_and_what_to_do(cache, monkeypatch):
    monkeypatch.setattr(datasets, "MNIST_URL", "http://127.0.0.1:9/")  # nobody listens there
    with pytest.raises(DatasetError, match=rf"{IMAGES} is not in the cache.*http://127.0.0.1:9/{IMAGES}.*BNLIB_DATA"):
        load("mnist", splits=["test"])


ARCHIVE, UNPACKED = "cifar-10-binary.tar.gz", "cifar-10-batches-bin"
FILES = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
RECORDS = np.random.default_rng(0).integers(0, 256, (6, 3, 1 + 3072), np.uint8)
RECORDS[..., 0] = np.arange(18).reshape(6, 3) % 10


@pytest.fixture
def three_records(monkeypatch):
    """Files of CIFAR-10 hold three pictures each."""
    monkeypatch.setattr(datasets, "_CIFAR10_RECORDS", 3)


def member(name, content=b"", kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(f"{UNPACKED}/{name}")
    info.size, info.type, info.linkname = len(content), kind, f"{UNPACKED}/readme.html"
    return info, content


def tar(members) -> bytes:
    """A tar archive of pairs of a header and the content."""
    with io.BytesIO() as raw:
        with tarfile.open(fileobj=raw, mode="w") as archive:
            for info, content in members:
                archive.addfile(info, io.BytesIO(content))
        return raw.getvalue()


# In the order of the real archive, with what else is in it.
WHOLE_CIFAR10 = tar(
    [member("", kind=tarfile.DIRTYPE), member("batches.meta.txt", b"airplane")]
    + [member(name, records.tobytes()) for name, records in zip(FILES, RECORDS, strict=True)]
    + [member("readme.html", b"<html>")]
)


def check_cifar10(data):
    """Record by record: a label, then the red, the green and the blue plane, each by rows."""
    assert data.num_classes == 10
    for x, y, records in ((data.train_x, data.train_y, RECORDS[:5]), (data.test_x, data.test_y, RECORDS[5:])):
        records = records.reshape(-1, 1 + 3072)
        assert x.dtype == torch.float32 and x.shape == (len(records), 3, 32, 32)
        assert y.dtype == torch.int64 and y.tolist() == records[:, 0].tolist()
        assert x.min() == 0 and x.max() == 1
        for channel, row, column in ((0, 0, 0), (0, 0, 31), (0, 31, 0), (1, 2, 3), (2, 0, 0), (2, 31, 31)):
            values = records[:, 1 + 1024 * channel + 32 * row + column]
            np.testing.assert_allclose(x[:, channel, row, column], values / 255, rtol=1e-6)


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


def test_a_downloaded_archive_is_kept_and_not_repeated(cache, three_records, monkeypatch):
    content, asked = gzip.compress(WHOLE_CIFAR10), []
    monkeypatch.setattr(datasets, "CIFAR10_SHA256", hashlib.sha256(content).hexdigest())
    with server(lambda handler: (asked.append(handler.path), send(handler, content))) as url:
        monkeypatch.setattr(datasets, "CIFAR10_URL", url + ARCHIVE)
        check_cifar10(load("cifar10"))
    check_cifar10(load("cifar10"))  # the server is gone
    assert asked == [f"/{ARCHIVE}"]
    monkeypatch.setenv("BNLIB_DATA", str(cache))
    check_cifar10(load("cifar10"))


def test_a_downloaded_archive_with_the_wrong_hash_is_refused_and_removed(cache, three_records, monkeypatch):
    with server(lambda handler: send(handler, gzip.compress(WHOLE_CIFAR10))) as url:
        monkeypatch.setattr(datasets, "CIFAR10_URL", url + ARCHIVE)
        with pytest.raises(DatasetError, match=rf"(?s){ARCHIVE}.*{datasets.CIFAR10_SHA256}"):
            load("cifar10")
    assert left_in(cache / "cifar10") == []


def test_offline_without_cifar10_says_which_file_and_what_to_do(cache, monkeypatch):
    monkeypatch.setattr(datasets, "CIFAR10_URL", f"http://127.0.0.1:9/{ARCHIVE}")
    with pytest.raises(DatasetError, match=rf"{ARCHIVE} is not in the cache.*http://127.0.0.1:9/{ARCHIVE}.*BNLIB_DATA"):
        load("cifar10")
