"""The gradients of other estimates: one of them is FullNorm's, and each of the others does what its name says."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bnlib import FullNorm, datasets
from bnlib.experiments.convergence import corrected_mean, gradient_estimates, lagrangian
from bnlib.experiments.convergence.gradient_estimates import ESTIMATORS, FLOORS, ROWS, SIZES, Estimates, Follower
from bnlib.models import mlp

BUFFERS = ("running_mean", "running_var", "running_grad_weight", "running_grad_bias")
OURS = ROWS.index(("FullNorm", 0.03))


@pytest.fixture
def network():
    return mlp(SIZES, partial(FullNorm, dtype=torch.float64), seed=0).double()


@pytest.fixture(scope="module")
def digits():
    data = datasets.load("digits")
    return data.train_x.flatten(1).double(), data.train_y


def first_mean(digits):
    """The mean of the first layer's outputs at the initial weights."""
    first = mlp(SIZES, seed=0).double()[1]
    return first(digits[0]).mean(0).detach()


def train(network, digits, batches, steps, lr=0.1):
    """Train with a follower beside it; yield after each step the follower and what it said of the gradient."""
    optimiser, follower, before = torch.optim.SGD(network.parameters(), lr=lr), Follower(network), None
    for batch, following in itertools.pairwise(itertools.islice(batches, steps + 1)):
        with torch.no_grad():
            data = digits[0][batch][None], digits[1][batch][None]
            known = follower.estimates, follower.adjoint_scale, gradient_estimates.alphas(follower.steps)
            found = gradient_estimates.propagate(network, data, *known, before, ["gradient", "square"])
            follower.see(network, digits, batch, following, before)
        before = [each.detach().clone() for each in itertools.islice(network.parameters(), 2)]
        optimiser.zero_grad()
        F.cross_entropy(network(digits[0][batch]), digits[1][batch]).backward()
        yield follower, found
        optimiser.step()


@pytest.mark.parametrize("batches", gradient_estimates.CONSTRUCTIONS)
def test_the_first_estimator_is_the_layer(network, digits, batches):
    sampler = gradient_estimates.CONSTRUCTIONS[batches](digits[1], batches[1], 0)
    for follower, found in train(network, digits, sampler, 40):
        gradient = torch.cat([each.grad.flatten() for each in network.parameters()])
        torch.testing.assert_close(found.gradient[OURS], gradient, atol=1e-9, rtol=1e-7)
        torch.testing.assert_close(found.square, found.gradient.square().sum(1))
        for each, layer in zip(follower.estimates, lagrangian.layers_of(network), strict=True):
            for values, name in zip(each, BUFFERS, strict=True):
                torch.testing.assert_close(values[OURS], getattr(layer, name), atol=1e-9, rtol=1e-7)


@torch.no_grad()
def test_exact_estimates_give_the_exact_gradient_and_the_current_batch_a_bias(network, digits):
    with torch.enable_grad():
        exact = lagrangian.exact(network, digits)
    lagrangian.set_tracked(network, exact.statistics, exact.adjoints)
    follower = Follower(network)
    follower.estimates = [
        Estimates(*(getattr(layer, name).expand(len(ROWS), -1) for name in BUFFERS))
        for layer in lagrangian.layers_of(network)
    ]
    follower.steps = 1000
    errors = follower.errors(network, digits, torch.arange(256)[:, None])
    bias = dict(zip(ESTIMATORS, errors["bias"], strict=True))
    assert bias["earlier"].max() < 1e-6 < 0.03 < bias["FullNorm"][FLOORS.index(0.03)] < 0.5
    assert errors["cosine"][list(ESTIMATORS).index("earlier")].min() > 1 - 1e-9
    assert bias["none"].min() > 0.1


@torch.no_grad()
def test_the_noise_is_the_spread_of_the_gradients_of_single_batches(network, digits):
    follower, batches = Follower(network), torch.arange(24).view(6, 4)
    follower.see(network, digits, batches[0], batches[1])
    with torch.enable_grad():
        truth = lagrangian.flat(lagrangian.exact(network, digits).gradient)
    alone = [
        gradient_estimates.propagate(
            network,
            (digits[0][index][None], digits[1][index][None]),
            follower.estimates,
            follower.adjoint_scale,
            gradient_estimates.alphas(1),
            wanted=["gradient"],
        ).gradient
        for index in batches
    ]
    expected = torch.stack(alone).var(0).sum(1).sqrt() / truth.norm()
    found = follower.errors(network, digits, batches)["noise"].flatten()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("size", [1, 16])
