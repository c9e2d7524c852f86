"""Downloads of MNIST and CIFAR-10: kept, not repeated, checked, and explained when they fail."""

import gzip
import hashlib
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from dataset_examples import ARCHIVE, IMAGES, LABELS, WHOLE_CIFAR10, check_cifar10, write_mnist_files

from bnlib.datasets import DatasetError, load
from bnlib.datasets.cifar10_files import CIFAR10_SHA256
from bnlib.datasets.mnist_files import MNIST_SHA256


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


@pytest.fixture
def mnist_files(tmp_path):
    write_mnist_files(tmp_path)
    return tmp_path


def test_a_download_is_kept_and_not_repeated(cache, mnist_files, monkeypatch):
    asked = []

    def respond(handler):
        asked.append(handler.path)
        send(handler, (mnist_files / handler.path.lstrip("/")).read_bytes())

    hashes = {name: hashlib.sha256((mnist_files / name).read_bytes()).hexdigest() for name in (IMAGES, LABELS)}
    monkeypatch.setattr("bnlib.datasets.mnist_files.MNIST_SHA256", hashes)
    with server(respond) as url:
        monkeypatch.setattr("bnlib.datasets.mnist_files.MNIST_URL", url)
        assert load("mnist", splits=["test"]).test_y.tolist() == [3, 1, 4, 1, 5]
    assert load("mnist", splits=["test"]).test_y.tolist() == [3, 1, 4, 1, 5]  # the server is gone
    assert asked == [f"/{IMAGES}", f"/{LABELS}"]


def test_an_interrupted_download_leaves_no_half_file(cache, monkeypatch):
    with server(lambda handler: send(handler, b"half", promised=1000)) as url:
        monkeypatch.setattr("bnlib.datasets.mnist_files.MNIST_URL", url)
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
        monkeypatch.setattr("bnlib.datasets.mnist_files.MNIST_URL", url)
        with pytest.raises(DatasetError, match=rf"(?s){IMAGES}.*{MNIST_SHA256[IMAGES]}"):
            load("mnist", splits=["test"])
    assert left_in(cache) == []


def test_offline_with_nothing_cached_says_which_file_and_what_to_do(cache, monkeypatch):
    monkeypatch.setattr("bnlib.datasets.mnist_files.MNIST_URL", "http://127.0.0.1:9/")  # nobody listens there
    with pytest.raises(DatasetError, match=rf"{IMAGES} is not in the cache.*http://127.0.0.1:9/{IMAGES}.*BNLIB_DATA"):
        load("mnist", splits=["test"])


@pytest.fixture
def three_records(monkeypatch):
    """Files of CIFAR-10 hold three pictures each."""
    monkeypatch.setattr("bnlib.datasets.cifar10_files._RECORDS_PER_FILE", 3)


def test_a_downloaded_archive_is_kept_and_not_repeated(cache, three_records, monkeypatch):
    content, asked = gzip.compress(WHOLE_CIFAR10), []
    monkeypatch.setattr("bnlib.datasets.cifar10_files.CIFAR10_SHA256", hashlib.sha256(content).hexdigest())
    with server(lambda handler: (asked.append(handler.path), send(handler, content))) as url:
        monkeypatch.setattr("bnlib.datasets.cifar10_files.CIFAR10_URL", url + ARCHIVE)
        check_cifar10(load("cifar10"))
    check_cifar10(load("cifar10"))  # the server is gone
    assert asked == [f"/{ARCHIVE}"]
    monkeypatch.setenv("BNLIB_DATA", str(cache))
    check_cifar10(load("cifar10"))


def test_a_downloaded_archive_with_the_wrong_hash_is_refused_and_removed(cache, three_records, monkeypatch):
    with server(lambda handler: send(handler, gzip.compress(WHOLE_CIFAR10))) as url:
        monkeypatch.setattr("bnlib.datasets.cifar10_files.CIFAR10_URL", url + ARCHIVE)
        with pytest.raises(DatasetError, match=rf"(?s){ARCHIVE}.*{CIFAR10_SHA256}"):
            load("cifar10")
    assert left_in(cache / "cifar10") == []


def test_offline_without_cifar10_says_which_file_and_what_to_do(cache, monkeypatch):
    monkeypatch.setattr("bnlib.datasets.cifar10_files.CIFAR10_URL", f"http://127.0.0.1:9/{ARCHIVE}")
    with pytest.raises(DatasetError, match=rf"{ARCHIVE} is not in the cache.*http://127.0.0.1:9/{ARCHIVE}.*BNLIB_DATA"):
        load("cifar10")
