"""GhostBatchNorm: each virtual batch by itself, in the forward and backward pass and in the running statistics."""

import numpy as np
import pytest
import torch
from torch import nn

import bnlib
from bnlib import reference


@pytest.mark.parametrize("shape", [(12, 3), (13, 3), (6, 3, 4), (7, 3, 2, 2), (3, 3)], ids=str)
def test_output_and_gradients_are_those_of_the_formula(shape):
    torch.manual_seed(0)
    layer = bnlib.GhostBatchNorm(3, virtual_batch_size=5, dtype=torch.float64)
    nn.init.normal_(layer.weight), nn.init.normal_(layer.bias)
    x, g = torch.randn(2, *shape, dtype=torch.float64)
    x.requires_grad_()
    y = layer(x)
    y.backward(g)
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    out, caches = reference.ghost_batch_norm_forward(x.detach().numpy(), 5, weight, bias)
    grads = reference.ghost_batch_norm_backward(g.numpy(), caches)
    np.testing.assert_allclose(y.detach(), out, atol=1e-12)
    for ours, theirs in zip((x.grad, layer.weight.grad, layer.bias.grad), grads, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-11)


def test_running_statistics_are_those_of_batch_norm_fed_the_virtual_batches_in_turn():
    ghost, plain, x = bnlib.GhostBatchNorm(3, 4), bnlib.BatchNorm(3), 2 * torch.randn(8, 3) + 1
    ghost(x)
    for part in x.split(4):
        plain(part)
    torch.testing.assert_close(ghost.state_dict(), plain.state_dict())
    torch.testing.assert_close(ghost.eval()(x), plain.eval()(x))


def test_the_last_virtual_batch_is_not_left_with_one_sample():
    """33 samples are 17 and 16, not 32 and 1, which batch norm would turn into beta."""
    layer, x = bnlib.GhostBatchNorm(2, virtual_batch_size=32), torch.randn(33, 2)
    y = layer(x)
    assert (y[-1].abs() > 1e-3).all()
    torch.testing.assert_close(y[17:], bnlib.BatchNorm(2)(x[17:]))


@pytest.mark.parametrize("count", [1, 5, 8])
def test_a_batch_that_fits_into_one_virtual_batch_is_treated_as_batch_norm_does(count):
    x = torch.randn(count, 3)
    assert torch.equal(bnlib.GhostBatchNorm(3, virtual_batch_size=8)(x), bnlib.BatchNorm(3)(x))


def test_other_samples_matter_only_in_the_same_virtual_batch():
    layer, x = bnlib.GhostBatchNorm(3, virtual_batch_size=4), torch.randn(8, 3)
    other = x.clone()
    other[4:] = 10 * torch.randn(4, 3)
    torch.testing.assert_close(layer(x)[:4], layer(other)[:4])
    assert not torch.allclose(layer(x)[4:], layer(other)[4:], atol=0.1)


def test_convert_replaces_batch_norm_by_it_and_back():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, eps=1e-3))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    ghost = bnlib.convert(model, to=bnlib.GhostBatchNorm, virtual_batch_size=4)[1]
    assert type(ghost) is bnlib.GhostBatchNorm and (ghost.eps, ghost.virtual_batch_size) == (1e-3, 4)
    back = bnlib.convert(model, to=bnlib.BatchNorm)
    torch.testing.assert_close(dict(back.state_dict()), state)


def test_a_virtual_batch_without_samples_is_refused_and_the_arguments_are_printed():
    with pytest.raises(ValueError, match="virtual_batch_size must be an integer, at least 1, got 0"):
        bnlib.GhostBatchNorm(3, virtual_batch_size=0)
    assert "virtual_batch_size=32" in repr(bnlib.GhostBatchNorm(3))
    assert bnlib.GhostBatchNorm(3)(torch.zeros(0, 3)).shape == (0, 3)


def test_a_program_of_eval_mode_takes_batches_of_any_size():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), bnlib.GhostBatchNorm(4, 2)).eval()
    program = torch.export.export(model, (torch.randn(6, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    x = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(program.module()(x), model(x))
