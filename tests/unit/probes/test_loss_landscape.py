"""Probes of the loss landscape: quadratics and linear networks, where everything has a formula."""

import copy
import math
from functools import partial

import pytest
import torch
from landscape_examples import NETWORKS, Quadratic, batch, close, loss_of, loss_on, quadratic
from torch import nn
from torch.nn import functional as F

import bnlib
from bnlib import models
from bnlib.models.building import seeded
from bnlib.probes import (
    filter_normalised_direction,
    landscape_along_gradient,
    loss_surface,
    scale_invariance,
    sharpness,
    step_sizes,
)


def everything(model):
    """All that a training goes on from."""
    return [
        {name: value.clone() for name, value in model.state_dict().items()},
        [None if value.grad is None else value.grad.clone() for value in model.parameters()],
        [value.requires_grad for value in model.parameters()],
        [layer.training for layer in model.modules()],
        torch.get_rng_state(),
    ]


def surface(model, loss, **options):
    directions = [filter_normalised_direction(model, seed) for seed in (0, 1)]
    return loss_surface(model, loss, directions, [[-1, 0, 1], [0, 0.5]])


PROBES = {
    "landscape_along_gradient": lambda model, loss: landscape_along_gradient(model, loss, [0.1, 1.0]),
    "loss_surface": surface,
    "sharpness": partial(sharpness, finite_difference=1e-2, max_iterations=3),
    "exact sharpness": partial(sharpness, max_iterations=3),
    "scale_invariance": scale_invariance,
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("mode", [True, False])
def test_training_is_the_same_to_the_bit_with_a_probe(name, probe, mode):
    if mode and probe == "exact sharpness" and name in ("FullNorm", "all"):
        pytest.skip("raises, see below")

    def trace(probed):
        model, found = NETWORKS[name]().train(mode), []
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        with seeded(1):
            for seed in range(3):
                loss = loss_on(*batch(seed=seed))
                if probed:
                    PROBES[probe](model, loss)
                found.append(everything(model))
                optimiser.zero_grad()
                loss(model).backward()
                optimiser.step()
                found.append(everything(model))
        return found

    close(trace(True), trace(False), rtol=0, atol=0)


@pytest.mark.parametrize("probe", PROBES)
def test_a_failing_loss_leaves_no_trace(probe):
    model, (x, y) = NETWORKS["FullNorm"](), batch()
    before, calls = everything(model), []

    def loss(model):
        calls.append(1)
        return F.cross_entropy(model(x), y) / (1 // (len(calls) % 2))

    with pytest.raises((ZeroDivisionError, RuntimeError)):
        PROBES[probe](model, loss)
    close(everything(model), before, rtol=0, atol=0)


@pytest.mark.parametrize("probe", PROBES)
def test_a_layer_with_two_names_stays_as_it_is(probe):
    layer, norm = nn.Linear(3, 3), bnlib.BatchNorm(3)
    model, x = nn.Sequential(layer, norm, nn.Tanh(), layer, norm), torch.randn(8, 3)
    before, tensors = everything(model), list(map(id, (*model.parameters(), *model.buffers())))
    PROBES[probe](model, lambda model: model(x).sin().sum())
    close(everything(model), before, rtol=0, atol=0)
    assert list(map(id, (*model.parameters(), *model.buffers()))) == tensors


@pytest.mark.parametrize("probe", PROBES)
def test_a_loss_must_be_a_single_number(probe):
    model, (x, _) = NETWORKS["plain"](), batch()
    with pytest.raises(ValueError, match=r"loss must return a single number, got shape \(8, 3\)"):
        PROBES[probe](model, lambda model: model(x))


def test_the_published_step_sizes():
    assert step_sizes(0.1, count=4).tolist() == pytest.approx([0.05, 0.1, 0.2, 0.4])
    deep_linear = step_sizes(1e-6, 1 / 100, 30, 3, geometric=False)
    assert deep_linear.tolist() == pytest.approx([1e-8, (1e-8 + 3e-5) / 2, 3e-5])


def test_along_the_gradient_of_a_quadratic():
    model, w = quadratic()
    a, lengths = model.matrix, torch.tensor([0.1, 0.3, 2.0]).double()
    found, g = landscape_along_gradient(model, loss_of, lengths), a @ w
    close(found.loss, w @ a @ w / 2)
    close(found.losses, torch.stack([(w - t * g) @ a @ (w - t * g) / 2 for t in lengths]))
    close(found.gradient_norm, g.norm())
    close(found.gradient_change, lengths * (a @ g).norm())
    close(found.smoothness, (a @ g).norm() / g.norm())
    close(found.distance, lengths * g.norm())
    close(found.loss_range, torch.stack([found.losses.min(), found.losses.max()]))
    close(found.scale_free_smoothness, found.smoothness * (w @ w))
    close(found.relative_distance, lengths * g.norm() / w.norm())
    close(found.scale_free_gradient_change, found.gradient_change * w.norm())


def test_smoothness_is_the_largest_ratio_along_the_gradient():
    """Of w^3 / 3 from 2 on: the gradient w^2 changes by (2 - 4 t) on the distance 4 t, most steeply at first."""
    model = Quadratic(torch.zeros(2, 2), torch.tensor([2.0, 0.0]))
    found = landscape_along_gradient(model, lambda model: (model.first**3).sum() / 3, [0.25, 0.01, 0.1])
    assert float(found.smoothness) == pytest.approx(4 - 4 * 0.01, rel=1e-4)


def test_only_the_named_parameters_move_and_count():
    model, w = quadratic()
    block = model.matrix[1:, 1:]
    found, g = landscape_along_gradient(model, loss_of, [0.5], ["rest"]), (model.matrix @ w)[1:]
    close(found.gradient_norm, g.norm())
    close(found.gradient_change, 0.5 * (block @ g).norm()[None])
    close(found.weight_norm, w[1:].norm())
    close(sharpness(model, loss_of, ["rest"], tolerance=1e-8).value, torch.linalg.eigvalsh(block)[-1])


def test_relative_step_sizes_are_fractions_of_the_weight_norm():
    model, w = quadratic()
    found = landscape_along_gradient(model, loss_of, [0.01, 0.2], relative=True)
    close(found.relative_distance, torch.tensor([0.01, 0.2], dtype=torch.float64))
    close(found.step_sizes * (model.matrix @ w).norm() / w.norm(), found.relative_distance)


def bn_mlp(eps=1e-12):
    return models.mlp((6, 5, 4, 3), partial(bnlib.BatchNorm, eps=eps)).double()


def scaled(model, names, factor):
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name in names:
            model.get_parameter(name).mul_(factor)
    return model


def test_the_same_function_with_larger_weights_has_a_smaller_smoothness_but_the_same_scale_free_one():
    (x, y), names = batch(), ["1.weight", "4.weight"]
    loss, model = loss_on(x.double(), y), bn_mlp()
    larger = scaled(model, names, 10)
    one, other = (landscape_along_gradient(each, loss, [0.01, 0.1], names, relative=True) for each in (model, larger))
    close(other.losses, one.losses)
    close(other.smoothness, one.smoothness / 100)
    close(other.gradient_change, one.gradient_change / 10)
    close(other.scale_free_smoothness, one.scale_free_smoothness)
    close(other.scale_free_gradient_change, one.scale_free_gradient_change)
    tops = [sharpness(each, loss, names, tolerance=1e-7) for each in (model, larger)]
    close(tops[1].value, tops[0].value / 100, rtol=1e-7)
    close(tops[1].scale_free, tops[0].scale_free, rtol=1e-7)
    # At the same learning rate the larger weights have hardly begun to move.
    one, other = (landscape_along_gradient(each, loss, [1.0], names) for each in (model, larger))
    assert (other.losses - other.loss).abs() < 0.05 * (one.losses - one.loss).abs()


def test_overflow_gives_inf_or_nan():
    model = Quadratic(torch.eye(2), torch.tensor([1.0, 1.0]))
    found = landscape_along_gradient(model, lambda model: model.first.exp().exp().sum(), [1e-3, 1e3, 1e38])
    assert found.losses.isfinite().tolist() == [True, True, True] and found.smoothness.isfinite()
    found = landscape_along_gradient(model, lambda model: -model.first.exp().sum(), [1e-3, 1e3])
    assert found.losses.isfinite().tolist() == [True, False] and found.smoothness == math.inf
    assert sharpness(model, lambda model: (100 * model.first).exp().sum()).value.isnan()
    flat = landscape_along_gradient(model, lambda model: 0 * model.first.sum(), [1.0])
    assert flat.losses == 0 and flat.smoothness.isnan()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(step_sizes, 0), "lr must be positive and finite, got 0"),
        (partial(step_sizes, 1, 4, 2), "low and high must be positive and in this order, got 4 and 2"),
        (partial(step_sizes, 1, count=1), "count must be at least 2, got 1"),
        (
            partial(landscape_along_gradient, step_sizes=[]),
            r"step_sizes must be a sequence of numbers, got shape \(0,\)",
        ),
        (
            partial(landscape_along_gradient, step_sizes=0.1),
            r"step_sizes must be a sequence of numbers, got shape \(\)",
        ),
        (partial(landscape_along_gradient, step_sizes=[0.1, -1]), r"step_sizes must be positive, got \[0.1, -1.0\]"),
        (
            partial(landscape_along_gradient, step_sizes=[1], parameter_names=["x"]),
            "parameter_names must name trainable parameters .*, got 'x'",
        ),
        (
            partial(landscape_along_gradient, step_sizes=[1], parameter_names=[]),
            "names must name at least one parameter, got none",
        ),
        (partial(loss_surface, directions=[], coordinates=[]), "directions must hold at least one, got none"),
        (
            partial(loss_surface, directions=[{}], coordinates=[]),
            "coordinates must have an entry for each of 1 directions, got 0",
        ),
        (
            partial(loss_surface, directions=[{}], coordinates=[[]]),
            r"coordinates must be a sequence of numbers, got shape \(0,\)",
        ),
        (
            partial(loss_surface, directions=[{"first": torch.ones(2)}], coordinates=[[1]]),
            r"directions must fit .*, got 'first' of shape \(2,\) for shape \(1,\)",
        ),
        (
            partial(loss_surface, directions=[{"x": torch.ones(2)}], coordinates=[[1]]),
            r"got 'x' .* for no such parameter",
        ),
        (partial(sharpness, tolerance=0), "tolerance must be positive, got 0"),
        (partial(sharpness, max_iterations=0), "max_iterations must be at least 1, got 0"),
        (partial(sharpness, finite_difference=-1.0), "finite_difference must be positive, got -1.0"),
        (partial(sharpness, parameter_names=["x"]), "parameter_names must name trainable parameters .*, got 'x'"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    arguments = () if call.func is step_sizes else (quadratic()[0], loss_of)
    with pytest.raises(ValueError, match=message):
        call(*arguments)


def test_a_model_without_trained_parameters():
    with pytest.raises(ValueError, match="model must have a parameter with requires_grad=True, got none"):
        sharpness(nn.ReLU(), lambda model: model(torch.ones(())))


def convolutions():
    with seeded(0):
        return nn.Sequential(nn.Conv2d(2, 3, 2), bnlib.BatchNorm(3), nn.Flatten(), nn.Linear(12, 4))


def test_each_filter_of_the_direction_is_as_long_as_that_of_the_weights():
    model = convolutions()
    direction, same = (filter_normalised_direction(model, 0) for _ in range(2))
    other = filter_normalised_direction(model, 1)
    assert list(direction) == [name for name, _ in model.named_parameters()]
    for name, weight in model.named_parameters():
        assert direction[name].shape == weight.shape
        if weight.dim() < 2:
            assert not direction[name].any()
            continue
        close(direction[name].flatten(1).norm(dim=1), weight.detach().flatten(1).norm(dim=1), rtol=1e-5)
        cosines = F.cosine_similarity(direction[name].flatten(1), weight.flatten(1))
        assert cosines.abs().max() < 0.95
        close(direction[name], same[name], rtol=0, atol=0)
        assert not torch.equal(direction[name], other[name])
    assert list(filter_normalised_direction(model, 0, ["3.weight"])) == ["3.weight"]


def test_a_unit_with_zero_weights_gets_a_zero_direction():
    model = convolutions()
    with torch.no_grad():
        model[0].weight[1].zero_()
    direction = filter_normalised_direction(model, 0)["0.weight"]
    assert not direction[1].any() and direction[0].all()


def test_the_surface_of_a_quadratic():
    model, w = quadratic()
    d, e = torch.eye(4).double()[0], torch.tensor([0, 1.0, -1, 2]).double()
    directions = [{"first": d[:1]}, {"first": e[:1], "rest": e[1:]}]
    found = loss_surface(model, loss_of, directions, [[-1, 0, 2], torch.tensor([0.0, 0.5])])
    points = [[w + s * d + t * e for t in (0, 0.5)] for s in (-1, 0, 2)]
    close(found.losses, torch.stack([torch.stack([p @ model.matrix @ p / 2 for p in row]) for row in points]))
    assert [each.tolist() for each in found.coordinates] == [[-1, 0, 2], [0, 0.5]]
    assert loss_surface(model, loss_of, directions[:1], [[1, 2, 3]]).losses.shape == (3,)