def test_all_variances_are_right_for_normal_numbers(size):
    generator, channels = torch.Generator().manual_seed(0), 60
    mean = torch.zeros(len(ROWS), 1, channels).double()
    variance, alpha, sums = mean + 1, torch.full((len(ROWS), 1, 1), 0.03).double(), 0.0
    for step in range(300):
        z = 3 + 2 * torch.randn(1, 1, size, channels, generator=generator).double()
        mean, variance = gradient_estimates.moved_statistics(mean, variance, z.expand(len(ROWS), -1, -1, -1), alpha)
        sums = sums + variance.mean(2)[:, 0] * (step >= 200) / 100
    for name in ("FullNorm", "centred"):
        assert sums[ROWS.index((name, 0.03))] == pytest.approx(4, rel=0.06)
    # The exponential of a noisy estimate is a little larger than the variance; without the correction it is 1.1.
    assert 3.8 < sums[ROWS.index(("logarithm", 0.03))] < 4.6
    assert (mean[:, 0].mean(1) - 3).abs().max() < 0.15


def test_the_corrected_mean_follows_the_first_layer_without_lag(network, digits):
    digits = digits[0][:100], digits[1][:100]
    everything = itertools.repeat(torch.arange(100))
    for follower, _ in train(network, digits, everything, 6, lr=1.0):
        with torch.no_grad():
            true = F.linear(digits[0], network[1].weight, network[1].bias).mean(0)
        seen = {name: (follower.estimates[0].mean[ROWS.index((name, 0.003))] - true).norm() for name in ESTIMATORS}
    # What is left is the start at 0, which falls by 1 - alpha in each step; without the correction there is a lag, too.
    assert seen["mean"] == pytest.approx(float(first_mean(digits).norm()) / 7)
    assert seen["mean"] < 0.8 * seen["FullNorm"]


def test_corrections_of_the_adjoints(network, digits):
    sampler = gradient_estimates.CONSTRUCTIONS["shuffled", 16](digits[1], 16, 0)
    *_, (follower, _) = train(network, digits, sampler, 5)
    scale = dict(zip(ROWS, follower.adjoint_scale[:, 0].tolist(), strict=True))
    assert scale["start", 0.03] == pytest.approx(1 / (1 - 1 / 6)) and scale["none", 0.03] == 0
    assert scale["FullNorm", 0.03] == scale["adjoints", 0.03] == 1
    of_bias = follower.estimates[0].of_bias
    assert not torch.allclose(of_bias[ROWS.index(("adjoints", 0.03))], of_bias[OURS])
    torch.testing.assert_close(of_bias[ROWS.index(("start", 0.03))], of_bias[OURS], rtol=0.2, atol=0.2)


@torch.no_grad()
def test_still_weights_leave_the_follower_as_it_is(network, digits, monkeypatch):
    monkeypatch.setattr(gradient_estimates, "STILL", 3)
    follower = Follower(network)
    follower.see(network, digits, torch.arange(4), torch.arange(4, 8))
    before = [torch.cat(each) for each in follower.estimates]
    later = follower.with_weights_held_still(network, digits, iter(torch.arange(40).view(10, 4)))
    assert (follower.steps, later.steps) == (1, 4)
    assert all(torch.equal(torch.cat(each), old) for each, old in zip(follower.estimates, before, strict=True))


