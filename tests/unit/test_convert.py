"""convert: what it keeps and what it shares."""

import copy

import pytest
import torch
from torch import nn

from bnlib import models
from bnlib.norm.batch_norm import BatchNorm
from bnlib.norm.batch_renorm import BatchRenorm
from bnlib.norm.convert import LAYERS, convert
from bnlib.norm.domain import DomainBatchNorm
from bnlib.norm.full_norm import FullNorm

TORCHS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
ADDS_EPS = (BatchNorm, BatchRenorm, nn.SyncBatchNorm)


class Towers(nn.Module):
    """Two towers that share a layer, which a container holds under two more names."""

    def __init__(self, norm):
        super().__init__()
        self.left, self.right, self.norm = nn.Linear(4, 3), nn.Linear(4, 3), norm(3)
        self.last = nn.ModuleDict({"a": nn.ModuleList([self.norm, norm(3)]), "b": nn.Sequential(self.norm, self.norm)})

    def forward(self, x):
        shared = self.norm(self.left(x)) + self.norm(self.right(x))
        return self.last["b"](self.last["a"][1](shared))


def trained(model, dtype=None):
    """Give the model numbers that are not the initial ones, put half of its layers to eval mode, freeze some."""
    if dtype is not None:
        model.to(dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) + (0.5 if "running_var" in name else -0.5))
            else:
                value.fill_(len(name))
    for number, layer in enumerate(norms(model)):
        layer.train(number % 2 == 0)
        for value in layer.parameters():
            value.requires_grad_(number % 3 == 0)
    return model


def norms(model):
    return [layer for layer in model.modules() if isinstance(layer, LAYERS)]


def assert_same(a, b):
    """Of two state_dicts: names, order, types and bits."""
    assert list(a) == list(b)
    torch.testing.assert_close(dict(a), dict(b), rtol=0, atol=0)


NETWORKS = {
    "mlp": (lambda norm: models.mlp((4, 5, 3, 2), norm), nn.BatchNorm1d, (6, 4)),
    "resnet18": (lambda norm: models.resnet18(norm=norm, width=8), nn.BatchNorm2d, (2, 3, 8, 8)),
    "towers": (Towers, nn.BatchNorm1d, (6, 4)),
}
ON_EACH = pytest.mark.parametrize(("build", "native", "shape"), NETWORKS.values(), ids=NETWORKS)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)


@ON_EACH
@DTYPES
@pytest.mark.parametrize("there", [BatchNorm, BatchRenorm, FullNorm, nn.SyncBatchNorm])
def test_there_and_back_is_exact(build, native, shape, dtype, there):
    model = trained(build(native), dtype)
    before, x = copy.deepcopy(model), torch.randn(shape).to(dtype)
    parameters = list(model.parameters())

    assert convert(model, to=there, eps=1e-3) is model
    assert {type(layer) for layer in norms(model)} == {there}
    assert {layer.eps for layer in norms(model)} == {1e-3}
    assert convert(model, to=native, eps=1e-5) is model
    assert {type(layer) for layer in norms(model)} == {native}

    assert str(model) == str(before)
    assert_same(model.state_dict(), before.state_dict())
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert [each.requires_grad for each in parameters] == [each.requires_grad for each in before.parameters()]
    assert [each.training for each in model.modules()] == [each.training for each in before.modules()]
    assert torch.equal(model.eval()(x), before.eval()(x))


@ON_EACH
@DTYPES
@pytest.mark.parametrize("to", ADDS_EPS)
def test_eval_mode_gives_the_same_output_at_once(build, native, shape, dtype, to):
    model, x = trained(build(native), dtype).eval(), torch.randn(shape).to(dtype)
    before = model(x)
    torch.testing.assert_close(convert(model, to=to)(x), before, rtol=0, atol=0)


