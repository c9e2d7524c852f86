"""Chapter 12: the Lagrangian of Full Normalization, the lemmas about the oracle running, and where it is stable."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import FullNorm
from bnlib.experiments.convergence import (
    adjoint_errors,
    adjoint_rates,
    causes_of_failures,
    convergence_problems,
    convergence_rates,
    lagrangian,
    stability_border,
    stability_map,
)
from bnlib.models import mlp, small_cnn


def double_norm(channels):
    """A layer whose estimates a batch hardly moves, so that they are what the test has set."""
    return FullNorm(channels, alpha=1e-12, eps=1e-30, dtype=torch.float64)


def case(depth, seed=0, convolutional=False, activation=nn.ReLU):
    """A random network in float64, with random gamma and beta, and random data."""
    generator = torch.Generator().manual_seed(seed)
    if convolutional:
        network, x = small_cnn(4, norm=double_norm, width=3, seed=seed).double(), (24, 1, 8, 8)
    else:
        network, x = mlp((6, *[5] * depth, 4), double_norm, activation=activation, seed=seed).double(), (24, 6)
    for layer in lagrangian.layers_of(network):
        for values in (layer.weight, layer.bias):
            values.data += 0.3 * torch.randn(len(values), generator=generator, dtype=torch.float64)
    x = torch.randn(x, generator=generator, dtype=torch.float64)
    return network, (x, torch.randint(4, (len(x),), generator=generator)), generator


def perturbed(found, generator, size):
    """Statistics and adjoints with errors in proportion to ``size``, and directions drawn from the generator."""
    statistics, adjoints = [], []
    for u, adjoint in zip(found.statistics, found.adjoints, strict=True):
        noise, of_adjoint = torch.randn(2, *u.shape, generator=generator, dtype=torch.float64)
        variance = u[1] - u[0].square()
        mean = u[0] + size * variance.sqrt() * noise[0]
        statistics.append(torch.stack((mean, mean.square() + variance * (size * noise[1]).exp())))
        adjoints.append(adjoint + size * adjoint.abs().mean() * of_adjoint)
    return statistics, adjoints


CASES = [(1, False), (3, False), (3, True)]


@pytest.mark.parametrize(("depth", "convolutional"), CASES)
def test_gradient_and_adjoints_are_derivatives_of_the_objective(depth, convolutional):
    """By finite differences of the mean loss, normalised with the statistics of all samples, without the Lagrangian."""
    network, data, _ = case(depth, convolutional=convolutional)
    found = lagrangian.exact(network, data)

    def objective(shifts=None):
        z, number = data[0], 0
        for layer in network:
            if isinstance(layer, FullNorm):
                over = [0, *range(2, z.dim())]
                u = torch.stack((z.mean(over), z.square().mean(over)))
                u = u + (0 if shifts is None else shifts[number])
                shape = (1, -1, *[1] * (z.dim() - 2))
                mean, square = (row.view(shape) for row in u)
                z = (z - mean) / (square - mean.square()).sqrt() * layer.weight.view(shape) + layer.bias.view(shape)
                number += 1
            else:
                z = layer(z)
        return F.cross_entropy(z, data[1]).item()

    step = 1e-6
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            kept, values = parameter.flatten()[0].item(), parameter.flatten()
            values[0] = kept + step
            above = objective()
            values[0] = kept - step
            below = objective()
            values[0] = kept
            assert (above - below) / (2 * step) == pytest.approx(found.gradient[name].flatten()[0].item(), abs=1e-7)
        for number, row in itertools.product(range(len(found.adjoints)), range(2)):
            shifts = [torch.zeros_like(each) for each in found.statistics]
            shifts[number][row, 0] = step
            above = objective(shifts)
            shifts[number][row, 0] = -step
            slope = (above - objective(shifts)) / (2 * step)
            assert slope == pytest.approx(found.adjoints[number][row, 0].item(), abs=1e-7)


@pytest.mark.parametrize(("depth", "convolutional"), CASES)
def test_the_mean_gradient_of_the_layer_is_the_derivative_of_the_lagrangian(depth, convolutional):
    """For any estimates: the mean over all batches of one sample is that of one batch of all samples."""
    network, data, generator = case(depth, 1, convolutional)
    found = lagrangian.exact(network, data)
    for estimates in ((found.statistics, found.adjoints), perturbed(found, generator, 0.3)):
        lagrangian.set_tracked(network, *estimates)
        again = lagrangian.tracked_by(network)
        assert torch.allclose(*(torch.cat([lagrangian.flat(part) for part in each]) for each in (estimates, again)))
        expected = lagrangian.mean_gradient(network, data, *estimates)
        network.zero_grad()
        for x, label in zip(*data, strict=True):
            F.cross_entropy(network(x[None]), label[None]).backward()
        for name, parameter in network.named_parameters():
            assert torch.allclose(parameter.grad / len(data[0]), expected[name], atol=1e-9), name
    exact = lagrangian.mean_gradient(network, data, found.statistics, found.adjoints)
    assert torch.allclose(lagrangian.flat(exact), lagrangian.flat(found.gradient), atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_bias_is_bounded_by_both_errors(seed):
    """In proportion to the errors when both are small, and 0 only if both are; the part of the adjoints is linear.

    With ReLU a sample may cross the kink, at which the derivative jumps: the bias then has no such bound.
    """
    network, data, generator = case(2, seed, activation=nn.Tanh)
    found, state = lagrangian.exact(network, data), generator.get_state()

    def bias(size, statistics=True, adjoints=True):
        generator.set_state(state)
        u, multipliers = perturbed(found, generator, size)
        mean = lagrangian.mean_gradient(
            network, data, u if statistics else found.statistics, multipliers if adjoints else found.adjoints
        )
        return lagrangian.flat(mean) - lagrangian.flat(found.gradient)

    for only in ({}, {"statistics": False}, {"adjoints": False}):
        assert bias(1e-4, **only).norm() > 1e-6
        assert (bias(1e-4, **only) / 1e-4 - bias(1e-5, **only) / 1e-5).norm() < 0.02 * bias(1e-4, **only).norm() / 1e-4
    assert torch.allclose(bias(2.0, statistics=False), 2e4 * bias(1e-4, statistics=False), rtol=1e-6, atol=1e-9)


def test_lemma_of_one_running_average():
    """The inequality of the chapter for a random walk that depends on the noise, against the exact second moments."""
    samples, generator = 5_000, np.random.default_rng(0)
    for alpha, drift in itertools.product((0.03, 0.3, 1.0), (0.0, 0.1, 1.0)):
        target, estimate = np.zeros(samples), generator.standard_normal(samples)
        for _ in range(20):
            before = np.square(estimate - target).mean()
            noise, off = generator.choice((-1.0, 1.0), samples), 0.5 * np.sin(estimate)
            moved = drift * (noise + generator.standard_normal(samples))  # the step depends on the same sample
            estimate = (1 - alpha) * estimate + alpha * (target + off + noise)
            target = target + moved
            after = np.square(estimate - target).mean()
            bound = (1 - alpha) * before + 1.5 * alpha**2 + 6 * alpha * np.square(off).mean()
            assert after <= (bound + 6 / alpha * np.square(moved).mean()) * (1 + 3 / samples**0.5)


def test_the_order_of_an_error_follows_from_the_lemma():
    """x falls like b if each step takes the share alpha of it away and adds alpha times b."""
    k = np.arange(1, 30_001)
    for p, a in ((0.8, 0.4), (0.65, 0.6), (0.9, 0.2)):
        alpha, b, x, ratios = k**-a, k**-a + k ** (2 * a - 2 * p), 1.0, []
        for weight, size in zip(alpha.tolist(), b.tolist(), strict=True):
            x = (1 - weight) * x + weight * size
            ratios.append(x / size)
        assert max(ratios[100:]) < 2 and ratios[-1] == pytest.approx(1, abs=0.2)


def test_the_border_of_the_toy_problem():
    """J = (cE[aw] - t)^2/2: one weight, one statistic and one adjoint; chapter 5 has the border 2/J''."""
    a, cc = 1.25, 1.875
    hessian = np.array([[0.0, 0.0, a], [0.0, cc, -1.0], [a, -1.0, 0.0]])
    toy = stability_border.Linearised(hessian, 1, 1)
    curvature = a * a * cc
    assert toy.of_objective().item() == pytest.approx(curvature)
    assert toy.growth(0.99 * 2 / curvature) < 0 < toy.growth(1.01 * 2 / curvature)


def test_the_hessian_of_the_objective_follows_from_that_of_the_lagrangian():
    network, data, _ = case(1, activation=nn.Tanh)
    found = stability_border.linearise(copy.deepcopy(network), data)
    hessian, direction = found.of_objective(), np.random.default_rng(0).standard_normal(found.weights)
    moved = []
    for sign in (1, -1):
        other, parts = copy.deepcopy(network), torch.from_numpy(sign * 1e-5 * direction)
        with torch.no_grad():
            sizes = [parameter.numel() for parameter in other.parameters()]
            for parameter, part in zip(other.parameters(), parts.split(sizes), strict=True):
                parameter += part.view_as(parameter)
        moved.append(lagrangian.flat(lagrangian.exact(other, data).gradient).numpy())
    assert np.allclose(hessian @ direction, (moved[0] - moved[1]) / 2e-5, atol=1e-5)
    assert np.allclose(found.hessian, found.hessian.T, atol=1e-10)


def test_borders_are_read_off_between_the_ratios():
    ratios = stability_border.RATIOS
    for border in (0.05, 0.3, 2.0):
        rows = {"growth": np.log(ratios / border)[None] + 1, "lowest_curvature": np.array([0.5])}
        assert stability_border.borders(rows) == pytest.approx([border])
    calm = {"growth": ratios[None] * 2, "lowest_curvature": np.array([-2.0])}  # it grows as gradient descent does
    assert np.isinf(stability_border.borders(calm)).all()


def test_errors_of_statistics_and_adjoints_are_those_of_the_layer():
    network, data, generator = case(2, 2)
    found = lagrangian.exact(network, data)
    assert adjoint_errors.errors(network, found, found.statistics, found.adjoints)[:2] == pytest.approx((0, 0))
    row = adjoint_errors.compare(network, data, [torch.arange(24)])
    assert row["noise"] == pytest.approx(0, abs=1e-9) and row["gradient"] == pytest.approx(
        lagrangian.flat(found.gradient).norm().item()
    )
    u, adjoints = perturbed(found, generator, 0.1)
    of_statistics, of_adjoints, size = adjoint_errors.errors(network, found, u, adjoints)
    assert 0.05 < of_statistics / 20**0.5 < 0.2 and 0 < of_adjoints < size


@pytest.mark.parametrize("name", ["quadratic", "network"])
def test_adjoints_and_bias_of_a_composition(name):
    """With exact estimates the mean of the oracle's gradient is the gradient, which the problem knows by itself."""
    problem = convergence_problems.PROBLEMS[name]()
    params = problem.start(3, torch.Generator().manual_seed(0))
    gradient, adjoints = adjoint_rates.exact_adjoints(problem, params)
    squares = torch.stack([each.square().flatten(1).sum(1) for each in gradient.values()]).sum(0)
    assert torch.allclose(squares, problem.squared_gradients(params))
    with torch.no_grad():
        exact = problem.composition.statistics(params, problem.x)
    mean = adjoint_rates.mean_gradient(problem, params, exact, adjoints)
    assert all(torch.allclose(mean[key], gradient[key]) for key in gradient)


