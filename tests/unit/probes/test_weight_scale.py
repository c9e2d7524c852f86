"""Scale invariance and effective learning rates against the identities, in float64 and with a tiny eps."""

import math
import re
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bnlib
from bnlib import models, probes
from bnlib.models.building import seeded
from bnlib.probes import effective_learning_rate, scale_invariance, spherical_step, weight_decay_equilibrium


def batch(samples=12):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(samples, 6, generator=generator).double(), torch.randint(3, (samples,), generator=generator)


def loss_on(x, y):
    return lambda model: F.cross_entropy(model(x), y)


def bn_mlp(eps=1e-14):
    return models.mlp((6, 5, 4, 3), partial(bnlib.BatchNorm, eps=eps)).double()


def test_the_loss_sees_only_the_direction_of_each_unit_before_batch_norm():
    model = bn_mlp()
    first, second, last = scale_invariance(model, loss_on(*batch()), factor=3.0)
    assert [first.name, second.name, last.name] == ["1.weight", "4.weight", "7.weight"]
    for each, units in ((first, 5), (second, 4)):
        assert each.cosine_per_unit.shape == (units,) and each.gradient_norm > 1e-3
        numbers = [each.cosine, each.loss_change, each.gradient_error, *each.cosine_per_unit]
        torch.testing.assert_close(torch.stack(numbers), torch.zeros(units + 3).double(), rtol=0, atol=1e-10)
    assert last.cosine.abs() > 0.01 and last.loss_change.abs() > 0.01 and last.gradient_error > 0.1
    torch.testing.assert_close(last.weight_norm, model[7].weight.detach().norm())


def test_without_a_norm_nothing_is_scale_invariant():
    model = models.mlp((6, 5, 4, 3), activation=nn.Tanh).double()
    for each in scale_invariance(model, loss_on(*batch())):
        assert each.gradient_error > 0.05 and each.cosine_per_unit.abs().max() > 0.01


