"""convert: FullNorm bounds the variance by eps, the other layers add eps, and the outputs stay the same."""

import copy

import pytest
import torch
from torch import nn

from bnlib.norm.batch_renorm import BatchRenorm
from bnlib.norm.convert import convert
from bnlib.norm.domain import DomainBatchNorm
from bnlib.norm.full_norm import FullNorm

VARIANCES = torch.tensor([1.0, 1e-2, 1e-3, 1e-4, 0.0])  # with eps=1e-3, as in networks from TensorFlow
X = torch.linspace(-1, 1, 40).view(8, 5)


def network(kind=nn.BatchNorm1d, **options):
    model = nn.Sequential(kind(5, eps=1e-3, **options), nn.ReLU(), kind(5, eps=1e-3, **options)).eval()
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.running_mean.copy_(torch.linspace(-0.1, 0.1, 5))
            layer.running_var.copy_(VARIANCES)
            if layer.weight is not None:
                layer.weight.copy_(torch.linspace(-1, 2, 5))
    return model


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"affine": False}], ids=str)
@pytest.mark.parametrize("kind", [nn.BatchNorm1d, BatchRenorm])
def test_outputs_stay_and_the_way_back_restores_the_bits(kind, options):
    model = network(kind, **options)
    before, state, parameters = model(X), copy.deepcopy(model.state_dict()), list(model.parameters())
    convert(model)
    assert type(model[0]) is FullNorm
    torch.testing.assert_close(model(X), before)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    convert(model, to=kind)
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert torch.equal(model(X), before)


def test_the_weight_takes_the_factor_so_that_training_on_does_not_move_it():
    model = network()
    weight = model[0].weight.detach().clone()
    convert(model)
    assert torch.equal(model[0].running_var, VARIANCES)
    factor = (VARIANCES.clamp(min=1e-3) / (VARIANCES + 1e-3)).sqrt()
    torch.testing.assert_close(model[0].weight.detach(), weight * factor)
    assert factor.min() < 0.71


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, BatchRenorm])
def test_a_full_norm_that_becomes_another_layer_computes_the_same(kind):
    model = network(FullNorm)
    before, state = model(X), copy.deepcopy(model.state_dict())
    convert(model, to=kind)
    torch.testing.assert_close(model(X), before)
    convert(model, to="original")
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)


def test_after_training_in_between_the_way_back_keeps_what_was_learned():
    model = network()
    convert(model)
    optimiser = torch.optim.SGD(model.train().parameters(), lr=0.1)
    model(X + 1).square().sum().backward()
    optimiser.step()
    before = model.eval()(X)
    assert not torch.allclose(before, network()(X))
    convert(model, to="original")
    assert type(model[0]) is nn.BatchNorm1d
    torch.testing.assert_close(model(X), before)


def test_a_changed_eps_on_the_way_back_keeps_the_outputs_too():
    model = network()
    before = model(X)
    convert(model)
    convert(model, to=nn.BatchNorm1d, eps=1e-2)
    assert model[0].eps == 1e-2
    torch.testing.assert_close(model(X), before)


def test_a_weight_that_another_layer_has_too_stays_as_it_is():
    model = nn.Sequential(DomainBatchNorm(5, 2, shared_affine=True, eps=1e-3)).eval()
    model[0].domain = 0
    model[0].domains[0].running_var.copy_(VARIANCES)
    before, weight = model(X), model[0].domains[0].weight.detach().clone()
    convert(model)
    assert type(model[0].domains[1]) is FullNorm and torch.equal(model[0].domains[1].weight, weight)
    torch.testing.assert_close(model(X), before)


def test_a_single_layer_is_not_changed_and_the_new_one_computes_the_same():
    layer = network()[0]
    before, state = layer(X), copy.deepcopy(layer.state_dict())
    torch.testing.assert_close(convert(layer)(X), before)
    torch.testing.assert_close(layer.state_dict(), state, rtol=0, atol=0)


def test_statistics_of_no_use_do_not_spoil_the_weight():
    model = network()
    model[0].running_var[:2] = torch.tensor([float("nan"), float("inf")])
    convert(model)
    assert model[0].weight.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_a_model_that_is_moved_to_another_type_in_between_comes_back_in_it(dtype):
    for options in ({}, {"affine": False}):
        model = convert(network(**options)).to(dtype)
        convert(model, to="original")
        kept = torch.promote_types(dtype, torch.float32) if options else dtype
        assert model[0].running_var.dtype == kept and model(X.to(kept)).dtype == kept
