"""CosineLinear: the cosine, its bound and its edges."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bnlib.norm.cosine import CosineLinear


@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 5)])
def test_the_output_is_the_cosine_of_the_angle_between_input_and_weights(shape):
    layer, x = CosineLinear(5, 3, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    w, rows = layer.weight.detach().numpy(), x.numpy()
    expected = rows @ w.T / np.linalg.norm(rows, axis=-1)[..., None] / np.linalg.norm(w, axis=-1)
    np.testing.assert_allclose(layer(x).detach(), expected, rtol=1e-12, atol=1e-15)


def test_it_agrees_with_torchs_cosine_similarity():
    layer, x = CosineLinear(5, 3), torch.randn(4, 5)
    torch.testing.assert_close(layer(x), F.cosine_similarity(x[:, None], layer.weight[None], dim=-1))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_scale_of_input_and_weights_does_not_matter(scale):
    layer, x = CosineLinear(5, 3), torch.randn(4, 5)
    expected = layer(x)
    torch.testing.assert_close(layer(x * scale), expected)
    with torch.no_grad():
        layer.weight.mul_(scale)
    torch.testing.assert_close(layer(x), expected)
    assert expected.abs().max() < 1


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.3, 0.6, 0.9])  # of the exponents, from 1 to the largest or the smallest number
def test_neither_the_largest_nor_the_smallest_numbers_change_the_cosines(kind, size):
    layer, x = CosineLinear(64, 3, eps=0.0, dtype=torch.float64), torch.rand(4, 64, dtype=torch.float64) + 0.5
    layer.weight.data.uniform_(0.5, 1.5)
    expected = layer(x).detach()
    for limit in (torch.finfo(kind).max, torch.finfo(kind).tiny):
        scale = 2.0 ** round(size * math.log2(limit))
        ours = CosineLinear(64, 3, eps=0.0, dtype=kind)
        ours.weight.data.copy_(layer.weight * scale)
        given = (x * scale).to(kind).requires_grad_()
        y = ours(given)
        torch.testing.assert_close(y.double(), expected, rtol=4 * torch.finfo(kind).eps, atol=0)
        (gradient,) = torch.autograd.grad(y.sum() / 1000, given)
        assert not gradient.isnan().any()


def test_weights_seen_from_their_own_direction_give_one():
    layer = CosineLinear(5, 3)
    y = layer(torch.cat((3 * layer.weight, -layer.weight)))
    torch.testing.assert_close(y.diagonal(), torch.ones(3))
    torch.testing.assert_close(y[3:].diagonal(), -torch.ones(3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_zero_input_gives_zero_and_finite_gradients(dtype):
    layer = CosineLinear(3, 2, dtype=dtype)
    x = torch.zeros(1, 3, dtype=dtype, requires_grad=True)
    y = layer(x)
    assert torch.equal(y, torch.zeros_like(y))
    y.sum().backward()
    assert torch.equal(layer.weight.grad, torch.zeros_like(layer.weight))
    assert not x.grad.isnan().any()


def test_gradients_are_those_of_numerical_differentiation():
    layer = CosineLinear(4, 3, dtype=torch.float64)
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(
        lambda x, weight: torch.func.functional_call(layer, {"weight": weight}, (x,)), (x, layer.weight)
    )


def test_initialisation_and_state_are_those_of_a_linear_layer_without_bias():
    torch.manual_seed(0)
    ours = CosineLinear(4, 3)
    torch.manual_seed(0)
    other = nn.Linear(4, 3, bias=False)
    torch.testing.assert_close(ours.state_dict(), other.state_dict(), rtol=0, atol=0)
    ours.load_state_dict(nn.Linear(4, 3, bias=False).state_dict())
    torch.testing.assert_close(copy.deepcopy(ours).state_dict(), ours.state_dict(), rtol=0, atol=0)


def test_autocast_gives_the_dtype_of_a_linear_layer():
    x = torch.randn(4, 8)
    layer = CosineLinear(8, 3)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        assert y.dtype == nn.Linear(8, 3)(x).dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), rtol=0.02, atol=0.02)


def test_many_layers_at_once_under_vmap_and_a_compiled_one_equal_each_on_its_own():
    layers, x = [CosineLinear(3, 2) for _ in range(4)], torch.randn(4, 5, 3)
    parameters, buffers = torch.func.stack_module_state(layers)
    together = torch.func.vmap(lambda p, b, x: torch.func.functional_call(layers[0], (p, b), (x,)))
    expected = torch.stack([layer(rows) for layer, rows in zip(layers, x, strict=True)])
    torch.testing.assert_close(together(parameters, buffers, x), expected)
    compiled = torch.compile(layers[0], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x[0]), expected[0])


def test_it_prints_its_arguments():
    assert str(CosineLinear(4, 3, eps=0.1)) == "CosineLinear(in_features=4, out_features=3, eps=0.1)"