@pytest.mark.parametrize("to", LAYERS)
@pytest.mark.parametrize("kind", LAYERS)
def test_every_layer_becomes_every_other_and_keeps_its_numbers(kind, to):
    layer = trained(nn.Sequential(kind(3, eps=1e-3)))[0].eval()
    if kind is FullNorm:
        layer.running_mean_rest.zero_()  # it is a rounding error, which is lost
    before = copy.deepcopy(layer)
    new = convert(layer, to=to)
    fixed = {kind, to} <= set(TORCHS[:3])  # these keep their number of dimensions
    assert type(new) is (kind if fixed else to) and new is not layer and new.eps == 1e-3
    # A single layer stays as it is, so the running variance has to make up for what FullNorm does with eps.
    numbers = {"weight", "bias", "running_mean", "num_batches_tracked"}
    for name in numbers if (kind is FullNorm) != (to is FullNorm) else numbers | {"running_var"}:
        old = getattr(before, name)
        assert torch.equal(getattr(new, name).to(old.dtype), old)
    x = torch.randn(2, 3, *{nn.BatchNorm2d: (2, 2), nn.BatchNorm3d: (2, 2, 2)}.get(kind, ()))
    if fixed or to not in TORCHS[:3]:
        torch.testing.assert_close(new(x), layer(x))
    assert new.weight is layer.weight and new.bias is layer.bias
    if to is not FullNorm:
        assert {value.dtype for value in new.state_dict().values()} == {torch.float32, torch.int64}
    assert_same(layer.state_dict(), before.state_dict())  # the old one is as it was


def test_one_step_of_training_is_that_of_the_new_class():
    x = torch.randn(8, 4)
    model, twin = (models.mlp((4, 5, 2), norm) for norm in (nn.BatchNorm1d, BatchNorm))
    convert(model, to=BatchNorm)
    for each in (model, twin):
        each(x).square().sum().backward()
    torch.testing.assert_close(model.state_dict(), twin.state_dict(), rtol=0, atol=0)
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("to", [BatchNorm, BatchRenorm, FullNorm])
def test_an_optimiser_made_before_goes_on(to):
    model = models.mlp((4, 5, 2), nn.BatchNorm1d)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        optimiser.zero_grad()
        model(torch.randn(8, 4)).square().sum().backward()
        optimiser.step()
        layer = convert(model, to=to)[2]
        held = {id(value) for value in optimiser.param_groups[0]["params"]}
        assert {id(layer.weight), id(layer.bias)} <= held
        assert layer.weight.grad is not None
    assert layer.num_batches_tracked == 3
    assert optimiser.state[layer.bias]["momentum_buffer"] is not None


@pytest.mark.parametrize("to", [BatchNorm, FullNorm])
def test_a_shared_layer_is_converted_once_and_stays_shared(to):
    model = convert(Towers(nn.BatchNorm1d), to=to)
    assert model.norm is model.last["a"][0] is model.last["b"][0] is model.last["b"][1]
    assert type(model.norm) is type(model.last["a"][1]) is to
    assert len(norms(model)) == 2


def test_layers_inside_a_domain_layer_are_converted_and_share_their_parameters_still():
    model = nn.Sequential(nn.Linear(4, 3), DomainBatchNorm(3, num_domains=2, shared_affine=True))
    convert(model)
    first, second = model[1].domains
    assert type(first) is type(second) is FullNorm
    assert first.weight is second.weight and first.running_mean is not second.running_mean


@pytest.mark.parametrize("to", [BatchNorm, FullNorm, BatchRenorm, nn.BatchNorm1d])
@pytest.mark.parametrize("options", [{"affine": False}, {"bias": False}])
def test_missing_parameters_stay_missing(to, options):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, **options)).double()
    names = list(model.state_dict())
    convert(model, to=to)
    assert (model[1].weight is None) == ("affine" in options) and model[1].bias is None
    assert model[1].affine == ("affine" not in options)
    assert_same(convert(model, to=nn.BatchNorm1d).state_dict(), model.state_dict())
    assert list(model.state_dict()) == names and model[1].running_var.dtype == torch.float64


