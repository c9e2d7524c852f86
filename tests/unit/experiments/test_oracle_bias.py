"""Which oracle of FullNorm is an unbiased estimate of the gradient of the full objective: exactly, not by sampling."""

import pytest
import torch

from bnlib.experiments.full_normalization.oracle_bias import Problem, exact_estimates, gradient_error
from bnlib.norm import FullNorm

SEEDS = (0, 1, 2)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_gradient_is_that_of_finite_differences(depth):
    problem = Problem(depth)
    weight, step = problem.linears[0].weight.detach(), 1e-6
    slopes = []
    for row in torch.eye(weight.numel(), dtype=weight.dtype).view(-1, *weight.shape):
        up, down = problem.objective(weight + step * row), problem.objective(weight - step * row)
        slopes.append((up - down) / (2 * step))
    torch.testing.assert_close(torch.stack(slopes), problem.gradient(), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_on_all_data_with_alpha_one_the_batch_oracle_is_the_gradient(depth):
    problem = Problem(depth)
    network = problem.network(
        lambda *args, **options: FullNorm(*args, alpha=1.0, eps=1e-300, oracle="batch", **options)
    )
    loss = (network(problem.x) - problem.y).square().mean()
    (grad,) = torch.autograd.grad(loss, problem.linears[0].weight)
    torch.testing.assert_close(grad.flatten(), problem.gradient(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_running_has_no_bias_at_any_depth_and_batch_size(depth, batch_size, seed):
    assert gradient_error(Problem(depth, seed), "running", batch_size).bias < 1e-9


@pytest.mark.parametrize("seed", SEEDS)
def test_batch_has_a_bias_of_c_over_b_in_one_layer_and_the_wrong_sign_at_one(seed):
    one, two, three = (gradient_error(Problem(1, seed), "batch", batch_size) for batch_size in (1, 2, 3))
    assert one.bias > 1 and one.cosine < 0
    assert one.bias == pytest.approx(2 * two.bias, rel=1e-8) and one.bias == pytest.approx(3 * three.bias, rel=1e-8)


@pytest.mark.parametrize("seed", SEEDS)
def test_leave_one_out_has_no_bias_in_one_layer_but_in_two(seed):
    assert gradient_error(Problem(1, seed), "leave_one_out", 2).bias < 1e-9
    assert gradient_error(Problem(2, seed), "leave_one_out", 2).bias > 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_constant_is_wrong_by_the_same_at_every_batch_size(seed):
    one, two = (gradient_error(Problem(1, seed), "constant", batch_size) for batch_size in (1, 2))
    assert one.bias > 0.2 and two.bias == pytest.approx(one.bias, rel=1e-8)


@pytest.mark.parametrize("seed", SEEDS)
def test_literal_lies_between_batch_and_constant(seed):
    """Its path through the estimates is that of "batch" divided by the number of channels, 4."""
    problem = Problem(1, seed)
    averages = {}
    for oracle in ("batch", "literal", "constant"):
        averages[oracle] = problem.batch_gradients(exact_estimates(problem, oracle, 2), 2).mean(0)
    mixed = averages["batch"] / 4 + averages["constant"] * 3 / 4
    torch.testing.assert_close(averages["literal"], mixed, rtol=1e-8, atol=1e-10)


def test_batch_norm_at_batch_size_one_has_no_gradient_at_all():
    found = gradient_error(Problem(1), "batch norm", 1)
    assert found.bias == pytest.approx(1) and found.noise == 0