def test_the_numbers_are_those_by_hand():
    """Of half the squared length of A w, in both per_unit: the gradient is A'A w, c times as long for c w."""
    with seeded(0):
        a, weight = torch.randn(3, 3).double(), torch.randn(2, 3).double()
    model = nn.Linear(3, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(weight)
    (found,) = scale_invariance(model, lambda model: (model.weight @ a.T).square().sum() / 2, factor=0.5)
    gradient = weight @ a.T @ a
    expected = {
        "weight_norm": weight.norm(),
        "gradient_norm": gradient.norm(),
        "cosine": (weight * gradient).sum() / weight.norm() / gradient.norm(),
        "cosine_per_unit": (weight * gradient).sum(1) / weight.norm(dim=1) / gradient.norm(dim=1),
        "loss_change": -0.75 * (weight @ a.T).square().sum() / 2,
        "gradient_error": torch.tensor(0.75).double(),
    }
    torch.testing.assert_close({name: getattr(found, name) for name in expected}, expected)


def test_eps_breaks_the_invariance_the_more_the_smaller_the_weights():
    errors = []
    for eps in (1e-6, 1e-3, 1e-1):
        first, *_ = scale_invariance(bn_mlp(eps), loss_on(*batch()), ["1.weight"])
        errors.append(float(first.cosine_per_unit.abs().max()))
    assert errors == sorted(errors) and errors[0] < 1e-4 < 1e-2 < errors[2]


def test_a_convolution_and_parameters_by_name():
    with seeded(0):
        layers = [nn.Conv2d(1, 3, 2), bnlib.BatchNorm(3, eps=1e-14), nn.ReLU(), nn.Flatten(), nn.Linear(6, 3)]
        model = nn.Sequential(nn.Unflatten(1, (1, 2, 3)), *layers).double()
    loss = loss_on(*batch())
    bias, weight = scale_invariance(model, loss, ["1.weight", "1.bias"])[::-1]
    assert weight.cosine_per_unit.shape == (3,) and weight.cosine_per_unit.abs().max() < 1e-10
    # The bias before a norm has no gradient but rounding errors.
    assert bias.gradient_norm < 1e-10
    (gamma,) = scale_invariance(model, loss, ["2.weight"])
    assert gamma.cosine_per_unit.shape == (3,) and gamma.loss_change.abs() > 1e-3


def test_a_parameter_without_gradient_has_no_angle():
    model = nn.Linear(3, 2)
    (found,) = scale_invariance(model, lambda model: model.bias.sum())
    assert found.name == "weight" and found.cosine.isnan() and found.gradient_error.isnan() and found.loss_change == 0


@pytest.mark.parametrize("per_unit", [False, True])
def test_a_real_step_is_the_predicted_one(per_unit):
    (x, y), model = batch(), bn_mlp()
    weight = model[1].weight
    (gradient,) = torch.autograd.grad(loss_on(x, y)(model), weight)
    predicted = spherical_step(0.7, weight, gradient, per_unit=per_unit)
    before, after = weight.detach(), weight.detach() - 0.7 * gradient
    if not per_unit:
        before, after = before.reshape(1, -1), after.reshape(1, -1)
    norm, angle = after.norm(dim=1), F.cosine_similarity(before, after).clamp(max=1).acos()
    shape = (5,) if per_unit else ()
    torch.testing.assert_close(predicted.weight_norm, norm.reshape(shape), rtol=1e-10, atol=0)
    torch.testing.assert_close(predicted.angle, angle.reshape(shape), rtol=1e-6, atol=0)
    torch.testing.assert_close(predicted.effective_lr, (0.7 / before.square().sum(1)).reshape(shape))
    assert predicted.angle.min() > 1e-3


def test_the_angle_is_that_of_a_step_along_the_unit_sphere():
    (x, y), model = batch(), bn_mlp()
    (gradient,) = torch.autograd.grad(loss_on(x, y)(model), model[1].weight)
    weight = model[1].weight.detach().clone()
    with torch.no_grad():
        model[1].weight /= weight.norm()
    (on_sphere,) = torch.autograd.grad(loss_on(x, y)(model), model[1].weight)
    predicted = spherical_step(0.7, weight, gradient)
    torch.testing.assert_close(predicted.angle.tan(), predicted.effective_lr * on_sphere.norm(), rtol=1e-10, atol=0)


def test_with_the_same_effective_learning_rate_the_functions_are_the_same_all_along():
    """Twice the weights, four times the learning rate."""

    def losses(scale, lr):
        (x, y), model, found = batch(), bn_mlp(), []
        weight = model[1].weight
        with torch.no_grad():
            weight *= scale
        rate = effective_learning_rate(lr, weight)
        for _ in range(4):
            value = loss_on(x, y)(model)
            (gradient,) = torch.autograd.grad(value, weight)
            found.append(value.detach())
            with torch.no_grad():
                weight -= lr * gradient
        return torch.stack([rate, *found])

    one, other = losses(1, 0.5), losses(2, 2.0)
    torch.testing.assert_close(one, other, rtol=1e-9, atol=0)
    assert one[4] < one[1] - 1e-3


def test_effective_learning_rates_of_known_weights():
    weight = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]])
    assert float(effective_learning_rate(0.5, weight)) == pytest.approx(0.5 / 26)
    assert effective_learning_rate(0.5, weight, per_unit=True).tolist() == pytest.approx([0.02, math.inf, 0.5])
    assert effective_learning_rate(0.5, weight.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(("lr", "decay", "unit"), [(0.1, 0.01, 2.0), (1.0, 0.3, 0.5), (0.5, 1.0, 10.0)])
def test_growth_and_decay_meet_at_the_equilibrium(lr, decay, unit):
    """A gradient of this length on the sphere, always at a right angle, in the plane."""
    w, angle = torch.tensor([5.0, 0.0]).double(), None
    for _ in range(20_000 if decay < 0.1 else 2000):
        tangent = torch.stack([-w[1], w[0]]) / w.norm()
        after = (1 - lr * decay) * w - lr * unit / w.norm() * tangent
        angle = torch.linalg.vecdot(w, after) / w.norm() / after.norm()
        w = after
    norm, theta = weight_decay_equilibrium(lr, decay, unit)
    assert float(w.norm()) == pytest.approx(norm, rel=1e-9) and float(angle.acos()) == pytest.approx(theta, rel=1e-6)


def test_the_angle_at_the_equilibrium_is_about_the_root_of_twice_lr_times_decay():
    assert weight_decay_equilibrium(0.1, 1e-4, 7.0)[1] == pytest.approx(math.sqrt(2e-5), rel=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(effective_learning_rate, 0, torch.ones(2)), "lr must be a finite number, above 0, got 0"),
        (
            partial(effective_learning_rate, 1, torch.ones(()), per_unit=True),
            "weight must have at least one dimension for per_unit=True",
        ),
        (
            partial(spherical_step, 1, torch.ones(2), torch.ones(3)),
            "gradient must have the shape of weight, (2,), got (3,)",
        ),
        (partial(weight_decay_equilibrium, 1, -0.1, 1), "weight_decay must be a finite number, above 0, got -0.1"),
        (
            partial(weight_decay_equilibrium, 1, 0.1, math.nan),
            "unit_gradient_norm must be a finite number, above 0, got nan",
        ),
        (partial(weight_decay_equilibrium, 10, 0.1, 1), "lr * weight_decay must be below 1, got 1.0"),
        (partial(scale_invariance, factor=1), "factor must be positive and not 1, got 1"),
        (partial(scale_invariance, factor=-2), "factor must be a finite number, above 0, got -2"),
        (
            partial(scale_invariance, parameter_names=["x"]),
            "parameter_names must name trainable parameters of the model, got 'x'",
        ),
    ],
)
def test_wrong_arguments_are_named(call, message):
    arguments = (bn_mlp(), loss_on(*batch())) if call.func is scale_invariance else ()
    with pytest.raises(ValueError, match=re.escape(message)):
        call(*arguments)


