"""The contest on Fashion-MNIST and on CIFAR-10: the rule; on CIFAR-10 one step of ResNet-18 with each norm.

No test needs the files of a data set: random images stand in for them.
"""

import numpy as np
import pytest
import torch

from bnlib import datasets, sweep
from bnlib.datasets import Dataset
from bnlib.experiments.full_normalization import rivals, rivals_on_images
from bnlib.experiments.full_normalization.rivals_on_images import Images
from bnlib.models import BasicBlock

SETTINGS = [(norm, next(iter(rivals.NORMS[norm]))) for norm in rivals.NORMS]


def test_the_cells_of_the_selection_are_complete_at_both_scales():
    for scale in ("quick", "paper"):
        cells = rivals_on_images.selection_cells(scale)
        assert len(cells) == 11 * 2 * 4 * 5
        assert {tuple(run.seed for run in runs) for runs in cells.values()} == {rivals.SELECTION_SEEDS}
        for (_, _, construction, size, lr), (run, _) in cells.items():
            assert (run.batch_size, run.lr, run.batches) == (size, lr, rivals.CONSTRUCTIONS[construction])
            assert run.optimiser is torch.optim.SGD and lr in rivals.learning_rates("SGD", size)
            assert run.epochs == rivals_on_images.IMAGES[scale].epochs


@pytest.fixture
def clothes(monkeypatch):
    """Random images in the form of Fashion-MNIST, each with its number in the first 4 x 4 pixels."""
    parts = []
    for count in (2500, 2400):
        x = torch.rand(count, 1, 28, 28)
        x[:, :, :4, :4] = torch.arange(count).view(-1, 1, 1, 1)
        parts += [x, torch.arange(count) % 10]
    monkeypatch.setattr(datasets, "load", lambda name: Dataset(name, *parts, 10))
    return parts


def test_selection_and_test_train_on_the_same_images_and_the_images_kept_apart_are_others(clothes):
    selection, test = (rivals_on_images.load("quick", selection) for selection in (True, False))
    assert torch.equal(selection.train_x, test.train_x) and torch.equal(selection.train_y, test.train_y)
    train, apart, tested = (part[:, 0, 0, 0].tolist() for part in (test.train_x, selection.test_x, test.test_x))
    assert train == list(range(1000)) and apart == list(range(1000, 2000)) and tested == list(range(2000))
    for labels, count in ((test.train_y, 100), (selection.test_y, 100), (test.test_y, 200)):
        assert labels.bincount().tolist() == [count] * 10
    assert test.train_x.shape == (1000, 1, 7, 7) and test.test_x.shape == (2000, 1, 7, 7)
    assert torch.allclose(test.test_x[5, 0, 3, 2], clothes[2][5, 0, 12:16, 8:12].mean())


@pytest.fixture
def stand_in_for_cifar10(tmp_path, monkeypatch):
    """Random images in the files of CIFAR-10, 20 in each."""
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        records = rng.integers(0, 256, (20, 3073), np.uint8)
        records[:, 0] = np.arange(20) % 10
        (tmp_path / name).write_bytes(records.tobytes())
    monkeypatch.setattr("bnlib.datasets.cifar10_files._RECORDS_PER_FILE", 20)
    monkeypatch.setenv("BNLIB_DATA", str(tmp_path))
    monkeypatch.setitem(rivals_on_images.IMAGES, "paper", Images("cifar10", 2, 1, 2, epochs=1))
    sweep._load.cache_clear()
    yield
    sweep._load.cache_clear()


@pytest.mark.parametrize(("norm", "setting"), [*SETTINGS, ("without normalisation", rivals.BRANCHES_OF_0)])
def test_resnet_18_takes_a_step_on_cifar_10_with_each_norm(norm, setting, stand_in_for_cifar10):
    run = rivals_on_images.runs("paper", norm, setting, "shuffled", 16, 0.03, selection=True)[0]
    before = run.model(seed=run.seed)
    blocks = [layer for layer in before if isinstance(layer, BasicBlock)]
    assert len(blocks) == 8 and blocks[-1].residual[0] is not None and before[-1].in_features == 512
    *_, (done, steps, history) = run.iterate()
    assert (done, steps) == (1, 1) and not history.diverged
    assert np.isfinite(history.train_loss).all() and all(0 <= error <= 1 for error in history.test_error)


def test_the_command_for_cifar_10_runs_the_cells_of_the_contest(stand_in_for_cifar10, tmp_path):
    cells = rivals_on_images.selection_cells("paper", ["without normalisation"])
    (cell, runs), *_ = cells.items()
    histories = sweep.run(runs[:1], tmp_path / "cache", progress=False)
    assert cell[2:4] == ("shuffled", 4) and len(histories[0].epoch) == 2


def test_the_last_convolution_of_each_branch_can_begin_with_0():
    model = rivals_on_images.model("paper", "without normalisation", rivals.BRANCHES_OF_0, seed=0)
    blocks = [layer for layer in model if isinstance(layer, BasicBlock)]
    assert all(value.abs().max() == 0 for block in blocks for value in block.residual[-1].parameters())
    assert all(block.residual[0].weight.abs().max() > 0 for block in blocks)
    plain = rivals_on_images.model("paper", "without normalisation", "PyTorch init", seed=0)
    assert torch.equal(plain[0].weight, model[0].weight)
