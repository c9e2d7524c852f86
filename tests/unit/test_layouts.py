"""Every layout of the input and of the gradient at the output gives the right gradients.

With dimensions of size 1, PyTorch's own gradient is wrong for some pairs of layouts; see ``bnlib.norm.layouts``.
"""

import copy
import itertools
import random

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import bnlib
from bnlib.norm.layouts import in_readable_layout, readable

SHAPES = [(8, 3, 10, 1), (8, 3, 1, 10), (1, 3, 5, 4), (6, 3, 1, 1), (1, 3, 5, 1), (4, 3, 5, 2), (3, 1, 4, 1), (3, 4, 6)]
SHAPES += [(2, 3, 4, 1, 1), (1, 3, 2, 3, 2), (2, 3, 1, 4, 1), (5, 3)]
NO_SPREAD = {"shift_spread": 0.0, "scale_spread": 0.0}
LAYERS = {
    "BatchNorm": lambda channels: bnlib.BatchNorm(channels),
    "NoisyBatchNorm": lambda channels: bnlib.NoisyBatchNorm(channels, shift=0.0, scale=1.0, **NO_SPREAD),
    "GhostBatchNorm": lambda channels: bnlib.GhostBatchNorm(channels, 64),
    "SyncBatchNorm": lambda channels: bnlib.SyncBatchNorm(channels),
    "BatchRenorm": lambda channels: bnlib.BatchRenorm(channels, r_max=1, d_max=0),
    "BatchRenorm with limits": lambda channels: bnlib.BatchRenorm(channels, r_max=1 + 1e-12, d_max=0),
}
EACH = pytest.mark.parametrize("name", LAYERS)


def in_layout(x, order):
    """``x``, whose dimensions lie in memory in this order."""
    return x.permute(order).contiguous().permute([order.index(dim) for dim in range(x.dim())])


def layouts(shape):
    """The contiguous layout, the two channels-last ones, and some others."""
    dims = len(shape)
    last = [0, *range(2, dims), 1]
    orders = random.Random(0).sample(list(itertools.permutations(range(dims))), min(2, dims))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    made = [x, in_layout(x, last), *[in_layout(x, list(order)) for order in orders]]
    if dims > 3:
        made.append(x.contiguous(memory_format=torch.channels_last if dims == 4 else torch.channels_last_3d))
    return [*made, torch.stack((x, x), -1)[..., 0]]


def normalised(x, layer, training):
    dims, view = [dim for dim in range(x.dim()) if dim != 1], [-1, *[1] * (x.dim() - 2)]
    if training:
        mean = x.mean(dims, keepdim=True)
        variance = (x - mean).square().mean(dims, keepdim=True)
    else:
        mean, variance = layer.running_mean.clone().view(view), layer.running_var.clone().view(view)
    return (x - mean) / (variance + layer.eps).sqrt() * layer.weight.view(view) + layer.bias.view(view)


def made(name, shape, training):
    layer = LAYERS[name](shape[1]).double().train(training)
    for values in (layer.weight, layer.bias, layer.running_mean):
        nn.init.normal_(values, generator=torch.Generator().manual_seed(2))
    return layer


@EACH
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_do_not_depend_on_the_layout(name, training, shape):
    for x, g in itertools.product(layouts(shape), repeat=2):
        layer, x = made(name, shape, training), x.detach().requires_grad_()
        wanted = [x, layer.weight, layer.bias]
        expected = torch.autograd.grad(normalised(x, layer, training), wanted, g)
        y = layer(x)
        assert y.shape == x.shape
        # A batch of one value per channel has the gradient 0, up to rounding in the formula.
        torch.testing.assert_close(torch.autograd.grad(y, wanted, g), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("oracle", ["batch", "running", "leave_one_out"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_full_norm_has_the_same_gradients_in_every_layout(oracle, training, shape):
    if oracle == "leave_one_out" and shape[0] == 1:
        pytest.skip("it needs two samples")
    layer = bnlib.FullNorm(shape[1], oracle=oracle, dtype=torch.float64).train(training)
    for values in (layer.weight, layer.bias, layer.running_mean, layer.running_grad_bias):
        nn.init.normal_(values, generator=torch.Generator().manual_seed(2))
    expected = None
    for x, g in itertools.product(layouts(shape), repeat=2):
        twin, x = copy.deepcopy(layer), x.detach().requires_grad_()
        found = torch.autograd.grad(twin(x), [x, twin.weight, twin.bias], g)
        expected = expected or found
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@EACH
@pytest.mark.parametrize("training", [True, False])
def test_a_linear_layer_behind_a_squeezed_image(name, training):
    """The usual head of a network for sequences: its gradient arrives in a layout of its own."""
    layer, head = made(name, (8, 3, 10, 1), training), nn.Linear(3, 2).double()
    x = torch.randn(8, 3, 10, 1, dtype=torch.float64, requires_grad=True)
    found, expected = (
        torch.autograd.grad(head(y.squeeze(-1).transpose(1, 2)).pow(3).sum(), [x, layer.weight])
        for y in (layer(x), normalised(x, layer, training))
    )
    torch.testing.assert_close(found, expected)


@EACH
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_layer(name, reentrant):
    x = torch.randn(8, 10, 3, dtype=torch.float64).transpose(1, 2).unsqueeze(-1)
    results = []
    for checkpointed in (True, False):
        layer, given = made(name, x.shape, True), x.detach().requires_grad_()
        y = checkpoint(layer, given, use_reentrant=reentrant) if checkpointed else layer(given)
        y.pow(3).sum().backward()
        results.append((given.grad, layer.weight.grad, y.detach()))
    torch.testing.assert_close(*results)


def test_ordinary_layouts_are_left_alone():
    plain, last = torch.randn(4, 3, 5, 2), torch.randn(1, 3, 5, 2).contiguous(memory_format=torch.channels_last)
    for x in (
        plain,
        plain.contiguous(memory_format=torch.channels_last),
        last,
        torch.randn(1, 3),
        torch.randn(1, 3, 1),
    ):
        assert readable(x) is x
    open_layout = torch.randn(8, 10, 3).transpose(1, 2).unsqueeze(-1)
    with torch.no_grad():
        assert readable(open_layout) is open_layout
    view = readable(open_layout)
    assert view.data_ptr() == open_layout.data_ptr() and torch.equal(view, open_layout)
    assert in_readable_layout(torch.relu, plain[:1]).shape == (1, 3, 5, 2)
