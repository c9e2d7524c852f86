"""The experiments of chapter 3, in small."""

import math

import numpy as np
import pytest

from bnlib.experiments.smoothness import landscape_over_training, one_gradient_step, stable_learning_rates


def test_landscape_walks_and_a_live_run_is_such_a_walk(monkeypatch):
    monkeypatch.setitem(landscape_over_training.STEPS, "mlp", 20)
    found = landscape_over_training.measure("mlp", "He", "batch norm", 32, 0.1, seed=0, device="cpu")
    assert {len(values) for values in found.values()} == {20}
    assert all(low <= high for low, high in zip(found["low"], found["high"], strict=True))
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


@pytest.mark.parametrize("waves", one_gradient_step.WAVES)
def test_no_parabola_of_curvature_beta_is_crossed(waves):
    for length in one_gradient_step.STEP_LENGTHS:
        step = one_gradient_step.lookup(waves, length)
        assert (step.f <= step.bound + 1e-12).all()
        assert step.after <= step.promised + 1e-12
        if length < 2 / step.beta:
            assert step.after < step.before
    slopes = np.abs(np.diff(step.f, 2)) / (step.w[1] - step.w[0]) ** 2
    assert slopes.max() <= step.beta * (1 + 1e-6) and slopes.max() > 0.95 * step.beta
