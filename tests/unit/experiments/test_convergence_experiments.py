"""The experiments of chapter 12: nested averages, rates on problems that are known, estimators beside a training."""

import itertools
import math

import numpy as np
import pytest
import torch

from bnlib import FullNorm, datasets, figures, mcsgd
from bnlib.experiments.convergence import convergence_problems, convergence_rates, estimator_errors, nested_averages
from bnlib.models import mlp
from bnlib.schedules import PowerSchedule


def test_the_slope_of_a_power_law_is_its_power():
    k = np.geomspace(10, 10_000, 12)
    values = np.stack([3 * k**-0.4, 5 * k**-0.7, k**-0.5])
    values[:, :4] = 1  # before the fit begins
    assert convergence_rates.slope(k, values, from_k=k[4]) == pytest.approx((-0.5, -0.7, -0.4))
    assert abs(convergence_rates.slope(k, values[0], from_k=1).median + 0.4) > 0.02


@pytest.mark.parametrize("steps", [30, 6000])
def test_the_parts_of_a_run_are_even_and_complete(steps):
    edges = convergence_rates.bin_edges(steps)
    assert edges[0] == 0 and edges[-1] == steps and (np.diff(edges) > 0).all()
    assert (
        convergence_rates.bin_ends(steps)[-1] == steps and len(convergence_rates.bin_centres(steps)) == len(edges) - 1
    )
    # The mean over a part, at its geometric mean, keeps a power law.
    law = np.arange(1, steps + 1) ** -0.4
    means = np.add.reduceat(law, edges[:-1]) / np.diff(edges)
    assert convergence_rates.slope(convergence_rates.bin_centres(steps), means, 5).median == pytest.approx(
        -0.4, abs=0.02
    )


def test_what_the_theory_promises():
    corollary = convergence_rates.theory(*convergence_rates.COROLLARY_3)
    assert corollary.average == pytest.approx(-1 / 5) and corollary.error == pytest.approx(-2 / 5)
    assert corollary.lag == pytest.approx(-4 / 5) and corollary.implied
    outside = convergence_rates.theory(0.5, 0.4)
    assert outside.error == outside.lag == pytest.approx(-0.2) and math.isnan(outside.average)
    printed = convergence_rates.theory(0.55, 0.05)
    assert printed.average == pytest.approx(-0.45) and not printed.implied
    constant = convergence_rates.theory(0.0, 0.4)
    assert math.isnan(constant.error) and math.isnan(constant.average) and not constant.implied
    assert not convergence_rates.theory(0.8, 0.7).implied  # 3 * 0.8 - 2 * 0.7 is 1, not more


@pytest.mark.parametrize("oracle", mcsgd.ORACLES)
def test_corollary_3_is_about_one_oracle_and_lemma_1_about_all(oracle):
    promised = convergence_rates.promised_slopes(oracle, *convergence_rates.COROLLARY_3)
    assert promised["error"] == pytest.approx(-2 / 5)
    assert math.isfinite(promised["average"]) == (oracle == "independent")


def test_inside_theorem_2_the_noise_decides():
    for gamma, a in itertools.product(np.linspace(0.01, 1, 100), repeat=2):
        promised = convergence_rates.theory(gamma, a)
        assert math.isnan(promised.average) or promised.error == promised.noise


@pytest.fixture
def few(monkeypatch):
    """Copies of which a test needs no more."""
    monkeypatch.setattr(convergence_rates, "COPIES", 3)


@pytest.mark.parametrize("name", convergence_problems.PROBLEMS)
def test_gradients_and_errors_are_exact(name):
    problem = convergence_problems.PROBLEMS[name]()
    params = problem.start(4, torch.Generator().manual_seed(0))
    found = problem.squared_gradients(params)
    shift = 1e-6
    for copy in range(4):
        one = {key: value[copy : copy + 1] for key, value in params.items()}
        total = 0.0
        for key, value in one.items():
            for place in np.ndindex(*value.shape):
                up, down = value.clone(), value.clone()
                up[place] += shift
                down[place] -= shift
                high, low = (
                    problem.composition.value(one | {key: moved}, (problem.x, problem.target)) for moved in (up, down)
                )
                total += ((high - low) / (2 * shift)).item() ** 2
        assert found[copy].item() == pytest.approx(total, rel=1e-4, abs=1e-9)
    exact = problem.composition.statistics(params, problem.x)
    assert problem.squared_errors(params, exact).abs().max() == 0
    assert problem.squared_errors(params, [each + 2 for each in exact])[0, 0].item() == pytest.approx(
        4 * exact[0].size(1)
    )


