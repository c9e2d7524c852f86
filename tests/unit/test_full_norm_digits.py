"""What docstrings say of oracles and alphas is what the committed result holds, and that is what the code gives."""

import random

import numpy as np
import pytest

from bnlib.experiments import full_norm_digits as experiment
from bnlib.experiments.full_norm_digits import SHUFFLED, SINGLE_LABEL, best
from bnlib.sweep import run

BATCH_SIZES = tuple(experiment.EPOCHS)
DEFAULT = "running, floor 0.03"


def median(norm, construction, batch_size):
    return np.median(best(norm, construction, batch_size)[1])


@pytest.mark.parametrize("construction", [SHUFFLED, SINGLE_LABEL])
@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_the_default_learns_everywhere(construction, batch_size):
    assert max(best(DEFAULT, construction, batch_size)[1]) < 0.06
    for floor in (0.003, 0.01):
        assert median(f"running, floor {floor}", construction, batch_size) < 0.06


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_batch_norm_fails_on_batches_of_one_label_and_at_batch_size_one(batch_size):
    assert min(best("batch norm", SINGLE_LABEL, batch_size)[1]) > 0.8
    if batch_size == 1:
        assert min(best("batch norm", SHUFFLED, 1)[1]) > 0.8


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_the_same_batch_for_both_fails_there_too(batch_size):
    assert min(best("batch, floor 0.03", SINGLE_LABEL, batch_size)[1]) > 0.3
    if batch_size == 1:
        assert min(best("batch, floor 0.03", SHUFFLED, 1)[1]) > 0.5
    else:
        assert min(best("leave_one_out, floor 0.03", SINGLE_LABEL, batch_size)[1]) > 0.35


@pytest.mark.parametrize("batch_size", [16, 64])
def test_on_shuffled_batches_of_some_size_all_good_ones_are_level(batch_size):
    for norm in ("batch norm", DEFAULT, "batch, floor 0.03", "leave_one_out, floor 0.03"):
        assert median(norm, SHUFFLED, batch_size) < 0.03


@pytest.mark.parametrize("alpha", ["floor 0.3", "figure 4"])
def test_large_alphas_are_too_noisy_for_one_sample_and_for_one_label(alpha):
    assert median(f"running, {alpha}", SHUFFLED, 1) > 2 * median(DEFAULT, SHUFFLED, 1)
    assert median(f"running, {alpha}", SINGLE_LABEL, 64) > 2 * median(DEFAULT, SINGLE_LABEL, 64)


SETTLED = [
    (f"running, floor {floor}", SHUFFLED, *setting)
    for floor in (0.01, 0.03, 0.1)
    for setting in ((16, 0.03), (64, 0.03), (64, 0.1))
]


def test_committed_cells_are_what_the_code_gives(tmp_path):
    """Three random cells of those that have learned: rounding differs between machines, and they forget it."""
    cells, kept = experiment.cells("quick"), experiment.load()
    for cell in random.sample(SETTLED, 3):
        for index, history in enumerate(run(cells[cell], tmp_path, progress=False)):
            assert history.train_loss[-1] == pytest.approx(kept[cell]["train_loss"][index][-1], rel=0.1), (cell, index)
            assert history.test_error[-1] == pytest.approx(kept[cell]["test_error"][index][-1], abs=0.02), (cell, index)
