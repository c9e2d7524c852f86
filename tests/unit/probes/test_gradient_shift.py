"""Internal covariate shift by gradients: against formulas by hand, and the training is unchanged."""

import copy
from contextlib import contextmanager, nullcontext
from functools import partial

import pytest
import torch
from shift_examples import NETWORKS, all_moved, loss_on, moved, norm, sequence_network
from torch import nn

import bnlib
from bnlib import models
from bnlib.models.building import seeded
from bnlib.probes import (
    activation_statistics,
    internal_covariate_shift,
    internal_covariate_shift_of_step,
    parameters_after_step,
    parameters_by_layer,
    record_activation_statistics,
)

each_network = pytest.mark.parametrize("name", NETWORKS)


def batches(count=3, samples=8):
    generator = torch.Generator().manual_seed(3)
    for _ in range(count):
        yield torch.randn(samples, 6, generator=generator), torch.randint(3, (samples,), generator=generator)


def test_the_shift_of_a_linear_network_is_the_one_by_hand():
    """Only the layers before have moved: the layer itself and those after are still at step t."""
    with seeded(0):
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 2)).double()
        x, y = torch.randn(7, 3).double(), torch.randn(7, 2).double()
    new = all_moved(model)
    old = {name: value.detach().numpy() for name, value in model.named_parameters()}
    after = {name: value.numpy() for name, value in new.items()}

    def gradient(at, layer):
        """Of the mean over samples of half the squared distance from y, with respect to weight and bias."""
        output, inputs = x.numpy(), []
        for k in range(3):
            inputs.append(output)
            output = output @ at[f"{k}.weight"].T + at[f"{k}.bias"]
        error = (output - y.numpy()) / 7
        for k in range(2, layer, -1):
            error = error @ at[f"{k}.weight"]
        return error.T @ inputs[layer], error.sum(0)

    shifts = internal_covariate_shift(model, lambda model: (model(x) - y).square().sum(1).mean() / 2, new)
    assert [each.layer for each in shifts] == ["0", "1", "2"] and shifts[0].ics == 0
    for layer, shift in enumerate(shifts):
        mixed = {name: after[name] if int(name[0]) < layer else old[name] for name in old}
        now, then = gradient(old, layer), gradient(mixed, layer)
        ics = norm(*[a - b for a, b in zip(now, then, strict=True)])
        cosine = sum((a * b).sum() for a, b in zip(now, then, strict=True)) / norm(*now) / norm(*then)
        names = [f"{layer}.weight", f"{layer}.bias"]
        step = norm(*[after[name] - old[name] for name in names]) / norm(*[old[name] for name in names])
        expected = [norm(*now), ics, ics / norm(*now), cosine, step]
        ours = [shift.gradient_norm, shift.ics, shift.relative_ics, shift.cosine, shift.step_ratio]
        assert [float(each) for each in ours] == pytest.approx(expected, rel=1e-12)


@each_network
def test_there_is_no_shift_unless_earlier_layers_move(name):
    """All passes see the same masks, noise and running estimates, too, or there would be a difference."""
    model, (x, y) = NETWORKS[name](), next(batches())
    *_, last = parameters_by_layer(model, loss_on(x, y)).values()
    for shift in internal_covariate_shift(model, loss_on(x, y), moved(model, last)):
        assert shift.ics == 0 and float(shift.cosine) == pytest.approx(1, abs=1e-6)
    first, *others = internal_covariate_shift(model, loss_on(x, y), all_moved(model))
    assert first.ics == 0 and all(each.ics > 1e-4 and each.cosine < 1 - 1e-5 for each in others)


def hooks(model):
    return sum(len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in model.modules())


def everything(model, optimiser):
    """All that the training goes on from."""
    return [
        {name: value.clone() for name, value in model.state_dict().items()},
        [None if value.grad is None else value.grad.clone() for value in model.parameters()],
        [value.requires_grad for value in model.parameters()],
        [layer.training for layer in model.modules()],
        copy.deepcopy(optimiser.state_dict()),
        torch.get_rng_state(),
    ]


def trace(name, probe=lambda model, optimiser, x, y: None, mode=True, around=lambda model: nullcontext()):
    """What there is before and after each of a few steps, with ``probe`` before each."""
    model, found = NETWORKS[name]().train(mode), []
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
    with seeded(1), around(model):
        for x, y in batches():
            hooked = hooks(model)
            probe(model, optimiser, x, y)
            assert hooks(model) == hooked
            found.append(everything(model, optimiser))
            optimiser.zero_grad()
            loss_on(x, y)(model).backward()
            optimiser.step()
            found.append(everything(model, optimiser))
    return found


