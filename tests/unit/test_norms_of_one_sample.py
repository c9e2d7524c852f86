"""RMSNorm, dynamic tanh, FRN and EvoNorm-S0: each equals its formula in NumPy, and what is special about it."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bnlib
from bnlib import models, reference

CHANNELS = 6
SHAPES = pytest.mark.parametrize("shape", [(5, 6), (1, 6), (4, 6, 3), (2, 6, 4, 3), (2, 6, 2, 3, 2)], ids=str)
LAYERS = {
    "RMSNorm": lambda: bnlib.RMSNorm(CHANNELS, eps=0.01),
    "DynamicTanh": lambda: bnlib.DynamicTanh(CHANNELS, alpha=0.7),
    "FRN": lambda: bnlib.FilterResponseNorm(CHANNELS, eps=0.01),
    "FRN, learned eps": lambda: bnlib.FilterResponseNorm(CHANNELS, eps=0.01, learn_eps=True),
    "FRN, no threshold": lambda: bnlib.FilterResponseNorm(CHANNELS, eps=0.01, threshold=False),
    "EvoNormS0": lambda: bnlib.EvoNormS0(2, CHANNELS, eps=0.01),
}
ALL = pytest.mark.parametrize("name", LAYERS)


def randomised(name):
    """The layer in float64 with parameters that are not those at the start."""
    layer = LAYERS[name]().double()
    with torch.no_grad():
        for value in layer.parameters():
            value.uniform_(0.3, 1.2)
    return layer


def by_formula(layer, x, g):
    """Output, gradient of the input and gradients by parameter, from ``bnlib.reference``."""
    known = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    weight, bias = known.get("weight"), known.get("bias")
    if isinstance(layer, bnlib.RMSNorm):
        out = reference.rms_norm_forward(x, weight, 0.01)
        names, grads = ["weight"], reference.rms_norm_backward(g, x, weight, 0.01)
    elif isinstance(layer, bnlib.DynamicTanh):
        out = reference.dynamic_tanh_forward(x, known["alpha"].item(), weight, bias)
        names = ["alpha", "weight", "bias"]
        grads = reference.dynamic_tanh_backward(g, x, known["alpha"].item(), weight, bias)
    elif isinstance(layer, bnlib.EvoNormS0):
        out = reference.evonorm_s0_forward(x, 2, known["v"], weight, bias, 0.01)
        names = ["v", "weight", "bias"]
        grads = reference.evonorm_s0_backward(g, x, 2, known["v"], weight, bias, 0.01)
    else:
        arguments = weight, bias, known.get("threshold"), 0.01 + known.get("learned_eps", np.zeros(1)).item()
        out = reference.filter_response_norm_forward(x, *arguments)
        names = ["weight", "bias", "threshold", "learned_eps"]
        grads = reference.filter_response_norm_backward(g, x, *arguments)
    return out, grads[0], dict(zip(names, grads[1:], strict=True))


@ALL
@SHAPES
def test_output_and_gradients_are_those_of_the_formula(name, shape):
    torch.manual_seed(0)
    layer = randomised(name)
    x, g = torch.randn(2, *shape, dtype=torch.float64)
    x.requires_grad_()
    y = layer(x)
    y.backward(g)
    out, grad_input, grads = by_formula(layer, x.detach().numpy(), g.numpy())
    np.testing.assert_allclose(y.detach(), out, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(x.grad, grad_input, rtol=1e-9, atol=1e-11)
    for each, value in layer.named_parameters():
        np.testing.assert_allclose(value.grad.squeeze(), grads[each], rtol=1e-9, atol=1e-11, err_msg=each)


@ALL
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_values_in_half_precision_stay_finite(name, dtype):
    layer, x = LAYERS[name](), 1000 * torch.randn(4, CHANNELS, 3, 3)  # their squares exceed the range of float16
    np.testing.assert_allclose(layer(x.to(dtype)).float().detach(), layer(x).detach(), rtol=0.05, atol=0.05)


@ALL
def test_a_batch_without_samples_gives_an_empty_output(name):
    assert LAYERS[name]()(torch.zeros(0, CHANNELS, 2)).shape == (0, CHANNELS, 2)


@ALL
def test_inputs_of_other_shapes_are_named(name):
    with pytest.raises(ValueError, match=r"input must have num_features=6 channels in dimension 1, got 5"):
        LAYERS[name]()(torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"input must have shape \(N, C\)"):
        LAYERS[name]()(torch.zeros(6))


@ALL
def test_many_layers_under_vmap_and_a_compiled_one_equal_each_by_itself(name):
    layers, x = [LAYERS[name]() for _ in range(3)], torch.randn(3, 4, CHANNELS)
    parameters, _ = torch.func.stack_module_state(layers)
    together = torch.func.vmap(lambda p, x: torch.func.functional_call(layers[0], p, (x,)))
    torch.testing.assert_close(
        together(parameters, x), torch.stack([layer(each) for layer, each in zip(layers, x, strict=True)])
    )
    compiled = torch.compile(copy.deepcopy(layers[0]), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x[0]), layers[0](x[0]))


def test_rms_norm_of_vectors_is_torchs_and_loads_its_state():
    ours, theirs, x = bnlib.RMSNorm(5), nn.RMSNorm(5), torch.randn(4, 5)
    nn.init.normal_(theirs.weight)
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours(x), theirs(x))


def test_rms_norm_of_images_is_layer_norm_where_the_mean_is_zero():
    x = torch.randn(3, CHANNELS, 4, 4)
    centred = x - x.mean((1, 2, 3), keepdim=True)
    ours, layer_norm = bnlib.RMSNorm(CHANNELS, eps=1e-5), nn.GroupNorm(1, CHANNELS)
    torch.testing.assert_close(ours(centred), layer_norm(x))
    assert not torch.allclose(ours(x + 1), layer_norm(x + 1), atol=0.1)


def test_dynamic_tanh_starts_at_its_alpha_and_has_one_alpha_for_the_layer():
    layer = bnlib.DynamicTanh(3, alpha=2.0)
    assert {name: value.shape for name, value in layer.named_parameters()} == {
        "alpha": (1,),
        "weight": (3,),
        "bias": (3,),
    }
    torch.testing.assert_close(
        layer(torch.tensor([[0.0, 0.1, -50.0]])),
        torch.tensor([[0.0, 0.2, -1.0]]).tanh().where(torch.tensor([[True, True, False]]), torch.tensor(-1.0)),
    )


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_frn_behind_a_linear_layer_is_a_sign_and_passes_almost_no_gradient(size):
    x = torch.full((1, CHANNELS), size, requires_grad=True)
    y = bnlib.FilterResponseNorm(CHANNELS, eps=1e-12)(x)
    y.sum().backward()
    torch.testing.assert_close(y, torch.ones(1, CHANNELS))
    assert (x.grad.abs() * size < 1e-5).all()


def test_evonorm_is_swish_over_the_deviation_of_group_norm():
    x = torch.randn(3, CHANNELS, 4, 4)
    deviation = x.unflatten(1, (2, 3)).std((2, 3, 4), correction=0).repeat_interleave(3, 1)[:, :, None, None]
    torch.testing.assert_close(bnlib.EvoNormS0(2, CHANNELS)(x), F.silu(x) / deviation, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bnlib.DynamicTanh(3, alpha=0.0), "alpha must be positive, got 0"),
        (lambda: bnlib.FilterResponseNorm(3, eps=0.0), "eps must be positive, got 0"),
        (lambda: bnlib.EvoNormS0(2, 6, eps=-1.0), "eps must be positive, got -1"),
        (lambda: bnlib.EvoNormS0(4, 6), "num_channels must be divisible by num_groups, got 6 and 4"),
        (lambda: bnlib.EvoNormS0(0, 6), "num_groups must be an integer, at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_networks_put_no_other_activation_behind_a_norm_that_contains_one():
    for norm in ("filter_response_norm", "evonorm_s0"):
        for model in (models.mlp((4, 8, 3), norm), models.small_cnn(norm=norm, width=4)):
            assert not any(isinstance(layer, nn.ReLU) for layer in model)
    after = models.mlp((4, 8, 3), "evonorm_s0", placement="after")
    assert any(isinstance(layer, nn.ReLU) for layer in after)


def test_convert_leaves_them_alone():
    for name in LAYERS:
        model = nn.Sequential(LAYERS[name](), nn.BatchNorm1d(3))
        layer = model[0]
        assert bnlib.convert(model)[0] is layer and type(model[1]) is bnlib.FullNorm
