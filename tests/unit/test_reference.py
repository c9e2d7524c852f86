"""The NumPy formulas against torch's automatic differentiation, finite differences and arithmetic by hand."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bnlib import reference

SHAPES = pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2), (2, 3, 4, 3), (2, 2, 2, 3, 2), (1, 3, 4)], ids=str)


def example(shape, seed=0):
    rng = np.random.default_rng(seed)
    channels = shape[1]
    return (
        rng.normal(2, 3, shape),
        rng.normal(size=channels),
        rng.normal(size=channels),
        rng.normal(size=shape),
    )


@SHAPES
def test_forward_equals_torch(shape):
    x, weight, bias, _ = example(shape)
    ours, _ = reference.batch_norm_forward(x, weight, bias, eps=0.01)
    theirs = F.batch_norm(
        *map(torch.tensor, (x,)), None, None, torch.tensor(weight), torch.tensor(bias), True, eps=0.01
    )
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-12)


@SHAPES
def test_backward_equals_autograd(shape):
    x, weight, bias, g = example(shape)
    variables = [torch.tensor(value, requires_grad=True) for value in (x, weight, bias)]
    output = F.batch_norm(variables[0], None, None, *variables[1:], training=True, eps=0.01)
    theirs = torch.autograd.grad(output, variables, torch.tensor(g))
    _, cache = reference.batch_norm_forward(x, weight, bias, eps=0.01)
    for ours, gradient in zip(reference.batch_norm_backward(g, cache), theirs, strict=True):
        np.testing.assert_allclose(ours, gradient.numpy(), atol=1e-12)


def test_backward_equals_finite_differences():
    x, weight, bias, g = example((5, 3))
    _, cache = reference.batch_norm_forward(x, weight, bias)
    step = 1e-5
    slopes = np.empty_like(x)
    for place in np.ndindex(*x.shape):
        nudge = np.zeros_like(x)
        nudge[place] = step
        ahead, behind = (reference.batch_norm_forward(x + s * nudge, weight, bias)[0] for s in (1, -1))
        slopes[place] = ((ahead - behind) * g).sum() / (2 * step)
    np.testing.assert_allclose(reference.batch_norm_backward(g, cache)[0], slopes, atol=1e-8)


def test_four_numbers_by_hand():
    y, _ = reference.batch_norm_forward(np.array([[1.0], [2.0], [3.0], [6.0]]), eps=0.5)
    np.testing.assert_allclose(y.ravel(), [-1.0, -0.5, 0.0, 1.5])  # mean 3, variance 3.5, 3.5 + 0.5 = 2 squared


def test_gradient_of_the_input_sums_to_zero():
    x, weight, bias, g = example((7, 4))
    _, cache = reference.batch_norm_forward(x, weight, bias, eps=0.3)
    assert np.abs(reference.batch_norm_backward(g, cache)[0].sum(0)).max() < 1e-14


def test_gradient_along_the_normalised_input_is_what_eps_leaves():
    """gamma (sum g xhat) eps (v + eps)^(-3/2), which is 0 only for eps = 0."""
    x, weight, bias, g = example((7, 4))
    eps = 0.3
    _, cache = reference.batch_norm_forward(x, weight, bias, eps)
    grad_input, grad_weight, _ = reference.batch_norm_backward(g, cache)
    _, variance = reference.batch_statistics(x)
    expected = weight * grad_weight * eps * (variance + eps) ** -1.5
    np.testing.assert_allclose((grad_input * cache.normalised).sum(0), expected, atol=1e-13)


def test_a_normalised_value_never_exceeds_the_root_of_n_minus_1():
    x = np.random.default_rng(0).standard_cauchy((9, 500))
    y, _ = reference.batch_norm_forward(x, eps=0.0)
    assert np.abs(y).max() <= np.sqrt(8) * (1 + 1e-12)


def test_two_values_become_their_order():
    y, _ = reference.batch_norm_forward(np.array([[3.0, -1.0], [5.0, -7.0]]), eps=0.0)
    np.testing.assert_allclose(y, [[-1, 1], [1, -1]])


def test_one_value_becomes_beta():
    y, _ = reference.batch_norm_forward(np.array([[4.0, -9.0]]), np.array([2.0, 3.0]), np.array([0.5, -0.5]))
    np.testing.assert_array_equal(y, [[0.5, -0.5]])


@SHAPES
def test_inference_equals_torch(shape):
    x, weight, bias, _ = example(shape)
    mean, var = np.arange(shape[1]) + 0.5, np.arange(shape[1]) + 2.0
    ours = reference.batch_norm_inference(x, mean, var, weight, bias)
    theirs = F.batch_norm(*(torch.tensor(value) for value in (x, mean, var, weight, bias)))
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-12)


@SHAPES
def test_running_statistics_in_torchs_convention_are_torchs(shape):
    x, *_ = example(shape)
    mean, var = np.arange(shape[1]) + 0.5, np.arange(shape[1]) + 2.0
    theirs = torch.tensor(mean), torch.tensor(var)
    F.batch_norm(torch.tensor(x), *theirs, training=True, momentum=0.3)
    for ours, value in zip(reference.update_running(mean, var, x, 0.3, "torch"), theirs, strict=True):
        np.testing.assert_allclose(ours, value.numpy(), atol=1e-12)


def test_algorithm_1_keeps_the_biased_variance():
    mean, var = reference.update_running([0.0], [1.0], [[2.0], [4.0]], 0.5, "algorithm1")
    np.testing.assert_allclose([mean, var], [[1.5], [1.0]])  # batch: mean 3, biased variance 1


def test_kerass_momentum_weighs_the_old_value():
    ours = reference.update_running([0.0], [1.0], [[2.0], [4.0]], 0.99, "keras")
    same = reference.update_running([0.0], [1.0], [[2.0], [4.0]], 0.01, "algorithm1")
    np.testing.assert_allclose(ours, same)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.0], [1.0], [[1.0], [2.0]], 0.1, "caffe"), "convention .*'caffe'"),
        (([0.0], [1.0], [[1.0], [2.0]], 1.5), r"momentum .*1\.5"),
        (([0.0], [1.0], [[1.0], [2.0]], -0.5), r"momentum .*-0\.5"),
        (([0.0], [1.0], [[1.0]]), r"more than one value.*\(1, 1\)"),
        (([0.0], [1.0], [1.0, 2.0]), r"shape .*\(2,\)"),
        (([0.0], [1.0], np.empty((0, 1))), r"not be empty.*\(0, 1\)"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        reference.update_running(*arguments)


@pytest.mark.parametrize("function", [reference.batch_norm_forward, lambda x: reference.batch_norm_inference(x, 0, 1)])
def test_an_input_without_channels_is_named(function):
    with pytest.raises(ValueError, match=r"x must have shape \(N, C\).*\(2,\)"):
        function([1.0, 2.0])
