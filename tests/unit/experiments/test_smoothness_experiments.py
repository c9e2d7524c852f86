"""The experiments of chapter 3, in small."""

import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from bnlib import BatchNorm, figures
from bnlib.experiments.smoothness import (
    distance_to_solution,
    growing_weights,
    initial_sharpness,
    inserted_batch_norm,
    landscape_over_training,
    loss_along_gradient,
    one_gradient_step,
    stable_learning_rates,
    stable_rates_near_border,
    three_samples,
    weight_gradients,
)


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


def test_a_stable_rate_never_leads_above_the_start():
    low, high = (
        stable_learning_rates.measure("He", "without normalisation", 2, lr, seed=0, device="cpu") for lr in (0.1, 30.0)
    )
    assert low["stable"] == 1 and low["loss"] < math.log(10)
    assert high["stable"] == 0 and math.isnan(high["loss"])


def test_the_scan_is_gathered_over_learning_rates():
    """Made up: the first seed has a gap, the second has one border, the third is stable everywhere."""
    rates = stable_rates_near_border.rates_of("He", "batch norm", 8)
    stable = np.ones((3, len(rates)))
    stable[0, [7, 8, 20]] = 0
    stable[0, 30:] = stable[1, 12:] = 0
    loss = np.where(stable > 0, np.arange(len(rates), 0, -1.0), np.nan)
    rows = [{"stable": a, "loss": b} for a, b in zip(stable.T, loss.T, strict=True)]
    found = stable_rates_near_border.gather(rates, rows)
    assert found["first_unstable"].tolist() == [rates[7], rates[12], math.inf]
    assert found["last_stable"].tolist() == [rates[29], rates[11], rates[-1]]
    assert found["lowest_loss"].tolist() == [loss[0, 29], loss[1, 11], 1]


def test_without_normalisation_stable_and_unstable_rates_alternate():
    """So no bisection can find the border: there is none."""
    scans = stable_rates_near_border.load()
    for depth in (4, 8):
        plain = scans["He", "without normalisation", depth]
        assert (plain["last_stable"] > plain["first_unstable"]).sum() >= 3


def test_the_finer_scan_reaches_beyond_all_borders():
    """A window that ends at a border could miss what is behind it."""
    for (init, norm, depth), cell in stable_rates_near_border.load().items():
        rates = np.array(stable_learning_rates.LEARNING_RATES)
        if init == "He":
            low, high = (rates[at] for at in stable_rates_near_border.WINDOWS[norm, depth])
            assert low < 0.66 * cell["first_unstable"].min() and high > 1.7 * cell["last_stable"].max()
            finer = stable_rates_near_border.finer_rates(norm, depth)
            assert low < finer[0] and finer[-1] < high and not {*finer} & {*rates}
        inside = np.diff(np.log(cell["rates"]))
        assert inside.min() > 0.06 and inside.max() < 0.3


def test_batch_norm_can_be_inserted_without_changing_the_activations():
    x, _ = stable_learning_rates.samples()
    plain = weight_gradients.plain_network("PyTorch default", 0)
    twin = weight_gradients.with_batch_norm(plain, x.double(), [0, 2])
    assert [isinstance(layer, BatchNorm) for layer in twin].count(True) == 2 and isinstance(twin[2], BatchNorm)
    torch.testing.assert_close(twin(x.double()), plain(x.double()), rtol=1e-9, atol=1e-9)
    # Not on other inputs in train mode: the statistics are those of the batch.
    assert not torch.allclose(twin(x[:50].double()), plain(x[:50].double()), rtol=1e-3)


