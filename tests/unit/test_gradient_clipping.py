"""Adaptive gradient clipping: by hand, and what it leaves alone."""

import math

import pytest
import torch
from torch import nn

from bnlib.gradient_clipping import clip_gradients_adaptively_, clipped, unit_norms


def test_a_unit_is_clipped_by_hand_and_another_is_left_alone():
    """Norms 5 and 2: at a clipping of 0.1 the gradients may have norms of 0.5 and 0.2."""
    weight = torch.tensor([[3.0, -4.0], [2.0, 0.0]])
    gradient = torch.tensor([[0.0, 10.0], [0.06, -0.08]])
    expected = torch.tensor([[0.0, 0.5], [0.06, -0.08]])
    torch.testing.assert_close(clipped(weight, gradient, clipping=0.1), expected)


def test_the_unit_of_a_convolution_is_an_output_channel():
    weight = torch.ones(2, 3, 2, 2)
    gradient = torch.stack([torch.full((3, 2, 2), 7.0), torch.full((3, 2, 2), 0.01)])
    found = clipped(weight, gradient, clipping=0.5)
    torch.testing.assert_close(unit_norms(found).flatten()[0], torch.tensor(0.5 * math.sqrt(12)))
    torch.testing.assert_close(found[1], gradient[1])


def test_a_vector_is_one_unit_and_zeros_can_still_move():
    torch.testing.assert_close(unit_norms(torch.tensor([3.0, 4.0])), torch.tensor(5.0))
    moved = clipped(torch.zeros(2), torch.tensor([3.0, 4.0]), clipping=0.1, eps=0.01)
    torch.testing.assert_close(moved, torch.tensor([0.0006, 0.0008]))


def test_a_gradient_of_zero_stays_zero():
    assert clipped(torch.ones(2, 3), torch.zeros(2, 3)).eq(0).all()


def test_in_place_it_clips_each_gradient_and_skips_parameters_without_one():
    layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    layer(100 * torch.eye(3)).sum().backward()
    before = layer.weight.grad.clone()
    clip_gradients_adaptively_(layer.parameters(), clipping=0.2)
    torch.testing.assert_close(layer.weight.grad, clipped(layer.weight, before, clipping=0.2))
    assert layer.bias.grad is None and not torch.equal(layer.weight.grad, before)


@pytest.mark.parametrize("scales", [(1, 1e4), (1e-3, 1e4), (1e-4, 1e-6), (1e-3, 1e30), (1e30, 1e33), (1e-30, 1e-35)])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(4, 300), (300,), (2, 3, 10, 10)])
def test_norms_beyond_the_range_of_the_dtype(shape, kind, scales):
    values, largest = torch.rand(shape, dtype=torch.float64), torch.finfo(kind).max
    weight, gradient = ((values * scale).clamp(max=largest).to(kind) for scale in scales)
    found, norms = clipped(weight, gradient), [
        each.double().flatten(min(1, len(shape) - 1)).norm(dim=-1) for each in (weight, gradient)
    ]  # fmt: skip
    factor = (0.01 * norms[0].clamp(min=1e-3) / norms[1].clamp(min=1e-300)).clamp(max=1)
    expected = gradient.double() * factor.view(-1, *[1] * (len(shape) - 1))
    assert found.dtype is kind
    torch.testing.assert_close(
        found, expected.to(kind), rtol=4 * torch.finfo(kind).eps, atol=2e-7 * (kind.itemsize < 4)
    )


def test_a_sparse_gradient_is_refused():
    layer = nn.Embedding(5, 3, sparse=True)
    layer(torch.tensor([1])).sum().backward()
    with pytest.raises(TypeError, match=r"gradient must be a dense tensor .*, got torch.sparse_coo .* sparse=True"):
        clip_gradients_adaptively_(layer.parameters())


@pytest.mark.parametrize("name", ["clipping", "eps"])
def test_a_limit_that_is_not_positive_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be a finite number, above 0, got 0"):
        clipped(torch.ones(2), torch.ones(2), **{name: 0.0})