def test_the_closed_form_of_the_quadratic():
    problem = convergence_problems.quadratic()
    a, c, t = problem.x[:, 0, 0], problem.x[:, 0, 1], problem.target[:, 0]
    w = torch.tensor([[0.7], [-2.0]]).double()
    slope = (c.square().mean() * a.mean() * w[:, 0] - (c * t).mean()) * a.mean()
    torch.testing.assert_close(problem.squared_gradients({"w": w}), slope.square())


def test_a_copy_goes_its_own_way(few):
    """As it would alone, so that many can run at once; with the errors of ``State.errors``."""
    problem = convergence_problems.network()
    states = convergence_rates.run_algorithm_2(problem, "running", 0.8, 0.4, torch.Generator().manual_seed(3))
    together = list(itertools.islice(states, 6))
    generator = torch.Generator().manual_seed(3)
    start = {name: value[1:2] for name, value in problem.start(3, generator).items()}
    batches = ((x[:, 1:2], target[:, 1:2]) for x, target in problem.batches(3, generator))
    schedules = PowerSchedule(1, 0.8, start=1), PowerSchedule(1, 0.4)
    alone = list(itertools.islice(mcsgd.minimize(problem.composition, start, batches, *schedules), 6))
    for one, all_copies in zip(alone, together, strict=True):
        for name, value in one.params.items():
            torch.testing.assert_close(value[0], all_copies.params[name][1])
    errors, gradients = convergence_rates.exact_errors(problem, together)
    assert errors.shape == (2, 6) and gradients.shape == (6,)
    assert errors[0, -1].item() == pytest.approx(together[-1].errors(problem.composition, problem.x)[0] / 3)


def test_a_short_run_has_all_parts(few, monkeypatch):
    monkeypatch.setattr(convergence_rates, "CHUNK", 40)
    found = convergence_rates.EXPERIMENT.measure_once(("network", "independent", 0.8, 0.4, 100), 0)
    parts = len(convergence_rates.bin_centres(100))
    assert np.shape(found["error"]) == (2, parts)
    assert all(np.shape(found[name]) == (parts,) for name in ("gradient", "average", "weighted"))
    assert all(np.isfinite(np.array(each, float)).all() and np.min(each) > 0 for each in found.values())
    # The mean up to the end is that of all parts.
    whole = np.average(found["gradient"], weights=np.diff(convergence_rates.bin_edges(100)))
    assert found["average"][-1] == pytest.approx(whole, rel=2e-3)


def test_cells_name_problems_and_oracles_that_exist():
    for scale in ("quick", "paper"):
        for problem, oracle, *_ in convergence_rates.cells(scale):
            assert problem in convergence_problems.PROBLEMS and oracle in mcsgd.ORACLES


@pytest.mark.parametrize("estimator", mcsgd.ESTIMATORS)
def test_the_estimators_are_those_of_algorithm_2(estimator):
    """Of one statistic at several weights: the same numbers as ``minimize``."""
    problem, weights = convergence_problems.quadratic(), (0.5, 0.1)
    generator = torch.Generator().manual_seed(0)
    drawn = [(x, target) for x, target in itertools.islice(problem.batches(1, generator), 20)]
    for number, weight in enumerate(weights):
        start = {"w": torch.ones(1, 1).double()}
        chosen = mcsgd.Composition(
            [
                mcsgd.Stage(each.apply, each.statistic, torch.zeros(1, 1).double())
                for each in problem.composition.stages
            ],
            problem.composition.loss,
        )
        states = list(mcsgd.minimize(chosen, start, iter(drawn), 0.05, weight, estimator=estimator))
        estimates = estimator_errors.RunningEstimates(torch.zeros(1).double(), len(weights))
        alpha, before = torch.tensor(weights).double()[:, None], start
        for (x, _), state in zip(drawn, states, strict=True):
            now = state.previous
            seen, same = (chosen.stages[0].statistic(each, x).mean(0)[0] for each in (now, before))
            if before is start and state.step == 1 and estimator == "corrected":
                same = estimates.values["corrected"][number]  # minimize does not correct its first step
                seen = weight * seen + (1 - weight) * same
            estimates.update(alpha, seen, same)
            torch.testing.assert_close(estimates.values[estimator][number], state.estimates[0][0])
            before = now


