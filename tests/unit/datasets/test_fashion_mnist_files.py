"""The files of Fashion-MNIST: where they are looked for, and what is said if they are not there."""

import re

import pytest
import torch
from dataset_examples import IMAGES, write_mnist_files

from bnlib.datasets import DatasetError, load, mnist_files

INSTALLED = mnist_files.FASHION_MNIST_FOLDER


@pytest.fixture
def no_package(tmp_path, monkeypatch):
    """A system without Fashion-MNIST's package and without ``BNLIB_DATA``."""
    monkeypatch.delenv("BNLIB_DATA", raising=False)
    monkeypatch.setattr(mnist_files, "FASHION_MNIST_FOLDER", tmp_path / "no package")
    monkeypatch.setattr(mnist_files, "fetch", lambda *arguments: pytest.fail("must not download"))


def check(data):
    assert data.name == "fashion_mnist" and data.test_y.tolist() == [3, 1, 4, 1, 5] and data.train_x is None


def test_a_given_folder_and_its_subfolder_are_read(tmp_path, no_package):
    (tmp_path / "fashion_mnist").mkdir()
    write_mnist_files(tmp_path / "fashion_mnist")
    for root in (tmp_path, tmp_path / "fashion_mnist"):
        check(load("fashion_mnist", root=root, splits=["test"]))


def test_the_folder_of_the_package_is_read_and_the_users_files_come_first(tmp_path, monkeypatch, no_package):
    package, own = tmp_path / "package", tmp_path / "own" / "fashion_mnist"
    for folder in (package, own):
        folder.mkdir(parents=True)
    write_mnist_files(package)
    monkeypatch.setattr(mnist_files, "FASHION_MNIST_FOLDER", package)
    check(load("fashion_mnist", splits=["test"]))
    write_mnist_files(own)
    monkeypatch.setenv("BNLIB_DATA", str(tmp_path / "own"))
    (package / IMAGES).write_bytes(b"broken")
    check(load("fashion_mnist", splits=["test"]))


def test_mnist_in_the_users_folder_is_not_taken_for_fashion_mnist(tmp_path, monkeypatch, no_package):
    write_mnist_files(tmp_path)
    monkeypatch.setenv("BNLIB_DATA", str(tmp_path))
    with pytest.raises(DatasetError, match="is missing"):
        load("fashion_mnist", splits=["test"])


def test_missing_files_say_where_they_were_looked_for_and_how_to_install_them(tmp_path, monkeypatch, no_package):
    package = re.escape(str(tmp_path / "no package"))
    message = rf"{IMAGES} of Fashion-MNIST is missing: .* in {package}\. Install it with `apt install dataset-fashion-m"
    with pytest.raises(DatasetError, match=message):
        load("fashion_mnist", splits=["test"])
    monkeypatch.setenv("BNLIB_DATA", str(tmp_path))
    own = re.escape(str(tmp_path / "fashion_mnist"))
    with pytest.raises(DatasetError, match=f"in {own} and in {package}"):
        load("fashion_mnist", splits=["test"])
    with pytest.raises(DatasetError, match=f"in {re.escape(str(tmp_path))} and in {own}. Install"):
        load("fashion_mnist", root=tmp_path, splits=["test"])


def test_the_package_of_debian():
    if not (INSTALLED / IMAGES).exists():
        pytest.skip("no Fashion-MNIST: apt install dataset-fashion-mnist")
    data = load("fashion_mnist", root=INSTALLED, splits=["test"])
    assert data.test_x.shape == (10_000, 1, 28, 28)
    assert torch.bincount(data.test_y).tolist() == [1000] * 10
    assert data.test_x.mean().item() == pytest.approx(0.2868, abs=1e-3)