def test_without_any_parameters_the_type_is_torchs_default():
    layer = convert(convert(nn.BatchNorm1d(3, affine=False), to=FullNorm), to=nn.BatchNorm1d)
    assert layer.running_var.dtype == torch.float32


@pytest.mark.parametrize("to", [BatchNorm, nn.SyncBatchNorm])
@pytest.mark.parametrize("missing", [(), ("num_batches_tracked",), ("running_mean", "running_var")])
def test_statistics_that_are_not_kept_stay_away_among_torchs_kind(to, missing):
    layer = nn.BatchNorm1d(3, momentum=None, track_running_stats=bool(missing)).eval()
    for name in missing:
        setattr(layer, name, None)
    new = convert(layer, to=to)
    assert new._buffers.keys() == layer._buffers.keys()
    assert all(value is getattr(layer, name) for name, value in new._buffers.items())
    assert new.track_running_stats == layer.track_running_stats and new.momentum is None
    x = torch.randn(5, 3)
    assert torch.equal(new(x), layer(x))


def test_statistics_switched_off_but_kept_stay_so():
    layer = trained(nn.Sequential(nn.BatchNorm1d(3)))[0]
    layer.track_running_stats = False
    new, before = convert(layer, to=BatchNorm), layer.running_mean.clone()
    new(torch.randn(5, 3))
    assert torch.equal(new.running_mean, before)


@pytest.mark.parametrize("to", [BatchNorm, BatchRenorm, nn.SyncBatchNorm])
def test_statistics_of_another_type_and_shared_statistics_stay_so(to):
    model = nn.Sequential(nn.BatchNorm1d(3, dtype=torch.bfloat16), nn.BatchNorm1d(3))
    for layer in model:
        layer.running_mean, layer.running_var = torch.full((3,), 1 / 3), torch.full((3,), 4 / 3)
    model[1].running_mean = model[0].running_mean
    before = copy.deepcopy(model.state_dict())
    convert(model, to=to)
    assert_same(model.state_dict(), before)
    assert model[0].running_mean is model[1].running_mean


def test_device_stays():
    model = models.mlp((4, 5, 2), nn.BatchNorm1d).to("meta")
    for to in (BatchNorm, FullNorm, nn.BatchNorm1d):
        convert(model, to=to)
        assert {value.device.type for value in model.state_dict().values()} == {"meta"}


def test_arguments_that_both_classes_have_are_taken_over_and_options_go_first():
    layer = convert(BatchNorm(3, eps=0.5, momentum=0.25), to=BatchRenorm)
    assert (layer.eps, layer.momentum, layer.r_max) == (0.5, 0.25, BatchRenorm(3).r_max)
    layer = convert(layer, to=BatchRenorm, momentum=0.75, r_max=4.0)
    assert (layer.eps, layer.momentum, layer.r_max) == (0.5, 0.75, 4.0)
    assert convert(nn.BatchNorm1d(3), to=nn.SyncBatchNorm, process_group="ours").process_group == "ours"


def test_full_norm_to_full_norm_changes_options_and_keeps_all_it_has_seen():
    layer = trained(nn.Sequential(FullNorm(3, oracle="batch")))[0]
    new = convert(layer, to=FullNorm, alpha=0.125)
    assert (new.alpha, new.oracle) == (0.125, "batch")
    assert_same(new.state_dict(), layer.state_dict())


def test_plain_attributes_are_carried_along():
    layer = nn.BatchNorm1d(3)
    layer.tag, layer.alpha = "mine", "also mine"
    new = convert(layer, to=FullNorm)
    assert new.tag == "mine" and new.alpha == FullNorm(3).alpha


def test_a_model_without_normalisation_is_returned_as_it_was():
    model = models.mlp((3, 4, 2))
    before = str(model)
    assert str(convert(model, to=BatchNorm)) == before