def test_the_mean_of_the_oracle_in_mcsgd(monkeypatch):
    """Algorithm 2 with a batch of all samples has no noise: its gradient is the mean that the experiment computes."""
    monkeypatch.setattr(convergence_rates, "COPIES", 2)
    problem = convergence_problems.network()
    monkeypatch.setattr(
        convergence_problems.Problem,
        "batches",
        lambda self, copies, generator: itertools.repeat(
            (self.x.expand(-1, copies, -1), self.target.expand(-1, copies))
        ),
    )
    states = convergence_rates.run_algorithm_2(problem, "running", 0.8, 0.4, torch.Generator().manual_seed(0))
    for before, after in itertools.islice(itertools.pairwise(states), 5):
        mean = adjoint_rates.mean_gradient(problem, before.params, after.estimates, before.adjoints)
        assert all(torch.allclose(mean[key], value) for key, value in after.gradient.items())


def test_exact_estimates_give_the_gradient_of_the_objective():
    """Both exact: the mean of the network's gradient is that of the objective, and alpha does not matter."""
    network, data, _ = case(2, 3)
    arm = causes_of_failures.Arm(statistics=5, adjoints=5)
    assert causes_of_failures.replace_estimates(network, data, arm, 4, lambda step: 0.5)
    F.cross_entropy(network(data[0]), data[1]).backward()
    expected = lagrangian.exact(network, data).gradient
    for name, parameter in network.named_parameters():
        assert torch.allclose(parameter.grad, expected[name], atol=1e-9)
    layer = lagrangian.layers_of(network)[0]
    before = layer.running_grad_bias.clone()
    causes_of_failures.follow_adjoints(network, 0.25)
    assert torch.allclose(layer.running_grad_bias, before.lerp(layer.bias.grad, 0.25))
    schedule = 0.5
    assert not causes_of_failures.replace_estimates(network, data, arm, 5, schedule) and layer.alpha == schedule


