"""Where chapter 12 corrects the theory of Lian and Liu (2019): Theorem 2 and equation (7)."""

import itertools
import math

import numpy as np
import pytest
import torch

from bnlib import mcsgd
from bnlib.experiments.convergence import convergence_problems, convergence_rates, equation_7, theorem_2

GRID = list(itertools.product(np.linspace(0.01, 1, 100), repeat=2))


def test_the_recursion_is_algorithm_2(monkeypatch):
    """With the same samples and the oracle "independent": the same gradients as ``mcsgd.minimize``."""
    monkeypatch.setattr(theorem_2, "STEPS", 40)
    monkeypatch.setattr(theorem_2, "CHUNK", 40)
    p, a = theorem_2.MISSING_CONDITION
    found = theorem_2.measure("independent", p, a, seed=3, device="cpu")
    generator = np.random.default_rng(3)
    start = generator.standard_normal(theorem_2.COPIES)
    offsets = torch.from_numpy(generator.choice((-2.0, 2.0), (40, theorem_2.COPIES)))
    problem = convergence_problems.logistic()
    (stage,) = problem.composition.stages
    stage = mcsgd.Stage(stage.apply, stage.statistic, stage.start.expand(theorem_2.COPIES, -1))
    target = torch.full((1, theorem_2.COPIES), 0.2).double()
    # The oracle draws a second batch for the stage, which it does not need here: the derivative of w + a is 1.
    batches = itertools.chain.from_iterable([(row[None, :, None], target)] * 2 for row in offsets)
    states = mcsgd.minimize(
        mcsgd.Composition([stage], problem.composition.loss),
        {"w": torch.from_numpy(start)[:, None]},
        batches,
        lambda k: problem.scale * (k + 2.0) ** -p,
        lambda k: (k + 1.0) ** -a,
        oracle="independent",
    )
    squared = [problem.squared_gradients(state.previous).mean().item() for state in states]
    assert len(squared) == 40
    np.testing.assert_allclose(found["average"][-1], np.mean(squared), rtol=1e-6)
    np.testing.assert_allclose(found["weighted"][-1], np.dot(squared, (np.arange(40) + 2.0) ** -p), rtol=1e-6)


@pytest.mark.parametrize("oracle", ["independent", "largest bias"])
def test_both_oracles_satisfy_the_assumption_on_the_bias(oracle):
    w, estimate = np.random.default_rng(0).normal(scale=4, size=(2, 10_000))
    bias = theorem_2.gradient_of_oracle(oracle, w, estimate) - theorem_2.exact_gradient(w)
    share = np.square(bias) / np.square(estimate - w)
    assert share.max() <= 1 / 16 + 1e-12 and 1 / (2 * theorem_2.SCALE) == 1 / 16
    if oracle == "largest bias":
        assert share.min() > 1 / 16 - 1e-12 and (bias > 0).all()


def test_the_powers_satisfy_what_is_printed_but_not_the_missing_condition():
    p, a = theorem_2.MISSING_CONDITION
    assert math.isfinite(convergence_rates.theory(p, a).average) and not convergence_rates.theory(p, a).implied
    assert p + a < 1 < p + 2 * a
    # gamma_k L_g <= alpha_{k+1} / 2
    k = np.arange(1000)
    assert (theorem_2.SCALE * (k + 2.0) ** -p / 16 <= (k + 2.0) ** -a / 2).all()
    # The proof that the sum has no bound needs a lag that is smaller than the noise.
    assert a < 2 * p / 3


def test_the_sum_grows_without_the_condition_and_not_with_it():
    for cell, values in theorem_2.load().items():
        found = theorem_2.growth_exponents(values)
        expected = theorem_2.expected_growth(*cell)
        assert np.abs(found - expected).max() < 0.08, cell
        assert (found.min() > 0.1) == (expected > 0)


def test_the_repaired_conditions_imply_those_of_the_lemma_and_contain_the_rival_reading():
    for p, a in GRID:
        if p + a > 1 + 1e-9 and 3 * p - 2 * a > 1 + 1e-9:
            assert p > 0.6 and p > a and convergence_rates.theory(p, a).implied
        if 0.5 + 1e-9 < a < 2 * p - 1 - 1e-9:
            assert p > 0.75 and convergence_rates.theory(p, a).implied


def test_the_readings_of_equation_7():
    errors = equation_7.largest_errors()
    assert errors["operators"] < 1e-12 and errors["zero"] < 1e-12 and errors["formula"] < 1e-12
    assert errors["printed"] == pytest.approx(1) and errors["same sample"] > 0.5


def test_the_exact_gradient_below_the_normaliser_by_finite_differences():
    inputs, targets, weights = equation_7.problem(1)

    def loss(w):
        x = inputs @ w
        return (((x - x.mean()) / x.std(correction=0)) - targets).pow(4).mean()

    shifts = 1e-6 * torch.eye(2).double()
    numeric = torch.stack([(loss(weights + s) - loss(weights - s)) / 2e-6 for s in shifts])
    torch.testing.assert_close(equation_7.exact_gradient(inputs, targets, weights), numeric, rtol=1e-6, atol=1e-6)
