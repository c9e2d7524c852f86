"""DomainBatchNorm: each domain its own batch norm, and how a network learns which."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import bnlib
from bnlib.norm.domain import DomainBatchNorm, use_domain


@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 5, 2), (1, 4)])
@pytest.mark.parametrize("options", [{}, {"momentum": None, "bias": False}, {"affine": False}])
def test_each_domain_has_the_batch_norm_that_saw_its_batches_alone(shape, options):
    layer = DomainBatchNorm(4, 2, **options)
    alone = [bnlib.BatchNorm(4, **options) for _ in range(2)]
    for step in range(6):
        layer.domain = domain = step % 2
        x = torch.randn(shape) * (1 + domain) + 5 * domain
        torch.testing.assert_close(layer(x), alone[domain](x), rtol=0, atol=0)
    layer.eval()
    for domain, twin in enumerate(alone):
        x = torch.randn(shape)
        with use_domain(layer, domain):
            torch.testing.assert_close(layer(x), twin.eval()(x), rtol=0, atol=0)


def test_a_batch_touches_no_other_domain():
    layer = DomainBatchNorm(3, 3)
    before = copy.deepcopy(layer.domains)
    layer.domain = 1
    layer(torch.randn(4, 3)).sum().backward()
    for domain in (0, 2):
        torch.testing.assert_close(layer.domains[domain].state_dict(), before[domain].state_dict(), rtol=0, atol=0)
        assert layer.domains[domain].weight.grad is None
    assert layer.domains[1].num_batches_tracked == 1 and layer.domains[1].weight.grad is not None


def test_a_shared_gamma_and_beta_learn_from_all_domains_while_the_statistics_do_not():
    layer = DomainBatchNorm(3, 2, shared_affine=True)
    assert [name for name, _ in layer.named_parameters()] == ["domains.0.weight", "domains.0.bias"]
    for domain in range(2):
        with use_domain(layer, domain):
            layer(torch.randn(4, 3) + 100 * domain).sum().backward()
    torch.testing.assert_close(layer.domains[0].bias.grad, torch.full((3,), 8.0))
    assert layer.domains[0].running_mean.max() < 1 < layer.domains[1].running_mean.min()


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"affine": False}])
def test_gamma_and_beta_stay_shared_in_copies_and_conversions(options):
    layer = DomainBatchNorm(3, 2, shared_affine=True, **options)
    twins = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer).double()]
    for twin in twins:
        assert twin.domains[0].weight is twin.domains[1].weight and twin.domains[0].bias is twin.domains[1].bias
        twin.load_state_dict(layer.state_dict())


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"affine": False}])
def test_gamma_and_beta_stay_shared_where_torch_makes_new_parameters(options):
    def shared(layer):
        first, second = layer.domains
        return first.weight is second.weight and first.bias is second.bias

    network = nn.Sequential(DomainBatchNorm(3, 2, shared_affine=True, device="meta", **options)).to_empty(device="cpu")
    assert shared(network[0]) and (options or len(list(network.parameters())) == 2)
    for twin in (network, copy.deepcopy(network)):
        twin.load_state_dict(copy.deepcopy(twin.state_dict()), assign=True)
        assert shared(twin[0])


def test_a_checkpoint_whose_gammas_differ_does_not_load_where_they_are_shared():
    state = DomainBatchNorm(3, 2).state_dict()
    state["domains.1.weight"] += 1
    with pytest.raises(RuntimeError, match=r"domains\.0\.weight must equal that of every other domain"):
        DomainBatchNorm(3, 2, shared_affine=True).load_state_dict(state)


@pytest.mark.parametrize("assign", [False, True])
def test_a_gamma_that_a_checkpoint_has_for_a_later_domain_only_becomes_that_of_all(assign):
    layer = DomainBatchNorm(3, num_domains=2, shared_affine=True)
    found = layer.load_state_dict({"domains.1.weight": torch.full((3,), 7.0)}, strict=False, assign=assign)
    assert layer.domains[0].weight is layer.domains[1].weight and (layer.domains[0].weight == 7).all()
    assert found.missing_keys.count("domains.0.weight") == 1


def test_a_network_is_told_the_domain_for_a_with_block():
    model = nn.Sequential(nn.Linear(3, 4), DomainBatchNorm(4, 2), nn.Sequential(DomainBatchNorm(4, 3)))
    first, second = model[1], model[2][0]
    first.domain = 0
    with use_domain(model, 1):
        model(torch.randn(5, 3))
        with use_domain(model, 0):
            assert first.domain == second.domain == 0
        assert first.domain == second.domain == 1
    assert first.domain == 0 and second.domain is None
    with use_domain(model, np.int64(1)):
        assert type(first.domain) is int and first.domain == 1
    assert first.domains[1].num_batches_tracked == second.domains[1].num_batches_tracked == 1


def test_the_domain_is_restored_after_an_error():
    layer = DomainBatchNorm(4, 2)
    with pytest.raises(ZeroDivisionError), use_domain(layer, 1):
        raise ZeroDivisionError
    assert layer.domain is None


def test_a_domain_that_only_some_layers_have_is_refused_and_changes_none():
    model = nn.Sequential(DomainBatchNorm(4, 3), DomainBatchNorm(4, 2))
    with pytest.raises(ValueError, match="domain must be an integer from 0 to 1, got 2"), use_domain(model, 2):
        pass
    assert model[0].domain is None


@pytest.mark.parametrize("domain", [-1, 2, "photo", 0.5, 1.0, True])
def test_a_domain_that_does_not_exist_is_named(domain):
    layer = DomainBatchNorm(4, 2)
    with pytest.raises(ValueError, match=f"domain must be an integer from 0 to 1, got {domain!r}"):
        layer.domain = domain


@pytest.mark.parametrize("training", [True, False])
def test_without_a_domain_there_is_an_error_and_no_default(training):
    with pytest.raises(RuntimeError, match="domain must be chosen before the layer is called"):
        DomainBatchNorm(4, 2).train(training)(torch.zeros(3, 4))


def test_a_model_without_a_layer_of_domains_is_named():
    with (
        pytest.raises(ValueError, match="model must contain a DomainBatchNorm, got a Linear without one"),
        use_domain(nn.Linear(2, 2), 0),
    ):
        pass


def test_there_must_be_a_domain():
    with pytest.raises(ValueError, match="num_domains must be an integer, at least 1, got 0"):
        DomainBatchNorm(4, 0)


def test_a_state_dict_restores_every_domain_and_leaves_the_choice_alone():
    layer, twin = DomainBatchNorm(3, 2), DomainBatchNorm(3, 2)
    layer.domain, twin.domain = 1, 0
    layer(torch.randn(5, 3))
    twin.load_state_dict(layer.state_dict())
    assert twin.domain == 0
    torch.testing.assert_close(twin.state_dict(), layer.state_dict(), rtol=0, atol=0)


def test_many_layers_at_once_under_vmap_equal_each_on_its_own():
    layers = [DomainBatchNorm(2, 2, shared_affine=True) for _ in range(3)]
    parameters, buffers = torch.func.stack_module_state(layers)
    x = torch.randn(3, 5, 2)
    for layer in layers:
        layer.domain = 1
    together = torch.func.vmap(lambda p, b, x: torch.func.functional_call(layers[0], (p, b), (x,)))
    y = together(parameters, buffers, x)
    torch.testing.assert_close(y, torch.stack([layer(rows) for layer, rows in zip(layers, x, strict=True)]))
    means = torch.stack([layer.domains[1].running_mean for layer in layers])
    torch.testing.assert_close(buffers["domains.1.running_mean"], means)


def test_a_compiled_network_follows_a_change_of_domain():
    layer = DomainBatchNorm(2, 2).eval()
    layer.domains[1].running_mean.fill_(7.0)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for domain in (0, 1, 0):
        layer.domain = domain
        torch.testing.assert_close(compiled(torch.ones(3, 2)), layer(torch.ones(3, 2)))


def test_device_and_dtype_reach_every_domain():
    layer = DomainBatchNorm(3, 2, device="meta", dtype=torch.float64)
    assert {value.device.type for value in layer.state_dict().values()} == {"meta"}
    assert all(each.weight.dtype == each.running_var.dtype == torch.float64 for each in layer.domains)


@pytest.mark.parametrize("domain", [0, 1])
def test_a_parameter_of_one_domain_alone_is_not_replaced_unnoticed(domain):
    layer, x = bnlib.DomainBatchNorm(3, 2, shared_affine=True), torch.randn(5, 3)
    layer.domains[domain].load_state_dict({**layer.domains[0].state_dict(), "bias": torch.ones(3)})  # in place: for all
    assert torch.equal(layer.domains[1 - domain].bias, torch.ones(3))
    layer.domains[domain].load_state_dict(bnlib.BatchNorm(3).state_dict(), assign=True)
    layer.domain = 1
    with pytest.raises(RuntimeError, match=r"domains\[1\] must have the weight and bias of domains\[0\]"):
        layer(x)
    layer.load_state_dict(bnlib.DomainBatchNorm(3, 2, shared_affine=True).state_dict(), assign=True)
    layer(x).sum().backward()
    assert layer.domains[0].bias.grad is layer.domains[1].bias.grad is not None
