"""What the registry says of each normalisation is measured, for all of them."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from bnlib.norm.registry import NORMS

LAYERS = {
    "mlp": (lambda: nn.Linear(6, 8), (4, 6)),
    "1d": (lambda: nn.Conv1d(6, 8, 3), (4, 6, 7)),
    "2d": (lambda: nn.Conv2d(6, 8, 3), (4, 6, 5, 5)),
    "3d": (lambda: nn.Conv3d(6, 8, 2), (4, 6, 3, 3, 3)),
}
CASES = [
    pytest.param(norm, *case, id=f"{norm.name}-{kind}")
    for norm in NORMS.values()
    for kind, case in LAYERS.items()
    if isinstance(case[0](), norm.layer_types)
]
ALL = pytest.mark.parametrize(("norm", "make", "shape"), CASES)
SOME = pytest.mark.parametrize(("norm", "make", "shape"), [each for each in CASES if each.id.endswith(("mlp", "2d"))])


def trained(norm, make, shape, steps=5):
    """A model after some steps of training, and a batch."""
    torch.manual_seed(0)
    model = norm.apply(make())
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimiser.zero_grad()
        (model(torch.randn(shape) + 1) - 1).square().mean().backward()
        optimiser.step()
    return model, torch.randn(shape) + 1


@ALL
def test_it_keeps_the_shape_and_every_parameter_gets_a_gradient(norm, make, shape):
    torch.manual_seed(0)
    layer = make()
    x = torch.randn(shape)
    expected = layer(x).shape
    model = norm.apply(layer)
    y = model(x)
    assert y.shape == expected
    y.square().mul(torch.randn_like(y)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@ALL
def test_batch_independence_is_as_declared(norm, make, shape):
    model, x = trained(norm, make, shape)
    twin, other = copy.deepcopy(model), x.clone()
    other[:-1] = 3 * torch.randn_like(x[:-1])  # Online Norm takes the samples one after another
    same = torch.allclose(model(x)[-1], twin(other)[-1], rtol=1e-4, atol=1e-5)
    assert same == norm.batch_independent


@ALL
def test_eval_mode_is_as_declared(norm, make, shape):
    model, x = trained(norm, make, shape)
    same = torch.allclose(model.train()(x), model.eval()(x), rtol=1e-4, atol=1e-5)
    assert same == norm.eval_matches_train


@ALL
def test_at_batch_size_1_it_works_and_learns_or_not_as_declared(norm, make, shape):
    model, x = trained(norm, make, shape)
    weights = [name for name, _ in make().named_parameters() if name == "weight"]
    first = model[0] if isinstance(model, nn.Sequential) else model
    model.zero_grad()
    y = model(x[:1])
    (y * torch.randn_like(y)).sum().backward()
    assert weights and y.isfinite().all()
    gradient = max(parameter.grad.abs().max() for name, parameter in first.named_parameters() if name != "bias")
    assert (gradient > 0) == (norm.trains_on_one_sample or len(shape) > 2)


@ALL
def test_a_state_dict_restores_it(norm, make, shape):
    model, x = trained(norm, make, shape)
    twin = norm.apply(make())
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(twin.eval()(x), model.eval()(x), rtol=0, atol=0)


@ALL
def test_the_weights_to_start_from_and_the_random_numbers_after_do_not_depend_on_it(norm, make, shape):
    torch.manual_seed(0)
    layer = make()
    start = layer.weight.detach().clone()
    after = torch.get_rng_state()
    model = norm.apply(layer)
    assert torch.equal(torch.get_rng_state(), after)
    tensors = [*model.parameters()]
    assert any(torch.equal(tensor, start) for tensor in tensors)


@pytest.mark.parametrize(
    ("name", "layer", "message"),
    [
        ("instance_norm", nn.Linear(2, 3), "Conv1d, Conv2d, Conv3d for instance_norm, got Linear"),
        ("cosine", nn.Conv1d(2, 3, 1), "Linear for cosine, got Conv1d"),
        (
            "batch_norm",
            nn.ConvTranspose1d(2, 3, 1),
            "Linear, Conv1d, Conv2d, Conv3d for batch_norm, got ConvTranspose1d",
        ),
    ],
)
def test_a_layer_that_it_is_not_for_is_named(name, layer, message):
    with pytest.raises(TypeError, match=f"layer must be one of {message}"):
        NORMS[name].apply(layer)


def test_every_norm_is_found_by_its_name_and_has_a_title():
    assert all(name == norm.name and norm.title for name, norm in NORMS.items())
    assert len({norm.title for norm in NORMS.values()}) == len(NORMS)


def test_weight_standardisation_is_of_the_weights_and_group_norm_follows():
    standardised, group_norm = NORMS["weight_standardisation"].apply(nn.Linear(600, 8))
    torch.testing.assert_close(standardised.weight.mean(1), torch.zeros(8), rtol=0, atol=1e-5)
    torch.testing.assert_close(standardised.weight.var(1), torch.ones(8), rtol=0.05, atol=0)
    assert isinstance(group_norm, nn.GroupNorm)


def test_weight_norm_learns_length_and_direction_of_each_row():
    weights = NORMS["weight_norm"].apply(nn.Linear(6, 8)).parametrizations.weight
    assert [tuple(parameter.shape) for parameter in weights.parameters()] == [(8, 1), (8, 6)]


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 5, 3)])
def test_layer_norm_is_torchs_over_all_but_the_first_dimension(shape):
    x = torch.randn(shape)
    torch.testing.assert_close(NORMS["layer_norm"].make_layer(6)(x), nn.functional.layer_norm(x, shape[1:]))


@pytest.mark.parametrize(
    ("features", "groups"), [(1, 1), (3, 1), (6, 1), (7, 1), (8, 2), (100, 25), (64, 16), (512, 32)]
)
def test_group_norm_has_at_least_four_channels_a_group_if_it_can(features, groups):
    assert NORMS["group_norm"].make_layer(features).num_groups == groups


@SOME
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_what_it_adds_has_the_precision_and_the_mode_of_the_layer(norm, make, shape, dtype):
    model = norm.apply(make().to(dtype).eval())
    assert not any(module.training for module in model.modules())
    added = model[1] if isinstance(model, nn.Sequential) else nn.Identity()
    statistics = any(value.is_floating_point() for value in added.buffers())
    expected = torch.promote_types(dtype, torch.float32) if statistics else dtype
    assert {value.dtype for value in added.state_dict().values() if value.is_floating_point()} <= {expected}
    x = torch.randn(shape, dtype=dtype)
    assert model.train()(x).dtype is dtype and model.eval()(x).dtype is dtype


@SOME
def test_on_the_meta_device_it_stays_there(norm, make, shape):
    model = norm.apply(make().to("meta"))
    assert all(value.is_meta for value in (*model.parameters(), *model.buffers()))
    assert model(torch.empty(shape, device="meta")).shape[:2] == (shape[0], 8)


class Tripled(nn.Linear):
    def forward(self, x):
        return 3 * super().forward(x)


def hooked(layer):
    layer.register_forward_hook(lambda module, inputs, output: 2 * output)
    return layer


def pruned(layer):
    return prune.random_unstructured(layer, "weight", 0.5)


OF_THE_WEIGHTS = ("cosine", "weight_norm", "weight_standardisation", "moving_average_batch_norm")
TWICE = ("cosine", "weight_norm")


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        *[(name, lambda: nn.LazyLinear(8), "have weights, got LazyLinear.*lazy; call it") for name in OF_THE_WEIGHTS],
        *[(name, lambda: pruned(nn.Linear(6, 8)), "have its weight as a parameter") for name in OF_THE_WEIGHTS],
        *[
            (
                name,
                lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(6, 8)),
                "have weights that are not parametrised, got P",
            )
            for name in TWICE
        ],
        ("cosine", lambda: Tripled(6, 8), "be a plain Linear for cosine.*with a forward of its own"),
        ("cosine", lambda: hooked(nn.Linear(6, 8)), r"be a plain Linear for cosine.*with hooks \(_forward_hooks\)"),
    ],
)
def test_weights_that_cannot_be_normalised_are_named(name, make, message):
    with pytest.raises(TypeError, match=f"layer must {message}"):
        NORMS[name].apply(make())