def test_the_real_gradients_of_weights_are_found_by_the_chain_rule():
    x, y = stable_learning_rates.samples()
    x = x.flatten(1)
    plain = weight_gradients.plain_network("He", 1)
    twin = weight_gradients.with_batch_norm(plain, x.double(), [0])
    first, rest = plain[1], plain[2:]
    outputs = first(x.double()).detach().requires_grad_()
    (v,) = torch.autograd.grad(nn.functional.cross_entropy(rest(outputs), y), outputs)
    normalised = (outputs - outputs.mean(0)) / outputs.std(0, correction=0)
    projected = v - v.mean(0) - normalised * (v * normalised).mean(0)
    expected = (projected.T @ x.double()).detach()
    gradient = weight_gradients.weight_gradients(twin, (x.double(), y))[0]
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-9)
    without = (v.T @ x.double()).norm()
    removed = ((v - v.mean(0)).T @ x.double()).norm() / without
    assert weight_gradients.centred(plain, (x.double(), y), 0) == pytest.approx(removed.item(), rel=1e-6)
    ratio = weight_gradients.worst_case(plain, (x.double(), y), 0)
    assert ratio == pytest.approx((projected.norm() / v.norm()).item(), rel=1e-6) and ratio < 1


def test_batch_norm_is_inserted_and_every_rate_tried_from_the_same_start(monkeypatch):
    monkeypatch.setattr(inserted_batch_norm, "LEARNING_RATES", (0.1, 0.1, 30.0))
    found = inserted_batch_norm.measure("He", 2, seed=0, device="cpu")
    assert found["stable"] == [1, 1, 0] and found["loss"][0] == found["loss"][1] < 2 and math.isnan(found["loss"][2])
    kept = inserted_batch_norm.EXPERIMENT.load("quick")["He", 2]["sharpness"][0]
    assert found["sharpness"] == pytest.approx(kept, rel=1e-2)


def test_the_nearest_point_of_a_ray_is_nearer_by_the_amount_in_the_lemma():
    """For one row: |w0 - w*|^2 - (|w*|^2 - <w*, w0>)^2 / |w*|^2."""
    initial, trained = torch.tensor([[3.0, 1.0, 0.0]]).double(), torch.tensor([[4.0, 4.0, 2.0]]).double()
    found = distance_to_solution.distances(initial, trained)
    gain = (trained.square().sum() - (trained * initial).sum()) ** 2 / trained.square().sum()
    square = found["moved"] ** 2 - gain.item() / 10
    assert found["to_rays"] ** 2 == pytest.approx(square)
    angle = math.asin(found["to_rays"])
    assert found["at_equal_norm"] == pytest.approx(2 * math.sin(angle / 2))
    opposite = distance_to_solution.distances(initial, -trained)
    assert opposite["to_rays"] == 1  # a ray that points away: its nearest point is 0


def test_the_best_rate_lets_every_seed_reach_the_target():
    steps = {0.1: np.array([9.0, 9, 9]), 0.3: np.array([4.0, 5, 6]), 1.0: np.array([1.0, 1, math.nan])}
    assert distance_to_solution.best_rate(steps) == 0.3
    with pytest.raises(ValueError, match=re.escape("must let every seed reach the target, got [1.0]")):
        distance_to_solution.best_rate({1.0: steps[1.0]})


@pytest.mark.parametrize("frequency", one_gradient_step.FREQUENCIES)
def test_the_function_stays_below_the_bound_of_the_descent_lemma(frequency):
    for step_size in one_gradient_step.STEP_SIZES:
        step = one_gradient_step.gradient_step(frequency, step_size)
        assert (step.f <= step.bound + 1e-12).all()
        assert step.f_end <= step.bound_end + 1e-12
        if step_size < 2 / step.smoothness:
            assert step.f_end < step.f_start
    slopes = np.abs(np.diff(step.f, 2)) / (step.w[1] - step.w[0]) ** 2
    assert slopes.max() <= step.smoothness * (1 + 1e-6) and slopes.max() > 0.95 * step.smoothness


