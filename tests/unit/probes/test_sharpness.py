"""Sharpness and the largest stable learning rate, where both have a formula."""

import copy
import math
import re

import pytest
import torch
from landscape_examples import NETWORKS, Quadratic, batch, close, loss_of, loss_on, quadratic, symmetric
from torch import nn
from torch.nn import functional as F

from bnlib.models.building import seeded
from bnlib.probes import (
    largest_stable_learning_rate,
    scan_learning_rates,
    sharpness,
)


@pytest.mark.parametrize("eigenvalues", [(5.0, 2.0, 1.0, 0.5), (3.0, -7.0, 1.0, -2.0), (-1.0, -2.0, -3.0, -4.0)])
@pytest.mark.parametrize("difference", [None, 1e-3])
def test_the_sharpness_of_a_quadratic_is_its_largest_eigenvalue(eigenvalues, difference):
    """With its sign: a negative one of larger size is not what is asked for."""
    model, _ = quadratic(eigenvalues)
    _, basis = symmetric(eigenvalues)
    found = sharpness(model, loss_of, tolerance=1e-8, finite_difference=difference)
    top = max(range(4), key=lambda k: eigenvalues[k])
    close(found.value, torch.tensor(eigenvalues[top]).double(), rtol=1e-8)
    vector = torch.cat([found.eigenvector["first"], found.eigenvector["rest"]])
    assert float(vector.norm()) == pytest.approx(1) and float((vector @ basis[:, top]).abs()) == pytest.approx(1)
    close(found.residual, (model.matrix @ vector - found.value * vector).norm(), atol=1e-8)
    assert found.converged and found.residual <= 1e-8 * found.value.abs() and found.hessian_products <= 5


def test_without_enough_iterations_the_sharpness_says_so():
    eigenvalues = [float(k) for k in range(1, 61)]
    model, _ = quadratic(eigenvalues)
    few, enough = (sharpness(model, loss_of, max_iterations=count, tolerance=1e-6) for count in (5, 60))
    assert not few.converged and 40 < few.value < 60 and few.hessian_products == 6
    assert few.residual > 1e-6 * few.value
    assert (few.value - torch.arange(1, 61)).abs().min() <= few.residual
    assert enough.converged and float(enough.value) == pytest.approx(60)


def test_the_sharpness_of_losses_without_curvature():
    model = Quadratic(torch.zeros(3, 3), torch.ones(3), linear=2.0)
    for loss in (lambda model: model.first.sum() + 3 * model.rest.sum(), lambda model: model.rest.sum(), loss_of):
        found = sharpness(model, loss)
        assert found.value == 0 == found.residual and found.converged


def test_the_sharpness_of_logistic_regression():
    """Hessian X'DX / n with D the p (1 - p), for two classes as one number."""
    with seeded(0):
        x, y = torch.randn(20, 5).double(), (torch.rand(20) < 0.5).double()
        model = nn.Linear(5, 1).double()
    p = model(x).squeeze(1).sigmoid().detach()
    wide = torch.cat([x, torch.ones(20, 1)], 1)
    hessian = wide.T @ torch.diag(p * (1 - p)) @ wide / 20
    found = sharpness(model, lambda model: F.binary_cross_entropy_with_logits(model(x).squeeze(1), y), tolerance=1e-9)
    close(found.value, torch.linalg.eigvalsh(hessian)[-1])


@pytest.mark.parametrize("name", ["plain", "BatchNorm", "torch's", "Dropout", "weight norm"])
def test_the_sharpness_of_a_network_is_that_of_the_whole_hessian(name):
    """By differences of gradients, for torch 2.13 has a wrong second derivative of its weight norm."""
    model, (x, y) = NETWORKS[name]().double(), batch()
    loss, parameters = loss_on(x.double(), y), list(model.parameters())
    rows = []
    for position, parameter in enumerate(parameters):
        for index in range(parameter.numel()):
            ends = []
            for step in (1e-6, -1e-6):
                moved = copy.deepcopy(model)
                with seeded(4):
                    list(moved.parameters())[position].data.view(-1)[index] += step
                    gradients = torch.autograd.grad(loss(moved), list(moved.parameters()))
                ends.append(torch.cat([each.flatten() for each in gradients]))
            rows.append((ends[0] - ends[1]) / 2e-6)
    expected = torch.linalg.eigvalsh(torch.stack(rows))[-1]
    with seeded(4):
        near = sharpness(model, loss, tolerance=1e-5, finite_difference=1e-6)
        exact = near if name == "weight norm" else sharpness(model, loss, tolerance=1e-8)
    close(near.value, expected, rtol=1e-6)
    close(exact.value, expected, rtol=1e-6)
    assert exact.converged and near.converged