PROBES = {
    "internal_covariate_shift_of_step": lambda model, optimiser, x, y: internal_covariate_shift_of_step(
        model, optimiser, loss_on(x, y)
    ),
    "internal_covariate_shift": lambda model, _, x, y: internal_covariate_shift(model, loss_on(x, y), all_moved(model)),
    "parameters_after_step": lambda model, optimiser, x, y: parameters_after_step(model, optimiser, loss_on(x, y)),
    "parameters_by_layer": lambda model, _, x, y: parameters_by_layer(model, loss_on(x, y)),
    "activation_statistics": lambda model, _, x, y: activation_statistics(model, x),
}


@each_network
@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("mode", [True, False])
def test_training_is_the_same_to_the_bit_with_a_probe(name, probe, mode):
    torch.testing.assert_close(trace(name, PROBES[probe], mode), trace(name, mode=mode), rtol=0, atol=0)


@each_network
def test_training_is_the_same_to_the_bit_while_it_is_recorded(name):
    @contextmanager
    def around(model):
        with (
            record_activation_statistics(model) as outputs,
            record_activation_statistics(model, of_inputs=True) as inputs,
        ):
            yield
        assert outputs and outputs.keys() == inputs.keys() and not hooks(model)
        assert all(len(each) == 3 for each in (*outputs.values(), *inputs.values()))

    torch.testing.assert_close(trace(name, around=around), trace(name), rtol=0, atol=0)


def test_a_failing_loss_leaves_no_trace():
    model, (x, _) = NETWORKS["FullNorm"](), next(batches())
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    before = everything(model, optimiser)
    with pytest.raises(ZeroDivisionError):
        internal_covariate_shift_of_step(model, optimiser, lambda model: model(x).sum() / (1 // 0))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        activation_statistics(model, x[:, 1:])
    torch.testing.assert_close(everything(model, optimiser), before, rtol=0, atol=0)
    assert not hooks(model)


@each_network
@pytest.mark.parametrize(
    "make",
    [
        partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2),
        partial(torch.optim.Adam, lr=0.01),
    ],
)
def test_parameters_after_step_are_those_of_the_real_step(name, make):
    model = NETWORKS[name]()
    optimiser = make(model.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, 1, 0.5)
    for x, y in batches():
        expected = parameters_after_step(model, optimiser, loss_on(x, y))
        optimiser.zero_grad()
        loss_on(x, y)(model).backward()
        optimiser.step()
        schedule.step()
        torch.testing.assert_close(dict(model.named_parameters()), expected, rtol=0, atol=0)


def test_parameters_after_step_do_not_change_later():
    model, (x, y) = NETWORKS["plain"](), next(batches())
    optimiser = torch.optim.SGD([model[1].weight], lr=0.1)
    new = parameters_after_step(model, optimiser, loss_on(x, y))
    changed = [name for name, value in model.named_parameters() if not torch.equal(value, new[name])]
    with torch.no_grad():
        model[3].weight.zero_()
    assert changed == ["1.weight"] and new["3.weight"].abs().min() > 0


def test_the_shift_of_a_step_is_that_of_the_parameters_after_it():
    model, (x, y) = NETWORKS["FullNorm"](), next(batches())
    # This step adds to the gradients in place.
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, foreach=True)
    new = parameters_after_step(model, optimiser, loss_on(x, y))
    theirs = internal_covariate_shift(model, loss_on(x, y), new)
    with torch.no_grad():
        ours = internal_covariate_shift_of_step(model, optimiser, loss_on(x, y))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(vars(one) | {"layer": 0}, vars(other) | {"layer": 0}, rtol=0, atol=0)
    assert float(ours[1].step_ratio) > 0.01


def names_of(*layers):
    return [f"{layer}.{name}" for layer in layers for name in ("weight", "bias")]


def test_a_layer_includes_the_norm_after_it_and_its_parametrisation():
    (x, y) = next(batches())
    groups = {name: parameters_by_layer(NETWORKS[name](), loss_on(x, y)) for name in NETWORKS}
    assert groups["plain"] == {name: names_of(name) for name in "135"}
    assert groups["BatchNorm"] == {"1": names_of(1, 2), "4": names_of(4, 5), "7": names_of(7)}
    assert groups["weight norm"]["1"] == [
        "1.bias",
        *[f"1.parametrizations.weight.original{number}" for number in range(2)],
    ]
    first = models.logistic_regression(6, 3, bnlib.BatchNorm)
    assert parameters_by_layer(first, loss_on(x, y)) == {"1": names_of(1), "2": names_of(2)}


def test_layers_come_in_the_order_in_which_they_are_called():
    """Here not that of their names, which has both LSTMs before both norms."""
    (x, y) = next(batches())
    groups = parameters_by_layer(sequence_network(), loss_on(x, y))
    assert [*groups] == ["1.lstms.0", "1.lstms.1", "1.linear"]
    assert all(groups[f"1.lstms.{k}"][-2:] == names_of(f"1.norms.{k}.norms.0") for k in range(2))


