"""The theorems of Santurkar et al. 2018: where they hold as equalities, where as inequalities, and where not."""

import re

import pytest
import torch
from torch.nn import functional as F

from bnlib.models.building import seeded
from bnlib.probes import theorem_4_1, theorem_4_2, theorem_4_4

BOTH = pytest.mark.parametrize("theorem", [theorem_4_1, theorem_4_2])


def activations(samples=9, units=4, seed=0, scale=1.0):
    with seeded(seed):
        x, weight = torch.randn(samples, 6).double(), torch.randn(units, 6).double()
    return scale * (x @ weight.T) + 0.5


def a_loss(units=4, seed=5):
    """One that has curvature within and between units, of both signs, and depends on all of them."""
    with seeded(seed):
        weight, target = torch.randn(7, units).double(), torch.randn(9, 7).double()
    return lambda z: ((z @ weight.T).sin() - target).square().mean() + 0.1 * (z**3).sum() / len(z)


GAMMAS = {
    "1": 1.0,
    "large": 30.0,
    "small": 0.01,
    "negative": -2.0,
    "each": torch.tensor([0.1, 1.0, -3.0, 50.0]).double(),
}


@BOTH
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_both_sides_are_equal_where_the_gradients_match(theorem, gamma, seed):
    """Whatever gamma / sigma is: then it is no statement about whether BN helps."""
    beta = torch.tensor([0.3, -1.0, 0.0, 2.0]).double()
    found = theorem(a_loss(), activations(seed=seed), GAMMAS[gamma], beta)
    torch.testing.assert_close(found.left, found.right, rtol=1e-9, atol=0)
    assert found.left.all() and found.left.shape == (4,)
    torch.testing.assert_close(found.slack, found.right - found.left)


def by_hand(y, gamma, beta, eps, loss):
    """All that the formulas need, from the whole Jacobian and Hessian of the BN and the loss."""
    y = y.clone().requires_grad_()
    variance = y.var(0, correction=0)
    normalised = (y - y.mean(0)) / (variance + eps).sqrt()
    z = gamma * normalised + beta
    (g,) = torch.autograd.grad(loss(z), z, retain_graph=True)
    (u,) = torch.autograd.grad(loss(z), y)
    return variance.detach() + eps, normalised.detach(), z.detach(), g, u