def test_weights_in_front_of_batch_norm_grow_by_pythagoras_and_turn_less_and_less():
    found = growing_weights.descend()
    squares, steps = found.lengths**2, found.lr * np.linalg.norm(found.gradients, axis=1)
    np.testing.assert_allclose(squares[1:], squares[:-1] + steps**2, rtol=1e-9)
    np.testing.assert_allclose((found.weights[:-1] * found.gradients).sum(1), 0, atol=1e-9)
    # From the wrong side to the direction that separates the classes.
    target = found.weights @ (-0.2, 1) / found.lengths
    assert target[0] < -0.9 < 0.9 < target[-1] and (np.diff(target) > 0).all()
    np.testing.assert_allclose(np.tan(np.radians(found.angles)), steps / found.lengths[:-1], rtol=1e-9)
    told = figures.picture(figures.draw_growing_weights, found).alt
    assert f"falls from {found.lr:.2f} to {found.lr / squares[-1]:.2f}" in told


@pytest.mark.parametrize("norm", stable_learning_rates.NORMS)
def test_the_loss_along_the_gradient_stays_below_its_parabola(norm):
    found = loss_along_gradient.loss_along_gradient(norm, 1)
    assert (found.loss <= found.bound + 1e-6).all()
    end = found.safe * found.gradient_norm  # of a step of size 2 / M
    assert (found.loss[1:][found.distances[1:] < end] < found.loss[0]).all()
    # A parabola with half the curvature is no bound; so it is the loss that decides.
    lower = found.linear + (found.bound - found.linear) / 4
    assert (found.loss > lower).any()
    assert np.interp(end, found.distances, found.bound) == pytest.approx(found.loss[0], abs=0.02)
    # Against the distance, the curvature of the parabola is M itself.
    curvature = np.diff(found.bound, 2) / np.diff(found.distances)[0] ** 2
    np.testing.assert_allclose(curvature, found.smoothness, rtol=1e-3)
    assert f"M = {found.smoothness:.1f}" in figures.picture(figures.draw_linear_prediction, {norm: found}).alt


def test_the_figure_of_sharpness_tells_the_ratio_to_a_quadratic():
    told = figures.picture(figures.draw_sharpness_and_rates, initial_sharpness.expected_and_measured()).alt
    ratio = np.median(initial_sharpness.ratio_to_quadratic("He", "batch norm", 8))
    assert f"batch norm, He, 8 hidden layers: 0.32 and 2.4 ({ratio:.2g});" in told


def test_the_first_panel_of_the_landscape_shows_the_loss_before_the_step_and_its_range():
    data = landscape_over_training.lookup("He", 64, 0.1)
    with figures.style():
        figure = figures.new_figure(7.4, 2.9)
        figures.draw_landscape(figure, data, "He", 64, 0.1)
    panel = figure.axes[0]
    for line, band, values in zip(panel.lines, panel.collections, data.values(), strict=True):
        before, highest = (np.median(values[name], 0) for name in ("loss", "highest_loss"))
        np.testing.assert_allclose(line.get_ydata(), before)
        assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(highest.max())
    assert (highest < before).all()  # with BN, the last one drawn, no trial step raises the loss


@pytest.mark.parametrize(("spread", "factor"), [(1.0, 1.5**0.5), (0.1, 150**0.5)])
def test_three_samples_send_back_what_a_line_does_not_explain(spread, factor):
    """By hand: the line is 0.5, 3, 5.5; the rest 0.5, -1, 0.5 is divided by the standard deviation of the inputs."""
    found = three_samples.send_back(spread)
    assert np.allclose(found.line, (0.5, 3, 5.5)) and np.allclose(found.normalised, (-(1.5**0.5), 0, 1.5**0.5))
    assert np.allclose(found.back, factor * np.array([0.5, -1, 0.5]), atol=1e-6)


def test_the_figure_of_three_samples_names_the_lengths():
    told = figures.picture(figures.draw_three_samples, three_samples.send_back(1.0), three_samples.send_back(0.1)).alt
    assert "length 6.4" in told and "length 1.5 " in told and "and 15.0" in told and "0.5, -1.0, 0.5" in told