OF_A_LOSS = {
    "sharpness": probes.sharpness,
    "landscape": lambda model, loss: probes.landscape_along_gradient(model, loss, [0.1]),
    "scale invariance": scale_invariance,
    "gradient norms": probes.gradient_norms_by_layer,
    "gradient shift": lambda model, loss: probes.internal_covariate_shift(model, loss, model.state_dict()),
    "surface": lambda model, loss: probes.loss_surface(
        model, loss, [probes.filter_normalised_direction(model, 0)], [[0.0]]
    ),
}


@pytest.mark.parametrize("probe", OF_A_LOSS.values(), ids=OF_A_LOSS)
@pytest.mark.parametrize("wrong", [Tensor.item, lambda value: (value,), lambda value: None, lambda value: value + 1j])
def test_what_is_no_loss_is_named(probe, wrong):
    x, y = batch()
    with pytest.raises(TypeError, match=r"loss must return a tensor with a single real number, got .+"):
        probe(bn_mlp(), lambda model: wrong(F.cross_entropy(model(x), y)))


@pytest.mark.parametrize("name", list(OF_A_LOSS)[:5])
def test_a_loss_without_gradient_is_named(name):
    x, y = batch()
    with pytest.raises(ValueError, match=r"loss must depend on the trainable parameters of the model, got the const"):
        OF_A_LOSS[name](bn_mlp(), lambda model: F.cross_entropy(model(x), y).detach())


@pytest.mark.parametrize("factor", [1e-30, 1e-21, 1e25])
def test_norms_do_not_depend_on_the_range_of_float32(factor):
    x, y = batch()
    model = bn_mlp().float()
    plain, scaled = (lambda model, size=size: size * loss_on(x.float(), y)(model) for size in (1.0, factor))
    for one, other in zip(scale_invariance(model, plain), scale_invariance(model, scaled), strict=True):
        torch.testing.assert_close(other.gradient_norm, factor * one.gradient_norm, rtol=1e-4, atol=0)
        torch.testing.assert_close(other.cosine_per_unit, one.cosine_per_unit, rtol=1e-3, atol=1e-5)
    moved = bn_mlp().float().state_dict() | {"1.weight": model[1].weight * 1.1}
    shifts = (probes.internal_covariate_shift(model, loss, moved) for loss in (plain, scaled))
    for one, other in zip(*shifts, strict=True):
        torch.testing.assert_close(other.cosine, one.cosine, rtol=1e-3, atol=0)
        assert abs(other.ics / factor - one.ics) < 1e-5 * one.gradient_norm
    one, other = (probes.landscape_along_gradient(model, loss, [0.1], relative=True) for loss in (plain, scaled))
    torch.testing.assert_close(other.gradient_change, factor * one.gradient_change, rtol=1e-3, atol=0)
    first = torch.tensor([1.0, 1.0])
    expected = probes.relative_difference(first, 2 * first)
    assert probes.relative_difference(factor * first, factor * 2 * first) == pytest.approx(expected, rel=1e-5)
    changes = [probes.batch_dependence(nn.Conv1d(1, 1, 1), size * x.float()[:, None]) for size in (1, factor)]
    assert max(changes) < 1e-6
    with pytest.raises(ValueError, match=r"second must have the shape of first, \(2,\), got \(2, 1\)"):
        probes.relative_difference(first, first[:, None])