def test_what_counts_as_trained():
    found = {"BN": np.array([0.2, 0.05, 0.9]), "FN": np.array([[0.25, 0.06, 0.9], [0.21, 0.2, 0.1]])}
    trained = stability_map.trains(found)
    assert np.array_equal(trained, [[0, 1, np.nan], [1, 0, np.nan]], equal_nan=True)
    assert stability_map.largest(trained, (1, 2, 3)).tolist() == [2, 1]
    without_failure = stability_map.largest_without_failure(trained, (1, 2, 3))
    assert np.array_equal(without_failure, [np.nan, 1], equal_nan=True)
    gap = np.array([[np.nan, 1, np.nan, 1, 0, 1]])
    assert stability_map.largest_without_failure(gap, range(6)).tolist() == [3]
    assert stability_map.largest(gap, range(6)).tolist() == [5]


def test_cosine_of_the_mean_gradient(monkeypatch):
    gradient, mean = np.array([3.0, 4.0]), np.array([1.0, 7.0])
    values = {
        "gradient": np.linalg.norm(gradient),
        "along": mean @ gradient / (gradient @ gradient),
        "bias": np.linalg.norm(mean - gradient),
    }
    monkeypatch.setattr(adjoint_errors, "load", lambda: {(0.1, 0.1): values})
    expected = mean @ gradient / np.linalg.norm(mean) / np.linalg.norm(gradient)
    assert adjoint_errors.cosines()[0.1, 0.1] == pytest.approx(expected)
