"""The gradient by layer against autograd, and the theory of its growth against closed forms."""

import math
import re
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bnlib
from bnlib import models
from bnlib.experiments.depth import gradient_growth
from bnlib.probes import gradient_norms_by_layer, growth_per_layer


def batch(samples=12, features=6):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(samples, features, generator=generator).double()
    return x, torch.randint(3, (samples,), generator=generator)


def loss_on(x, y):
    return lambda model: F.cross_entropy(model(x), y)


def test_the_norms_are_those_of_autograd():
    x, y = batch()
    model = models.mlp((6, 5, 4, 3), bnlib.BatchNorm).double()
    found = gradient_norms_by_layer(model, loss_on(x, y))
    first = model[1](x)
    rest = model[2:](first)
    loss = F.cross_entropy(rest, y)
    gradients = torch.autograd.grad(loss, [model[1].weight, model[4].weight, model[7].weight, first])
    assert [each.layer for each in found] == ["1", "4", "7"]
    for each, gradient in zip(found, gradients[:3], strict=True):
        torch.testing.assert_close(each.gradient_norm, gradient.norm())
        torch.testing.assert_close(each.weight_norm, model.get_submodule(each.layer).weight.detach().norm())
        torch.testing.assert_close(each.gradient_norm_on_sphere, each.weight_norm * gradient.norm())
    torch.testing.assert_close(found[0].output_gradient_norm, gradients[3].norm())


def test_nothing_is_changed():
    model = models.mlp((6, 5, 4, 3), bnlib.BatchNorm).double().train()
    model[1].weight.grad = torch.ones_like(model[1].weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    gradient_norms_by_layer(model, loss_on(*batch()))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator) and model.training
    assert (model[1].weight.grad == 1).all() and model[4].weight.grad is None
    assert not any(module._forward_hooks for module in model.modules())


def test_what_follows_may_write_into_an_output():
    x, y = batch()
    nets = [models.mlp((6, 5, 3), activation=partial(nn.ReLU, inplace=inplace)).double() for inplace in (False, True)]
    plain, inplace = (gradient_norms_by_layer(net, loss_on(x, y)) for net in nets)
    for one, other in zip(plain, inplace, strict=True):
        torch.testing.assert_close(one.output_gradient_norm, other.output_gradient_norm)
        torch.testing.assert_close(one.gradient_norm, other.gradient_norm)


def test_lstms_convolutions_and_shared_layers():
    lstm = models.lstm_stack(3, 4, "batch_norm", in_features=5, num_classes=3)
    x = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0))
    found = gradient_norms_by_layer(lstm, lambda model: model(x).square().mean())
    assert [each.layer for each in found] == ["lstms.0", "lstms.1", "lstms.2", "linear"]
    lstm(x).square().mean().backward()
    joined = torch.cat([lstm.lstms[1].weight_ih_l0.grad.flatten(), lstm.lstms[1].weight_hh_l0.grad.flatten()])
    torch.testing.assert_close(found[1].gradient_norm, joined.norm())
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    names = [
        each.layer for each in gradient_norms_by_layer(models.resnet18(width=4), lambda model: model(images).sum())
    ]
    assert len(names) == 21 and names[0] == "0"
    shared = nn.Linear(4, 4).double()
    twice = nn.Sequential(shared, nn.Tanh(), shared)
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()
    (found,) = gradient_norms_by_layer(twice, lambda model: model(x).square().sum())
    first = shared(x)
    second = shared(first.tanh())
    parts = torch.autograd.grad(second.square().sum(), [first, second])
    torch.testing.assert_close(found.output_gradient_norm, torch.cat(parts).norm())


def test_some_layers_alone_and_parametrised_ones():
    model = models.mlp((6, 5, 4, 3), "weight_norm").double()
    found = gradient_norms_by_layer(model, loss_on(*batch()), ["5", "1"])
    assert [each.layer for each in found] == ["1", "5"] and all(each.gradient_norm > 0 for each in found)
    model = models.mlp((6, 5, 3)).double()
    model[1].weight.requires_grad_(False)
    assert [each.layer for each in gradient_norms_by_layer(model, loss_on(*batch()))] == ["3"]


def test_a_small_gradient_is_not_lost_by_squaring_it():
    model, x = nn.Linear(2, 2, bias=False), torch.ones(1, 2)
    (found,) = gradient_norms_by_layer(model, lambda model: 1e-30 * model(x).sum())
    assert found.gradient_norm.item() == pytest.approx(2e-30, rel=1e-4)
    (found,) = gradient_norms_by_layer(model, lambda model: 0 * model(x).sum())
    assert found.gradient_norm == 0