@pytest.mark.parametrize("eps", [1e-5, 0.1, 3.0])
@pytest.mark.parametrize("gamma", [0.5, 4.0])
def test_with_eps_the_first_is_an_inequality_by_a_known_amount(eps, gamma):
    y, loss = activations(), a_loss()
    found = theorem_4_1(loss, y, gamma, eps=eps)
    variance, normalised, _, g, u = by_hand(y, gamma, 0, eps, loss)
    gap = gamma**2 / variance / 9 * eps / variance * (g * normalised).sum(0).square()
    torch.testing.assert_close(found.slack, gap, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(found.left, u.square().sum(0))
    assert (found.slack > 0).all()


@pytest.mark.parametrize("eps", [1e-5, 0.1, 3.0])
@pytest.mark.parametrize("gamma", [0.5, 4.0])
def test_with_eps_the_second_is_off_by_a_known_amount(eps, gamma):
    y, loss = activations(), a_loss()
    found = theorem_4_2(loss, y, gamma, eps=eps)
    variance, normalised, z, g, u = by_hand(y, gamma, 0, eps, loss)
    blocks = torch.autograd.functional.hessian(loss, z)
    blocks = [blocks[:, j, :, j] for j in range(4)]
    s, delta = (g * normalised).sum(0), eps / variance
    w = u - gamma * delta * s / variance.sqrt() / 9 * normalised
    bends = torch.stack([u[:, j] @ h @ u[:, j] - w[:, j] @ h @ w[:, j] for j, h in enumerate(blocks)])
    excess = 2 * delta * u.square().sum(0) - (gamma * delta * s).square() / variance / 9
    expected = gamma**2 / variance * bends + gamma / 9 / variance * s * excess
    torch.testing.assert_close(found.slack, expected, rtol=1e-7, atol=1e-10)
    assert {-1, 1} == set(found.slack.sign().tolist())


@pytest.mark.parametrize("simplified", [False, True])
def test_the_second_has_the_blocks_of_whole_hessians(simplified):
    y, loss, gamma = activations(), a_loss(), torch.tensor([0.5, 1.0, 2.0, 3.0]).double()
    variance, normalised, z, g, u = by_hand(y, gamma, 1.0, 0.0, loss)
    with_bn = torch.autograd.functional.hessian(
        lambda y: loss(gamma * (y - y.mean(0)) / y.var(0, correction=0).sqrt() + 1.0), y
    )
    without = torch.autograd.functional.hessian(loss, z)
    along = g if simplified else u
    left = torch.stack([u[:, j] @ with_bn[:, j, :, j] @ u[:, j] for j in range(4)])
    right = torch.stack([along[:, j] @ without[:, j, :, j] @ along[:, j] for j in range(4)]) * gamma**2 / variance
    right -= gamma / 9 / variance * (g * normalised).sum(0) * u.square().sum(0)
    found = theorem_4_2(loss, y, gamma, 1.0, simplified=simplified)
    torch.testing.assert_close(found.left, left)
    torch.testing.assert_close(found.right, right)


def half_squares(z):
    """Convex, with the identity as its Hessian."""
    return (z - 1).square().sum() / 2 + z[:, 0] @ torch.linspace(-3, 3, len(z)).to(z)


def test_the_simplified_second_fails_where_bn_amplifies():
    """With the identity as H the gradients with BN are longer if gamma > sigma: 0.1 here."""
    y = activations()
    y = 0.1 * (y - y.mean(0)) / y.std(0, correction=0)
    small, large = (theorem_4_2(half_squares, y, gamma, simplified=True) for gamma in (0.05, 5.0))
    assert (small.slack > 0).all() and (large.slack < 0).any()
    exact = theorem_4_2(half_squares, y, 5.0)
    torch.testing.assert_close(exact.left, exact.right)


def test_at_other_activations_nothing_is_known():
    """The network without BN, at its own activations, may have smaller or larger gradients."""
    signs = set()
    for scale in (0.05, 1, 20):
        y = activations(scale=scale)
        found = theorem_4_1(half_squares, y, at=y)
        g = y - 1 + F.one_hot(torch.tensor(0), 4) * torch.linspace(-3, 3, 9).double()[:, None]
        normalised = (y - y.mean(0)) / y.std(0, correction=0)
        right = (g.square().sum(0) - (g.sum(0).square() + (g * normalised).sum(0).square()) / 9) / y.var(
            0, correction=0
        )
        torch.testing.assert_close(found.right, right)
        signs |= set(found.slack.sign().tolist())
    assert signs == {-1, 1}


def test_bn_amplifies_the_gradient_where_gamma_is_above_sigma():
    """The right side itself, which is no bound by the gradient without BN."""
    y, loss = activations(), a_loss()
    y = (y - y.mean(0)) / y.std(0, correction=0)
    without = torch.autograd.functional.jacobian(loss, 10 * y).square().sum(0)
    assert (theorem_4_1(loss, y, 10.0).right > without).any()


@BOTH
def test_what_a_loss_does_not_depend_on_and_what_is_linear(theorem):
    y = activations()
    along = torch.linspace(-1, 1, 9).double() ** 2
    found = theorem(lambda z: z[:, 1] @ along, y)
    torch.testing.assert_close(found.left, found.right, rtol=1e-10, atol=1e-10)
    assert found.left.ne(0).tolist() == [False, True, False, False]
    # Linear in the activations, not in the inputs of the BN.
    bent = theorem(lambda z: z.square().sum() * 0, y)
    assert not bent.left.any() and not bent.right.any()


@BOTH
def test_a_unit_that_is_constant_has_no_finite_sides(theorem):
    y = activations()
    y[:, 2] = 1.0
    found = theorem(lambda z: (z**3).sum(), y)
    assert found.right.isfinite().tolist() == [True, True, False, True]


@BOTH
def test_gradients_of_others_are_not_touched(theorem):
    y, gamma = activations().requires_grad_(), torch.ones(4).double().requires_grad_()
    with torch.no_grad():
        found = theorem(a_loss(), y, gamma)
    assert y.grad is None and gamma.grad is None and not found.right.requires_grad and not found.left.requires_grad


@BOTH
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"y": torch.ones(3)}, "y must have shape (m, d), got (3,)"),
        ({"y": torch.ones(0, 3)}, "y must have shape (m, d), got (0, 3)"),
        ({"eps": -1e-5}, "eps must be at least 0, got -1e-05"),
        ({"gamma": torch.ones(3)}, "gamma must be a number or have shape (4,), got (3,)"),
        ({"beta": torch.ones(9, 4)}, "beta must be a number or have shape (4,), got (9, 4)"),
        ({"at": torch.ones(8, 4)}, "at must have the shape of y, (9, 4), got (8, 4)"),
        ({"loss": lambda z: z.sum(0)}, "loss must return a single number, got shape (4,)"),
    ],
)
def test_wrong_arguments_are_named(theorem, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        theorem(**{"loss": a_loss(), "y": activations()} | options)


@pytest.mark.parametrize("radius", [0.1, 7.0])
def test_some_inputs_reach_the_worst_case_and_none_exceed_it(radius):
    y, loss, gamma = activations(), a_loss(), GAMMAS["each"]
    *_, u = by_hand(y, gamma, 0, 0, loss)
    found = theorem_4_4(loss, y, gamma, radius=radius)
    torch.testing.assert_close(found.left, found.right, rtol=1e-9, atol=0)
    for unit, gradient in enumerate(u.T):
        aligned = radius * torch.outer(gradient, torch.tensor([0.6, 0.8, 0.0]).double()) / gradient.norm()
        torch.testing.assert_close((aligned.T @ gradient).square().sum(), found.left[unit])
        with seeded(unit):
            inputs = torch.randn(200, 9, 3).double()
        inputs *= radius / torch.linalg.matrix_norm(inputs, 2)[:, None, None]
        assert ((inputs.mT @ gradient).square().sum(1) < found.left[unit]).all()


def test_the_worst_case_as_transcribed_fails_for_small_inputs():
    """It has the square of g_j, the mean without the factor lambda^2 and the last term without 1/m."""
    y, loss, radius = activations(), a_loss(), 0.01
    _, normalised, _, g, _ = by_hand(y, 1.0, 0, 0, loss)
    variance, m = y.var(0, correction=0), len(y)
    largest = radius**2 * g.square().sum(0)
    transcribed = (largest**2 - m * g.mean(0) ** 2 - radius**2 * (g * normalised).sum(0) ** 2) / variance
    assert (transcribed < theorem_4_4(loss, y, radius=radius).left).all()


def test_the_radius_must_be_positive():
    with pytest.raises(ValueError, match=re.escape("radius must be a finite number, above 0, got 0.0")):
        theorem_4_4(a_loss(), activations(), radius=0.0)
