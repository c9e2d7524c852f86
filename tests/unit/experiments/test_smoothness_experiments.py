"""The experiments of chapter 3, in small."""

import math

import numpy as np
import pytest

from bnlib.experiments.smoothness import landscape_over_training, one_gradient_step, stable_learning_rates


def test_the_landscape_is_probed_and_a_live_run_yields_the_same_numbers(monkeypatch):
    monkeypatch.setitem(landscape_over_training.STEPS, "mlp", 20)
    found = landscape_over_training.measure("mlp", "He", "batch norm", 32, 0.1, seed=0, device="cpu")
    assert {len(values) for values in found.values()} == {20}
    assert all(low <= high for low, high in zip(found["lowest_loss"], found["highest_loss"], strict=True))
    first, second = [], []
    for seen, runs in zip((first, second), range(2), strict=True):
        for done, total, data in landscape_over_training.train("He", 32, 0.1):
            seen.append((done, total, data))
            if runs and done == 2:
                break
    assert [done for done, *_ in first] == list(range(1, 21)) and len(second) == 2
    assert set(first[-1][2]) == {"without normalisation", "batch norm"} and first[-1][2]["without normalisation"][
        "beta"
    ].shape == (1, 20)
    assert first[0][2]["without normalisation"]["loss"][0, 0] != second[0][2]["without normalisation"]["loss"][0, 0]


def test_the_largest_stable_rate_never_leads_above_the_start():
    found = stable_learning_rates.measure("He", "without normalisation", 2, seed=0, device="cpu")
    assert 0.3 < found["rate"] < 2 and found["loss"] < math.log(10) and found["sharpness"] > 0


@pytest.mark.parametrize("frequency", one_gradient_step.FREQUENCIES)
def test_the_function_stays_below_the_bound_of_the_descent_lemma(frequency):
    for step_size in one_gradient_step.STEP_SIZES:
        step = one_gradient_step.gradient_step(frequency, step_size)
        assert (step.f <= step.bound + 1e-12).all()
        assert step.f_end <= step.bound_end + 1e-12
        if step_size < 2 / step.beta:
            assert step.f_end < step.f_start
    slopes = np.abs(np.diff(step.f, 2)) / (step.w[1] - step.w[0]) ** 2
    assert slopes.max() <= step.beta * (1 + 1e-6) and slopes.max() > 0.95 * step.beta