class Forked(nn.Module):
    """A shared layer, one that is not used, one that is frozen."""

    def __init__(self):
        super().__init__()
        self.unused, self.frozen, self.twice = nn.Linear(6, 6), nn.Linear(6, 6).requires_grad_(False), nn.Linear(6, 6)

    def forward(self, x):
        return self.twice(self.frozen(self.twice(x)))


def test_unused_and_frozen_parameters_are_in_no_layer():
    model, (x, y) = Forked(), next(batches())
    assert parameters_by_layer(model, loss_on(x, y)) == {"twice": names_of("twice")}
    new = parameters_after_step(model, torch.optim.SGD(model.parameters(), lr=1, weight_decay=0.1), loss_on(x, y))
    assert torch.equal(new["unused.weight"], model.unused.weight)
    with_zeros = {"used": ["twice.weight", "unused.weight"], "unused": ["unused.bias"]}
    used, unused = internal_covariate_shift(model, loss_on(x, y), new, with_zeros)
    (gradient,) = torch.autograd.grad(loss_on(x, y)(model), model.twice.weight)
    torch.testing.assert_close(used.gradient_norm, gradient.norm())
    assert unused.gradient_norm == unused.ics == 0


def test_groups_can_be_named():
    model, (x, y) = NETWORKS["BatchNorm"](), next(batches())
    groups = {"end": ["7.weight"], "start": ["1.weight", "4.weight"]}
    end, start = internal_covariate_shift(model, loss_on(x, y), all_moved(model), groups)
    assert (end.layer, start.layer) == ("end", "start") and end.ics == 0
    now, then = copy.deepcopy(model), copy.deepcopy(model)
    with torch.no_grad():
        then[7].weight.copy_(all_moved(model)["7.weight"])
    g, h = (
        torch.autograd.grad(loss_on(x, y)(each), [each[1].weight, each[4].weight], materialize_grads=True)
        for each in (now, then)
    )
    expected = sum((a - b).square().sum() for a, b in zip(g, h, strict=True)).sqrt()
    torch.testing.assert_close(start.ics, expected)


def test_a_gradient_of_zero_has_no_angle():
    model, (x, y) = NETWORKS["BatchNorm"](), next(batches())
    nn.init.zeros_(model[7].weight)
    first, _, last = internal_covariate_shift(model, loss_on(x, y), all_moved(model))
    assert first.gradient_norm == 0 and first.cosine.isnan() and last.cosine.isfinite()


@pytest.mark.parametrize(
    ("groups", "new", "message"),
    [
        ({"a": ["1.wait"]}, {}, "groups must name trainable parameters of the model, got '1.wait'"),
        ({"a": ["5.bias"]}, {}, "groups must name trainable parameters of the model, got '5.bias'"),
        ({"a": []}, {}, "groups must name at least one parameter for each layer, got none for 'a'"),
        ({"a": ["1.bias"], "b": ["1.bias"]}, {}, "groups must not share a parameter, got '1.bias' in 'a' and 'b'"),
        (None, {"3.bias": torch.ones(2)}, r"new_parameters must hold '3.bias' of shape \(4,\), got shape \(2,\)"),
        (None, {"3.bias": None}, r"new_parameters must hold '3.bias' of shape \(4,\), got none"),
    ],
)
def test_wrong_groups_and_parameters_are_named(groups, new, message):
    model, (x, y) = NETWORKS["plain"](), next(batches())
    model[5].bias.requires_grad_(False)
    new = {name: value for name, value in (all_moved(model) | new).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        internal_covariate_shift(model, loss_on(x, y), new, groups)


def test_a_loss_must_be_a_single_number():
    model, (x, _) = NETWORKS["plain"](), next(batches())
    with pytest.raises(ValueError, match=r"loss must return a single number, got shape \(8, 3\)"):
        parameters_by_layer(model, lambda model: model(x))


def test_modules_that_are_never_called_need_groups():
    model = nn.MultiheadAttention(6, 1)
    x = torch.ones(2, 1, 6)
    with pytest.raises(ValueError, match=r"groups must be given .* the modules out_proj own parameters"):
        parameters_by_layer(model, lambda model: model(x, x, x)[0].sum())


def test_the_optimiser_of_another_model_is_named():
    model, (x, y) = NETWORKS["plain"](), next(batches())
    other = torch.optim.SGD(NETWORKS["plain"]().parameters(), 0.1)
    with pytest.raises(ValueError, match="optimiser must hold parameters of the model, got an optimiser of other"):
        parameters_after_step(model, other, loss_on(x, y))