def test_the_sharpness_of_a_linear_network():
    """Of (u v x - y)^2 / 2 in u and v: [[v^2 x^2, (2 u v x - y) x], [., u^2 x^2]]."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    u, v, x, y = 2.0, -0.5, 3.0, 1.0
    with torch.no_grad():
        model[0].weight.fill_(u)
        model[1].weight.fill_(v)
    hessian = torch.tensor([[v * v * x * x, (2 * u * v * x - y) * x], [(2 * u * v * x - y) * x, u * u * x * x]])
    data = torch.tensor([[x]]).double()
    found = sharpness(model, lambda model: (model(data) - y).square().sum() / 2, tolerance=1e-9)
    close(found.value, torch.linalg.eigvalsh(hessian.double())[-1])


def test_full_norm_has_a_hessian_in_eval_mode_only():
    model, (x, y) = NETWORKS["FullNorm"]().double(), batch()
    loss = loss_on(x.double(), y)
    with pytest.raises(RuntimeError, match=r"twice|once_differentiable"):
        sharpness(model, loss)
    frozen, near = (sharpness(model.eval(), loss, tolerance=1e-5, finite_difference=h) for h in (None, 1e-6))
    assert frozen.converged and near.converged
    close(frozen.value, near.value, rtol=1e-6)
    # The derivative of an estimate, not symmetric: it says that it is no eigenvalue of a Hessian.
    assert not sharpness(model.train(), loss, finite_difference=1e-6).converged


def gradient_descent(lr):
    """Whether gradient descent on a quadratic with the largest eigenvalue 5 gets closer."""
    model, start = quadratic()
    w = start
    for _ in range(2000):
        w = w - lr * (model.matrix @ w)
    return bool(w.norm() < start.norm())


@pytest.mark.parametrize("ratio", [1.5, 1.1, 1.001])
def test_gradient_descent_on_a_quadratic_is_stable_below_two_over_the_sharpness(ratio):
    found = largest_stable_learning_rate(gradient_descent, 1e-3, 10.0, ratio)
    assert found.low <= 2 / 5 * (1 + 1e-9) and found.high >= 2 / 5 * (1 - 1e-9)
    assert 1 < found.high / found.low <= ratio
    assert found.trials[:2] == ((1e-3, True), (10.0, False))
    assert max(lr for lr, stable in found.trials if stable) == found.low
    assert min(lr for lr, stable in found.trials if not stable) == found.high
    # Each trial after the first two halves the logarithm of the bracket.
    assert len(found.trials) == 2 + math.ceil(math.log2(math.log(1e4) / math.log(ratio)))


def test_bisection_ends_at_adjacent_floating_point_numbers():
    found = largest_stable_learning_rate(lambda lr: lr < 0.3, 0.1, 1.0, math.nextafter(1, 2))
    assert found.low < 0.3 <= found.high and found.high / found.low < 1 + 1e-15


@pytest.mark.parametrize(
    ("low", "high", "ratio", "message"),
    [
        (0.5, 1, 1.1, "low must be a learning rate that is stable, got 0.5, which is not"),
        (0.01, 0.1, 1.1, "high must be a learning rate that is not stable, got 0.1, which is"),
        (0.0, 1, 1.1, "low must be a finite number, above 0, got 0.0"),
        (1, 0.1, 1.1, "high must be a finite number, above 1, got 0.1"),
        (0.1, math.inf, 1.1, "high must be a finite number, above 0.1, got inf"),
        (0.1, 1, 1, "ratio must be a finite number, above 1, got 1"),
    ],
)
def test_low_must_be_stable_and_high_unstable(low, high, ratio, message):
    with pytest.raises(ValueError, match=message):
        largest_stable_learning_rate(lambda lr: lr < 0.3, low, high, ratio)


def test_a_scan_finds_the_gaps_that_a_bisection_misses():
    def stable(lr):
        return lr < 0.2 or 0.5 < lr < 0.7

    found = scan_learning_rates(stable, [0.1, 0.15, 0.3, 0.4, 0.6, 0.8])
    assert found.stable == (True, True, False, False, True, False)
    assert (found.first_unstable, found.last_stable, found.has_one_border) == (0.3, 0.6, False)
    bisected = largest_stable_learning_rate(stable, 0.1, 0.8, 1.01)
    assert bisected.high < 0.21  # one of the two borders, and nothing says that there is another


def test_a_scan_without_a_border():
    always = scan_learning_rates(lambda lr: True, [0.1, 0.2])
    assert (always.first_unstable, always.last_stable, always.has_one_border) == (math.inf, 0.2, True)
    never = scan_learning_rates(lambda lr: False, [0.1, 0.2])
    assert (never.first_unstable, never.last_stable, never.has_one_border) == (0.1, 0, True)


@pytest.mark.parametrize("rates", [[], [0.0, 1.0], [0.2, 0.1], [0.1, 0.1]])
def test_a_scan_needs_increasing_rates(rates):
    with pytest.raises(ValueError, match=f"rates must be .*, got {re.escape(str(rates)) if rates else 'shape'}"):
        scan_learning_rates(lambda lr: True, rates)


@pytest.mark.parametrize("scale", [1e-30, 1e-24, 1.0, 1e25])
def test_the_sharpness_is_proportional_to_the_loss_beyond_the_range_of_squares(scale):
    model = nn.Linear(3, 1, bias=False)
    found = sharpness(model, lambda model: (scale * torch.tensor([1.0, 2.0, 5.0]) * model.weight.square()).sum())
    assert found.converged and abs(found.value.item() / scale - 10) < 1e-4


@pytest.mark.parametrize("returned", [float("nan"), 0.3, None, torch.tensor(torch.nan), torch.tensor([True, True])])
def test_what_is_no_truth_value_is_not_taken_for_stable(returned):
    with pytest.raises(TypeError, match="run must return whether the training was stable, True or False, got"):
        scan_learning_rates(lambda lr: returned, [0.1])
    with pytest.raises(TypeError, match="run must return whether the training was stable, True or False, got"):
        largest_stable_learning_rate(lambda lr: returned, 0.1, 0.2)