def test_a_frozen_network_is_followed_exactly():
    """With the weights 1/k the averages are those of the data; at frozen weights the correction is none."""
    x = datasets.load("digits").train_x.flatten(1)
    network = mlp(estimator_errors.SIZES, FullNorm, seed=0).eval()
    (truth,) = estimator_errors.layer_moments(network, x)
    assert truth.shape == (2, 2, 50)
    first, last = network[1](x), network[:-2][:-1](x)
    torch.testing.assert_close(truth[0, 0].float(), first.mean(0))
    torch.testing.assert_close(truth[1, 1].float(), last.square().mean(0))
    estimates = estimator_errors.RunningEstimates(torch.zeros(truth.numel()).double(), 1)
    for step, part in enumerate(x[:1436].split(4)):
        seen = estimator_errors.layer_moments(network, part).flatten()
        estimates.update(torch.tensor([[1 / (step + 1)]]).double(), seen, seen)
    (truth,) = estimator_errors.layer_moments(network, x[:1436])
    halves = estimator_errors.layer_moments(network, x[:1436], 2)
    torch.testing.assert_close(halves.mean(0), truth)
    torch.testing.assert_close(halves[1], estimator_errors.layer_moments(network, x[718:1436])[0])
    for name in ("exponential", "corrected"):
        mean, variance, negative = estimator_errors.relative_errors(estimates.values[name].view(1, *truth.shape), truth)
        assert mean.abs().max() < 1e-4 and variance.abs().max() < 1e-4 and not negative.any()


def test_errors_are_in_units_of_the_truth():
    truth = torch.tensor([[[1.0], [5.0]]]).double()  # mean 1, variance 4
    values = torch.tensor([[[[2.0], [6.0]]], [[[2.0], [3.0]]]]).double()
    mean, variance, negative = estimator_errors.relative_errors(values, truth)
    assert mean.flatten().tolist() == [0.5, 0.5]
    assert variance.flatten().tolist() == [-0.5, -1.25] and negative.flatten().tolist() == [False, True]


def test_the_noise_of_an_average_of_independent_batches():
    generator = torch.Generator().manual_seed(0)
    estimates, errors = estimator_errors.RunningEstimates(torch.zeros(2000).double(), 1), []
    for _ in range(60):
        seen = torch.randn(4, 2000, generator=generator).double().mean(0)
        estimates.update(torch.tensor([[0.3]]).double(), seen, seen)
        errors.append(estimates.values["exponential"].square().mean())
    assert torch.stack(errors[20:]).mean().sqrt().item() == pytest.approx(math.sqrt(0.3 / ((2 - 0.3) * 4)), rel=0.02)


def test_a_short_training_is_tracked(monkeypatch):
    monkeypatch.setattr(estimator_errors, "STEPS", 40)
    found = estimator_errors.EXPERIMENT.measure_once((4, 0.05), 0)
    shape = (len(estimator_errors.LAYERS), len(estimator_errors.ESTIMATORS), len(estimator_errors.ALPHAS))
    assert all(np.shape(found[name]) == shape for name in ("mean", "variance", "not_positive"))
    assert all(np.isfinite(np.array(each, float)).all() for each in found.values())
    assert len(found["loss"]) == 2
    # A convex combination of means and mean squares has no variance below 0.
    assert np.max(np.array(found["not_positive"])[:, 0]) == 0


