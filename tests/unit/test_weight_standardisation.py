"""Weight standardisation: mean 0 and variance 1 over the fan-in, as a parametrisation of torch.nn.utils."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from bnlib.norm.weight_standardisation import WeightStandardisation, weight_standardise

EPS = 1e-5
PLAIN = [
    lambda **kind: nn.Linear(6, 4, **kind),
    lambda **kind: nn.Conv1d(6, 4, 3, groups=2, **kind),
    lambda **kind: nn.Conv2d(6, 4, (3, 2), **kind),
    lambda **kind: nn.Conv2d(4, 4, 3, groups=4, **kind),
    lambda **kind: nn.Conv3d(6, 4, (1, 3, 2), groups=2, **kind),
]
TRANSPOSED = [
    lambda **kind: nn.ConvTranspose1d(6, 4, 3, groups=2, **kind),
    lambda **kind: nn.ConvTranspose2d(6, 4, (3, 2), **kind),
    lambda **kind: nn.ConvTranspose3d(6, 4, (1, 3, 2), groups=2, **kind),
]


def standardised(fan_in):
    return (fan_in - fan_in.mean()) / np.sqrt(fan_in.var() + EPS)


@pytest.mark.parametrize("make", PLAIN)
def test_the_weights_of_each_output_channel_are_standardised_over_its_fan_in(make):
    layer = make(dtype=torch.float64)
    expected = np.stack([standardised(channel) for channel in layer.weight.detach().numpy()])
    assert weight_standardise(layer) is layer
    np.testing.assert_allclose(layer.weight.detach(), expected, rtol=1e-10)


@pytest.mark.parametrize("make", TRANSPOSED)
def test_transposed_convolutions_have_their_fan_in_where_their_weights_have_it(make):
    layer = make(dtype=torch.float64)
    expected = layer.weight.detach().numpy().copy()
    incoming, outgoing = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    for group in range(layer.groups):
        rows = slice(group * incoming, (group + 1) * incoming)
        for channel in range(outgoing):
            expected[rows, channel] = standardised(expected[rows, channel])
    np.testing.assert_allclose(weight_standardise(layer).weight.detach(), expected, rtol=1e-10)


@pytest.mark.parametrize("make", PLAIN + TRANSPOSED)
def test_adding_to_all_the_weights_of_an_output_channel_or_scaling_them_changes_no_output(make):
    """Which weights belong to an output channel is read off the output here, not off the shape of the weights."""
    layer = make(dtype=torch.float64)
    x = torch.randn(2, *[6 if layer.weight.dim() == 2 else layer.in_channels], *[5] * (layer.weight.dim() - 2)).double()
    leads_to_channel_1 = torch.autograd.grad(layer(x)[:, 1].sum(), layer.weight)[0] != 0
    weight_standardise(layer, eps=1e-12)
    expected = layer(x)
    with torch.no_grad():
        original = layer.parametrizations.weight.original
        original.copy_(torch.where(leads_to_channel_1, 3 * original + 1, original))
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("dim", [0, 1])
def test_gradients_are_those_of_numerical_differentiation(dim):
    weight = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    standardisation = WeightStandardisation(EPS, dim, groups=1 + dim)
    torch.autograd.gradcheck(standardisation, weight)
    torch.autograd.gradgradcheck(standardisation, weight)


@pytest.mark.parametrize("options", [{}, {"groups": 2}])
@pytest.mark.parametrize("fan_in, size", [(1, (3, 1)), (1, (1, 3)), (2, (3, 1)), (2, (1, 1))])
@pytest.mark.parametrize("in_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("weight_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_do_not_depend_on_the_layout(options, fan_in, size, in_format, weight_format):
    channels = fan_in * options.get("groups", 1)
    layer = weight_standardise(nn.ConvTranspose2d(channels, 6, size, **options))
    exact = copy.deepcopy(layer).double()
    x = torch.randn(2, channels, 5, 5)
    layer.to(memory_format=weight_format)(x.contiguous(memory_format=in_format)).pow(3).sum().backward()
    exact(x.double()).pow(3).sum().backward()
    found, expected = (each.parametrizations.weight.original.grad for each in (layer, exact))
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-3)


def test_what_is_learned_are_the_weights_before():
    layer = weight_standardise(nn.Conv2d(3, 4, 3))
    assert [name for name, _ in layer.named_parameters()] == ["bias", "parametrizations.weight.original"]
    layer(torch.randn(2, 3, 5, 5)).square().sum().backward()
    assert layer.parametrizations.weight.original.grad.abs().max() > 0


def test_a_state_dict_a_copy_and_an_assignment_carry_the_weights_before():
    layer, twin = weight_standardise(nn.Linear(6, 4)), weight_standardise(nn.Linear(6, 4))
    x = torch.randn(5, 6)
    twin.load_state_dict(layer.state_dict())
    assigned = copy.deepcopy(layer)
    assigned.weight = 2 * layer.parametrizations.weight.original
    torch.testing.assert_close(assigned.parametrizations.weight.original, 2 * layer.parametrizations.weight.original)
    for each in (twin, copy.deepcopy(layer)):
        torch.testing.assert_close(each(x), layer(x), rtol=0, atol=0)


@pytest.mark.parametrize("keep", [True, False])
def test_it_can_be_removed_keeping_the_standardised_weights_or_those_before(keep):
    layer = nn.Linear(6, 4)
    before = layer.weight.detach().clone()
    during = weight_standardise(layer).weight.detach().clone()
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=keep)
    assert type(layer) is nn.Linear and list(layer.state_dict()) == ["bias", "weight"]
    torch.testing.assert_close(layer.weight.detach(), during if keep else before, rtol=0, atol=0)


def test_eval_mode_is_train_mode():
    layer, x = weight_standardise(nn.Linear(6, 4)), torch.randn(5, 6)
    torch.testing.assert_close(layer(x), layer.eval()(x), rtol=0, atol=0)


def test_a_single_weight_for_each_output_channel_is_refused_and_the_layer_left_alone():
    layer = nn.Conv2d(4, 4, 1, groups=4)
    with pytest.raises(ValueError, match="fan-in of at least 2 to be standardised, got 1"):
        weight_standardise(layer)
    assert not parametrize.is_parametrized(layer)


def test_channels_last_and_autocast_give_the_same_as_a_layer_with_those_weights():
    layer = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 6, 6).contiguous(memory_format=torch.channels_last)
    plain = parametrize.remove_parametrizations(weight_standardise(copy.deepcopy(layer)), "weight")
    weight_standardise(layer)
    torch.testing.assert_close(layer(x), plain(x))
    assert layer(x).is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(x), plain(x))


def test_many_layers_at_once_under_vmap_and_a_compiled_one_equal_each_on_its_own():
    layers = [nn.Sequential(weight_standardise(nn.Linear(3, 2))) for _ in range(4)]
    x = torch.randn(4, 5, 3)
    parameters, buffers = torch.func.stack_module_state(layers)
    together = torch.func.vmap(lambda p, b, x: torch.func.functional_call(layers[0], (p, b), (x,)))
    expected = torch.stack([layer(rows) for layer, rows in zip(layers, x, strict=True)])
    torch.testing.assert_close(together(parameters, buffers, x), expected)
    compiled = torch.compile(layers[0], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x[0]), expected[0])
