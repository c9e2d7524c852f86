"""The files of MNIST: where they are looked for, and how a missing or wrong file is explained."""

import gzip
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_examples import IMAGES, LABELS, idx, write_mnist_files

from bnlib.datasets import DatasetError, load

REAL = [Path(path) for path in (os.environ.get("BNLIB_DATA"), Path(__file__).parents[4] / "shared" / "data") if path]


@pytest.fixture
def mnist_files(tmp_path):
    write_mnist_files(tmp_path)
    return tmp_path


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
    monkeypatch.setattr("bnlib.datasets.mnist_files.fetch", lambda *args: pytest.fail("must not download"))
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