@pytest.mark.parametrize(
    ("model", "loss", "layers", "message"),
    [
        (
            nn.BatchNorm1d(3),
            lambda model: model(torch.ones(2, 3)).sum(),
            None,
            "model must have a layer with trainable",
        ),
        (nn.Linear(2, 2), lambda model: model(torch.ones(1, 2)), None, "loss must return a single number"),
        (nn.Linear(2, 2), lambda model: model.weight.sum(), None, "loss must call one of the layers"),
        (
            nn.Sequential(nn.Linear(2, 2)),
            lambda model: None,
            ["1"],
            "layers must name submodules with trainable weights",
        ),
    ],
)
def test_bad_input(model, loss, layers, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        gradient_norms_by_layer(model, loss, layers)


def test_growth_is_the_slope_of_the_logarithm():
    assert growth_per_layer([8.0, 4.0, 2.0, 1.0]) == pytest.approx(2)
    assert growth_per_layer(torch.tensor([1.0, 3.0])) == pytest.approx(1 / 3)
    for bad in ([1.0], [1.0, 0.0], [1.0, math.inf], [1.0, -1.0]):
        with pytest.raises(ValueError, match="norms must be two positive numbers or more"):
            growth_per_layer(bad)


def test_the_growth_of_relu_has_its_known_values():
    # Of Yang et al.: the limit, and the values at 5 and 16 that their formula gives.
    assert gradient_growth.relu_growth(10**7) == pytest.approx(math.pi / (math.pi - 1), abs=1e-6)
    assert gradient_growth.relu_growth(5) == pytest.approx(2.2737, abs=1e-4)
    assert gradient_growth.growth(torch.relu) == pytest.approx(math.pi / (math.pi - 1), abs=1e-3)
    falling = [gradient_growth.relu_growth(samples) for samples in (4, 5, 8, 50, 1000)]
    assert falling == sorted(falling, reverse=True)
    assert gradient_growth.linear_growth(5) == 1.5
    for function in (gradient_growth.relu_growth, gradient_growth.linear_growth):
        with pytest.raises(ValueError, match="samples must be at least 4, got 3"):
            function(3)


def test_only_what_is_linear_does_not_grow():
    assert gradient_growth.growth(lambda z: 3 * z + 1) == pytest.approx(1, abs=1e-9)
    for activation in (torch.tanh, torch.relu, F.gelu, torch.sigmoid, F.silu):
        assert gradient_growth.growth(activation) > 1
    # ReLU does not see gamma, and with a large beta it is linear; tanh is linear with a small gamma.
    assert gradient_growth.growth(torch.relu, 0.1) == pytest.approx(gradient_growth.growth(torch.relu), rel=1e-6)
    assert gradient_growth.growth(torch.relu, 1.0, 3.0) < 1.002
    assert gradient_growth.growth(torch.tanh, 0.1) < 1.001
    # Of a Hermite polynomial of degree 2: E of (2z)^2 over the variance of z^2.
    assert gradient_growth.growth(torch.square) == pytest.approx(2, rel=1e-4)
    with pytest.raises(ValueError, match="must not be constant"):
        gradient_growth.growth(lambda z: 0 * z)


def test_measured_growth_is_near_theory_and_the_same_at_weights_and_outputs():
    found = gradient_growth.measure("batch norm", 16, 63, seed=0, device="cpu")
    theory = math.sqrt(gradient_growth.relu_growth(16))
    assert len(found["gradient_norms"]) == 100
    assert found["growth"] == pytest.approx([theory, theory], rel=0.04)
    assert 0.5 < found["cosine_distance"] < 0.9
    assert gradient_growth.measure("layer norm", 16, 63, seed=0, device="cpu")["cosine_distance"] < 0.01


def test_a_residual_stack_has_the_weights_of_the_stack_and_skip_connections():
    plain, residual = (build(5, 8, "batch_norm", seed=2) for build in (models.deep_stack, models.residual_stack))
    weights = [[each.weight for each in net.modules() if isinstance(each, nn.Linear)] for net in (plain, residual)]
    assert len(weights[0]) == 6 and all(map(torch.equal, *weights))
    x = torch.randn(10, 50, generator=torch.Generator().manual_seed(0))
    hidden = plain[1:4](x)
    branch = plain[4:7](hidden)
    torch.testing.assert_close(residual[:5](x), hidden + branch)
    assert residual(x).shape == (10, 50)
    for size in (1, 2):
        assert models.residual_stack(size, 8)(x).shape == (10, 50)
    with pytest.raises(ValueError, match="depth must be an integer, at least 1"):
        models.residual_stack(0)