def power_laws():
    steps = 6000
    k, ends = convergence_rates.bin_centres(steps), convergence_rates.bin_ends(steps)
    runs = {
        "error": np.array([[k**-0.4], [2 * k**-0.4]]),
        "gradient": np.array([k**-0.9, k**-0.9]),
        "average": np.array([ends**-0.31, 3 * ends**-0.31]),
    }
    return {("quadratic", "same", 0.8, 0.4, steps): runs, ("quadratic", "running", 0.0, 0.4, steps): runs}


def test_the_figure_of_rates_tells_slopes_and_promises():
    cells = power_laws() | {("tail", "same", 0.8, 0.4, 6000): {}}
    told = figures.picture(figures.draw_convergence_rates, convergence_rates.rate_curves(cells, "quadratic")).alt
    assert "same batch, p = 0.8, a = 0.4: error -0.40 (theory -0.40), average -0.31 (theory none)" in told
    assert "running, p = 0, a = 0.4: error -0.40 (theory none)" in told
    told = figures.picture(
        figures.draw_convergence_rates, convergence_rates.rate_curves(cells, "quadratic", ("gradient",))
    ).alt
    assert "same batch, p = 0.8, a = 0.4: gradient -0.90 (theory none);" in told


def test_the_figure_of_slopes_has_the_statistic_of_the_curves():
    """Of the last stage: that of the second layer for the network."""
    shown = {key: values for key, values in convergence_rates.load().items() if key[2:4] == (0.8, 0.4)}
    curves = convergence_rates.rate_curves(shown, "network", stage=1)
    slopes = convergence_rates.measured_slopes()
    assert len(curves) == 3
    for name, curve in curves.items():
        slope, bound = slopes["network", name.split(",")[0], 0.8, 0.4]["error"]
        assert (slope.median, bound) == (curve["error"].slope, -0.4)
    told = figures.picture(figures.draw_slopes, slopes).alt
    assert "quadratic, same batch, p = 0.8, a = 0.4: error -0.45 (theory -0.40), average 0.01 (theory none);" in told


@pytest.mark.parametrize("quantity", ["mean", "variance"])
def test_the_figure_of_estimators_tells_the_best(quantity, monkeypatch):
    runs = np.random.default_rng(0).uniform(0.5, 1, (3, 2, 3, 5))
    runs[:, 1, 1, 2] = 0.25  # last layer, corrected, the third weight
    cells = {(16, 0.2): {"mean": runs, "variance": runs} | {quantity: runs, "loss": None}}
    monkeypatch.setattr(estimator_errors, "load", lambda: cells)
    setting = {"quantity": quantity, "batch_size": 16, "lr": 0.2}
    told = figures.picture(figures.draw_estimator_errors, estimator_errors.lookup(**setting), *setting.values()).alt
    assert quantity in told and "batch size 16, learning rate 0.2" in told
    first, last = told.split("; ")
    assert "corrected 0.25 at 0.03" in last and "corrected 0.25" not in first


def test_an_error_in_the_first_average_moves_all_that_stands_above(monkeypatch):
    found = nested_averages.values_by_stage()
    problem = convergence_problems.network()
    params = problem.start(1, torch.Generator().manual_seed(4))
    exact = [each[0, 0].item() for each in problem.composition.statistics(params, problem.x)]
    exact.append(problem.composition.value(params, (problem.x, problem.target)).item())
    assert [each.mean for each in found.values()] == pytest.approx(exact)
    for each in found.values():
        assert each.mean == pytest.approx(each.exact.mean()) and abs(each.mean_off - each.mean) > 0.1
    assert found["stage 1"].mean_off == pytest.approx(found["stage 1"].exact[: nested_averages.FEW].mean())
    monkeypatch.setattr(nested_averages, "FEW", len(problem.x))
    for each in nested_averages.values_by_stage().values():
        np.testing.assert_allclose(each.off, each.exact)
    told = figures.picture(figures.draw_nested_averages, found).alt
    assert "stage 2: -0.03 exact, -0.97 off" in told
