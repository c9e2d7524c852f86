"""The statistics of a batch are exact wherever the running mean is, and whatever the first values are.

The references are the same layers in float64, or PyTorch's batch norm in float64.
"""

import copy
import math

import pytest
import torch
from torch import nn

import bnlib
from bnlib.norm.full_norm_passes import moments, moments_over_processes

SHAPES = {"vectors": (64, 2), "images": (16, 2, 9, 7), "channels-last": (16, 2, 9, 7), "large": (4, 2, 512, 512)}
FAR = (0.0, 1e2, 1e4, 1e6, -1e7)


def batch(shape, offset=2.0):
    x = torch.randn(SHAPES[shape]) + offset
    return x.contiguous(memory_format=torch.channels_last) if shape == "channels-last" else x


@pytest.mark.parametrize("variance", [1.0, None], ids=["running variance 1", "running variance as far"])
@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "make", [bnlib.BatchNorm, lambda size: bnlib.BatchRenorm(size, r_max=1.0, d_max=0.0)], ids=["BatchNorm", "renorm"]
)
def test_the_output_in_train_mode_does_not_depend_on_the_running_mean(make, shape, far, variance):
    layer, x = make(2), batch(shape).requires_grad_()
    layer.running_mean.fill_(far)
    layer.running_var.fill_(variance or 1 + far**2)
    wide = x.detach().double().requires_grad_()
    expected = nn.functional.batch_norm(wide, None, None, training=True)
    y = layer(x)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn_like(x)
    (y * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad.double(), wide.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("alpha", [0.03, 0.3, 0.7, 0.99, 0.9999, 1.0])
@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize("shape", SHAPES)
def test_full_norm_is_exact_wherever_its_running_mean_is(shape, far, alpha):
    layer, x = bnlib.FullNorm(2, alpha=alpha), batch(shape)
    layer.running_mean.fill_(far)
    wide = copy.deepcopy(layer).double()
    y, expected = layer(x).double(), wide(x.double())
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(layer.running_var.double(), wide.running_var, rtol=1e-5, atol=0)
    layer.eval(), wide.eval()
    torch.testing.assert_close(layer(x).double(), wide(x.double()), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("place", [0, 1, -1, "the first three", "first and last", "everywhere"])
@pytest.mark.parametrize("count", [10, 10**3, 10**6])
def test_unusual_values_cost_no_digits(count, place):
    x, large = torch.randn(1, 2, count, 1), 10 * math.sqrt(count)
    flat = x[0, 0, :, 0]
    if isinstance(place, int):
        flat[place] += large
    elif place == "everywhere":
        flat += large
    else:
        flat[[0, 1, 2] if place == "the first three" else [0, (count - 1) // 2, -1]] += large
    wide = x.double()
    _, mean, variance, *_ = moments(x)
    torch.testing.assert_close(mean, wide.mean((0, 2, 3)), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(variance, wide.var((0, 2, 3), correction=0), rtol=1e-6, atol=0)
    layer = bnlib.FullNorm(2, alpha=1.0)
    reference = copy.deepcopy(layer).double()
    torch.testing.assert_close(layer(x).double(), reference(wide), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.running_var.double(), reference.running_var, rtol=1e-6, atol=0)


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e8])
def test_moments_over_one_process_are_those_of_the_process(monkeypatch, offset):
    """The same combination over several processes is tested with ``SyncBatchNorm``."""
    parts = [torch.randn(count, 3, dtype=torch.float64) + offset for count in (20, 1, 43)]
    own = [(len(part), part.mean(0), part.var(0, correction=0)) for part in parts]

    def all_gather(found, tensor, group):
        for place, (count, mean, variance) in zip(found, own, strict=True):
            place.copy_(torch.cat((torch.tensor([count], dtype=torch.float64), mean, variance)))

    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group: len(parts))
    monkeypatch.setattr(torch.distributed, "all_gather", all_gather)
    count, mean, variance = moments_over_processes(None, *own[0])
    whole = torch.cat(parts)
    assert count == 64
    torch.testing.assert_close(mean, whole.mean(0), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(variance, whole.var(0, correction=0), rtol=1e-7, atol=0)


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e6])
def test_eval_mode_of_a_double_layer_is_exact_for_an_input_of_float32(offset):
    layer, x = bnlib.FullNorm(2, dtype=torch.float64, alpha=0.9), torch.randn(500, 2) + offset
    for _ in range(5):
        layer(x)
    layer.eval()
    torch.testing.assert_close(layer(x).double(), layer(x.double()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", ["float", "load", "load and assign", "bfloat16"])
def test_a_shorter_type_keeps_the_rest_of_the_mean(way):
    wide, x = bnlib.FullNorm(2, dtype=torch.float64, alpha=0.5), torch.randn(50, 2, dtype=torch.float64) + 1e6
    wide(x)
    expected = wide.running_mean + wide.running_mean_rest
    short = bnlib.FullNorm(2)
    if way == "float":
        short = copy.deepcopy(wide).float()
    elif way == "bfloat16":
        short = copy.deepcopy(wide).bfloat16()
    else:
        short.load_state_dict(wide.state_dict(), assign=way == "load and assign")
    found = short.running_mean.double() + short.running_mean_rest.double()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
