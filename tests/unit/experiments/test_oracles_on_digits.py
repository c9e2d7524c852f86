"""What docstrings say of oracles and alphas is what the committed result holds, and that is what the code gives."""

import re

import numpy as np
import pytest

from bnlib import figures
from bnlib.experiments.full_normalization import oracles_on_digits as experiment
from bnlib.experiments.full_normalization.oracles_on_digits import SHUFFLED, SINGLE_LABEL, best_learning_rate

BATCH_SIZES = tuple(experiment.EPOCHS)
DEFAULT = "running, floor 0.03"


def median(norm, construction, batch_size):
    return np.median(best_learning_rate(norm, construction, batch_size)[1])


@pytest.mark.parametrize("construction", [SHUFFLED, SINGLE_LABEL])
@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_the_default_learns_everywhere(construction, batch_size):
    assert max(best_learning_rate(DEFAULT, construction, batch_size)[1]) < 0.06
    for floor in (0.003, 0.01):
        assert median(f"running, floor {floor}", construction, batch_size) < 0.06


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_batch_norm_fails_on_batches_of_one_label_and_at_batch_size_one(batch_size):
    assert min(best_learning_rate("batch norm", SINGLE_LABEL, batch_size)[1]) > 0.8
    if batch_size == 1:
        assert min(best_learning_rate("batch norm", SHUFFLED, 1)[1]) > 0.8


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_the_same_batch_for_both_fails_there_too(batch_size):
    assert min(best_learning_rate("batch, floor 0.03", SINGLE_LABEL, batch_size)[1]) > 0.3
    if batch_size == 1:
        assert min(best_learning_rate("batch, floor 0.03", SHUFFLED, 1)[1]) > 0.5
    else:
        assert min(best_learning_rate("leave_one_out, floor 0.03", SINGLE_LABEL, batch_size)[1]) > 0.35


@pytest.mark.parametrize("batch_size", [16, 64])
def test_on_shuffled_batches_of_some_size_all_good_ones_are_level(batch_size):
    for norm in ("batch norm", DEFAULT, "batch, floor 0.03", "leave_one_out, floor 0.03"):
        assert median(norm, SHUFFLED, batch_size) < 0.03


@pytest.mark.parametrize("alpha", ["floor 0.3", "figure 4"])
def test_large_alphas_are_too_noisy_for_one_sample_and_for_one_label(alpha):
    assert median(f"running, {alpha}", SHUFFLED, 1) > 2 * median(DEFAULT, SHUFFLED, 1)
    assert median(f"running, {alpha}", SINGLE_LABEL, 64) > 2 * median(DEFAULT, SINGLE_LABEL, 64)


def test_training_now_goes_from_large_batches_to_small_ones_and_adds_its_errors_to_the_figure():
    started = experiment.train("floor 0.03", SHUFFLED, 0.3, "cpu")
    done, total, data = [next(started) for _ in range(3)][-1]
    assert done == experiment.EPOCHS[64] * (1437 // 64)
    assert total == sum(epochs * (1437 // batch_size) for batch_size, epochs in experiment.EPOCHS.items())
    for norm in ("batch norm", "Full Normalization"):
        assert np.isfinite(data[f"{norm}, your run"][:, 0]).tolist() == [False, False, False, True]
        assert data[f"{norm}, your run"][3, 0] < 0.06
    setting = {"alpha": "floor 0.03", "construction": SHUFFLED, "lr": 0.3}
    told = figures.draw_errors_by_alpha(figures.new_figure(6, 3), data, **setting)
    assert re.search(r"Full Normalization, your run -, -, -, \d\.\d", told)
    assert "your run" not in figures.draw_errors_by_alpha(
        figures.new_figure(6, 3), experiment.lookup(**setting), **setting
    )