def test_each_estimator_has_its_own_best_floor(monkeypatch):
    shape = 3, len(gradient_estimates.MOMENTS), len(ESTIMATORS), len(FLOORS)
    values = {name: np.full(shape, 4.0) for name in ("bias", "still bias", "cosine", "noise")}
    values["bias"][:, :, 0, 2], values["bias"][:, :, 1, 1], values["bias"][:, 0] = 2, 1, 0.1
    cells = gradient_estimates.cells("quick")
    monkeypatch.setattr(gradient_estimates, "load", lambda: dict.fromkeys(cells, values))
    first, second, *_ = gradient_estimates.rows()
    assert gradient_estimates.best_floor(next(iter(cells)), "centred") == FLOORS[1]
    assert (set(first["bias / gradient"]), set(second["bias / gradient"])) == ({2}, {1})
    assert set(second["bias over FullNorm's"]) == {0.5} and second["smaller bias in all seeds"] == "6 of 6"
    assert first["smaller bias in all seeds"] == "0 of 6" and set(first["bias over FullNorm's"]) == {1}


def test_the_correction_moves_the_mean_with_the_weights():
    generator = torch.Generator().manual_seed(0)
    x, linear, norm = torch.randn(50, 3, generator=generator), torch.nn.Linear(3, 4), FullNorm(4)
    before = linear.weight.detach().clone(), linear.bias.detach().clone()
    with torch.no_grad():
        norm.running_mean.copy_(linear(x).mean(0))
        linear.weight += 1
        linear.bias -= 2
    assert (norm.running_mean - linear(x).mean(0)).abs().min() > 0.1
    corrected_mean.correct(norm, linear, before, x)
    torch.testing.assert_close(norm.running_mean, linear(x).mean(0).detach())


def test_both_means_begin_alike_and_the_correction_changes_the_training(monkeypatch):
    found = {}
    for steps in (1, 60):
        monkeypatch.setattr(corrected_mean, "STEPS", {("one label", 16): steps})
        for mean in corrected_mean.MEANS:
            found[mean, steps] = corrected_mean.measure("one label", 16, mean, 0.3, seed=0, device="cpu")["test_error"]
    assert found["running", 1] == found["corrected", 1] and found["running", 60] != found["corrected", 60]


def test_of_eight_estimates_only_the_corrected_mean_of_the_first_layer_clearly_helps():
    """Corrected adjoints make the bias four times as large; the corrected mean halves it, at the median."""

    def of_settings(estimator, name):
        """Medians over seeds and steps, one per setting."""
        return np.array(
            [np.median(gradient_estimates.at_best_floor(cell, estimator, name)) for cell in gradient_estimates.load()]
        )

    ratio = {
        name: np.array(list(gradient_estimates.bias_ratios(name).values())) for name in gradient_estimates.ESTIMATORS
    }  # of the biases, (settings, seeds)
    median_ratio = {name: np.median(each, 1) for name, each in ratio.items()}
    assert 0.45 < np.median(median_ratio["mean"]) < 0.6
    assert (ratio["mean"] < 1).all(1).sum() == 5
    assert (gradient_estimates.bias_ratios("mean")["shuffled", 1, 0.1] < 1).sum() == 2
    cosines = [np.median(of_settings(name, "cosine")) for name in ("FullNorm", "mean")]
    assert np.allclose(cosines, (0.26, 0.45), atol=0.01)
    assert len(gradient_estimates.load()) == 6
    assert gradient_estimates.MOMENTS[1:] == (200, 500)
    assert gradient_estimates.SIZES == corrected_mean.SIZES
    moving, still = (np.median(of_settings("FullNorm", name)) for name in ("bias", "still bias"))
    assert round(moving) == 4 and round(still, 1) == 1.4
    for name in ("centred", "start"):
        assert np.abs(ratio[name] - 1).max() < 0.02
    assert median_ratio["logarithm"].max() > 1.2 > 1 < np.median(ratio["logarithm"])
    assert 0.85 < median_ratio["earlier"].min() < 1 < median_ratio["earlier"].max() < 1.1
    assert 4 < np.median(median_ratio["adjoints"]) < 4.5
    assert 0.8 < median_ratio["none"].min() < 1 < median_ratio["none"].max() < 1.1
    assert np.median(of_settings("none", "still bias")) > 1.3 * still
    for cell, ratios in gradient_estimates.bias_ratios("logarithm").items():
        shuffled_16 = cell[:2] == ("shuffled", 16)
        assert (abs(np.median(ratios) - 1) < 0.02) == shuffled_16
        assert shuffled_16 or np.median(ratios) > 1.03
