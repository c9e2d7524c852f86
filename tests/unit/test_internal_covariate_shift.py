"""Covariate shift: both measures against formulas by hand, and that probe_is_running leaves no trace."""

import copy
import itertools
import math
from contextlib import contextmanager, nullcontext
from functools import partial
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bnlib
from bnlib import datasets, models, training
from bnlib.models.building import drawn_from
from bnlib.probes import (
    activation_statistics,
    channel_statistics,
    internal_covariate_shift,
    internal_covariate_shift_of_step,
    parameters_after_step,
    parameters_by_layer,
    record_activation_statistics,
    statistics_distance,
)


def dropout_mlp(norm, seed=0):
    first, *rest = models.mlp((6, 5, 4, 3), norm, seed=seed)
    return nn.Sequential(nn.Dropout(0.3), first, *rest[:-1], nn.Dropout(0.3), rest[-1])


def image_network(norm, seed=0):
    with drawn_from(seed):
        layers = [nn.Conv2d(1, 3, 2, padding=1), norm(3), nn.ReLU(), nn.Conv2d(3, 4, 2), norm(4), nn.ReLU()]
        return nn.Sequential(nn.Unflatten(1, (1, 2, 3)), *layers, nn.Flatten(), nn.Linear(24, 3))


def sequence_network(seed=0):
    lstm = models.lstm_stack(2, 4, bnlib.BatchNorm, steps=2, in_features=3, num_classes=2, seed=seed)
    return nn.Sequential(nn.Unflatten(1, (2, 3)), lstm, nn.Flatten())


NETWORKS = {
    "plain": partial(models.mlp, (6, 5, 4, 3)),
    "BatchNorm": partial(models.mlp, (6, 5, 4, 3), bnlib.BatchNorm),
    "FullNorm": partial(models.mlp, (6, 5, 4, 3), bnlib.FullNorm),
    "BatchRenorm": partial(models.mlp, (6, 5, 4, 3), bnlib.BatchRenorm),
    "NoisyBatchNorm": partial(models.mlp, (6, 5, 4, 3), bnlib.NoisyBatchNorm),
    "weight norm": partial(models.mlp, (6, 5, 4, 3), "weight_norm"),
    "Dropout": partial(dropout_mlp, bnlib.BatchNorm),
    "convolutions": partial(image_network, bnlib.BatchNorm),
    "convolutions, FullNorm": partial(image_network, bnlib.FullNorm),
    "LSTM": sequence_network,
}
each_network = pytest.mark.parametrize("name", NETWORKS)


def batches(count=3, samples=8):
    generator = torch.Generator().manual_seed(3)
    for _ in range(count):
        yield torch.randn(samples, 6, generator=generator), torch.randint(3, (samples,), generator=generator)


def loss_on(x, y):
    return lambda model: F.cross_entropy(model(x), y)


def moved(model, names):
    """Parameters by name, those in ``names`` a step further."""
    generator = torch.Generator().manual_seed(5)
    return {
        name: value.detach() + 0.1 * torch.randn(value.shape, generator=generator).to(value) * (name in names)
        for name, value in model.named_parameters()
    }


def all_moved(model):
    return moved(model, dict(model.named_parameters()))


def norm(*arrays):
    return math.sqrt(sum(np.square(each).sum() for each in arrays))


def test_the_shift_of_a_linear_network_is_the_one_by_hand():
    """Only the layers before have moved: the layer itself and those after are still at step t."""
    with drawn_from(0):
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
def test_no_shift_unless_layers_before_move(name):
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
    with drawn_from(1), around(model):
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
def test_the_next_parameters_are_those_of_the_real_step(name, make):
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


def test_the_next_parameters_stay_what_they_are():
    model, (x, y) = NETWORKS["plain"](), next(batches())
    optimiser = torch.optim.SGD([model[1].weight], lr=0.1)
    new = parameters_after_step(model, optimiser, loss_on(x, y))
    changed = [name for name, value in model.named_parameters() if not torch.equal(value, new[name])]
    with torch.no_grad():
        model[3].weight.zero_()
    assert changed == ["1.weight"] and new["3.weight"].abs().min() > 0


def test_a_probed_step_has_the_shift_of_the_next_parameters():
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


def test_a_layer_is_a_module_with_the_norm_behind_it_and_its_parametrisation():
    (x, y) = next(batches())
    groups = {name: parameters_by_layer(NETWORKS[name](), loss_on(x, y)) for name in NETWORKS}
    assert groups["plain"] == {name: names_of(name) for name in "135"}
    assert groups["BatchNorm"] == {"1": names_of(1, 2), "4": names_of(4, 5), "7": names_of(7)}
    assert groups["weight norm"]["1"] == [
        "1.bias",
        *[f"1.parametrizations.weight.original{number}" for number in range(2)],
    ]
    first = models.logistic(6, 3, bnlib.BatchNorm)
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


def test_what_is_not_used_or_not_trained_is_in_no_layer():
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


def test_a_loss_must_be_one_number():
    model, (x, _) = NETWORKS["plain"](), next(batches())
    with pytest.raises(ValueError, match=r"loss must return a single number, got shape \(8, 3\)"):
        parameters_by_layer(model, lambda model: model(x))


def test_parameters_that_come_in_nowhere_ask_for_groups():
    model = nn.MultiheadAttention(6, 1)
    x = torch.ones(2, 1, 6)
    with pytest.raises(ValueError, match=r"groups must be given .* the modules out_proj own parameters"):
        parameters_by_layer(model, lambda model: model(x, x, x)[0].sum())


def normal(mean, deviation, count=1000):
    """As good a sample as there is, for each of the means and deviations."""
    each = torch.tensor([NormalDist().inv_cdf((k + 0.5) / count) for k in range(count)], dtype=torch.float64)
    return each[:, None] * torch.tensor(deviation).double() + torch.tensor(mean).double()


def test_distance_of_shifted_and_scaled_normals():
    """The last moves both ways at once: the Wasserstein distance is then the mean of a folded normal."""
    first, second = channel_statistics(normal([0, 0, 1], [1, 1, 1])), channel_statistics(normal([2, 0, 2], [1, 3, 3]))
    apart = statistics_distance(first, second)
    folded = 2 * math.sqrt(2 / math.pi) * math.exp(-1 / 8) + math.erf(1 / math.sqrt(8))
    assert apart.wasserstein.tolist() == pytest.approx([2, 2 * math.sqrt(2 / math.pi), folded], rel=0.005)
    assert apart.mean.tolist() == pytest.approx([2, 0, 1 / math.sqrt(5)], abs=0.003)
    assert apart.log_variance.tolist() == pytest.approx([0, math.log(9), math.log(9)], abs=1e-9)
    assert float(apart.average().wasserstein) == pytest.approx(float(apart.wasserstein.mean()))
    back = statistics_distance(second, first)
    torch.testing.assert_close(vars(back), vars(apart))


def test_with_a_quantile_for_each_value_the_wasserstein_distance_is_that_of_the_best_pairing():
    with drawn_from(0):
        first, second = torch.randn(6, 1), torch.randn(6, 1).exp()
    pairings = [(first[list(order)] - second).abs().mean() for order in itertools.permutations(range(6))]
    ours = statistics_distance(*(channel_statistics(each, num_quantiles=6) for each in (first, second)))
    torch.testing.assert_close(ours.wasserstein[0], min(pairings))


def test_a_constant_channel_is_left_out_of_the_mean():
    first, second = torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 2.0]]), torch.tensor([[1.0, 1.0, 1.0], [4.0, 1.0, 1.0]])
    apart, average = (
        each(statistics_distance(channel_statistics(first), channel_statistics(second)))
        for each in (vars, lambda each: each.average())
    )
    assert apart["mean"].isnan().tolist() == apart["log_variance"].isnan().tolist() == [False, True, False]
    assert apart["log_variance"].isinf().tolist() == [False, False, True]
    assert float(average.log_variance) == pytest.approx(math.log(9))
    assert float(average.mean) == pytest.approx(2 / math.sqrt((0.25 + 2.25) / 2) / 2)
    assert float(average.wasserstein) == pytest.approx((2 + 0 + 1) / 3)


def test_snapshots_must_match():
    first, second = channel_statistics(torch.ones(3, 2)), channel_statistics(torch.ones(3, 4))
    with pytest.raises(ValueError, match=r"as many quantiles and channels as first, got \(100, 4\) and \(100, 2\)"):
        statistics_distance(first, second)


def test_moments_of_what_a_known_layer_makes_of_known_inputs():
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[2.0], [-3.0]]))
        model[0].bias.copy_(torch.tensor([1.0, 0.5]))
    x = torch.arange(10.0)[torch.randperm(10, generator=torch.Generator().manual_seed(0))][:, None]
    found = activation_statistics(model, x, ["0", "2"], num_quantiles=10)
    assert list(found) == ["0", "2"] == list(activation_statistics(model, x)) and found["0"].count == 10
    torch.testing.assert_close(found["0"].mean, torch.tensor([2 * 4.5 + 1, -3 * 4.5 + 0.5]))
    torch.testing.assert_close(found["0"].variance, torch.tensor([4 * 8.25, 9 * 8.25]))
    ordered = torch.stack([2 * torch.arange(10.0) + 1, -3 * torch.arange(9.0, -1, -1) + 0.5], 1)
    torch.testing.assert_close(found["0"].quantiles, ordered)
    before = activation_statistics(model, x, ["2", ""], of_inputs=True, num_quantiles=10)
    torch.testing.assert_close(before["2"].quantiles, ordered.clamp(min=0))
    torch.testing.assert_close(before[""].mean, torch.tensor([4.5]))


def test_quantiles_are_values():
    x = torch.tensor([3.0, 0, 2, 1])[:, None]
    found = [channel_statistics(x, num_quantiles=count).quantiles[:, 0].tolist() for count in (8, 6, 4, 2, 1)]
    assert found == [[0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 1, 2, 3, 3], [0, 1, 2, 3], [1, 3], [2]]


@pytest.mark.parametrize(("shape", "channel"), [((5, 3, 4, 2), 1), ((5, 4, 3), -1), ((5, 3), 1)])
def test_moments_go_over_all_dimensions_but_the_channels(shape, channel):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found, flat = channel_statistics(x, channel_dim=channel), x.movedim(channel, 0).reshape(3, -1)
    torch.testing.assert_close(found.mean, flat.mean(1))
    torch.testing.assert_close(found.variance, flat.var(1, correction=0))
    assert found.count == flat.size(1) and found.quantiles.shape == (100, 3)
    halves = channel_statistics(x.bfloat16(), channel_dim=channel)
    assert halves.mean.dtype == halves.quantiles.dtype == torch.float32


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (torch.ones(3, 2), {"num_quantiles": 0}, "num_quantiles must be at least 1, got 0"),
        (torch.ones(3), {}, r"values must hold samples and, in dimension channel_dim=1, channels, got shape \(3,\)"),
        (torch.ones(3, 2), {"channel_dim": 2}, r"in dimension channel_dim=2, channels, got shape \(3, 2\)"),
        (torch.ones(0, 2), {}, r"got shape \(0, 2\)"),
    ],
)
def test_moments_of_what_has_none(values, options, message):
    with pytest.raises(ValueError, match=message):
        channel_statistics(values, **options)


def test_a_layer_that_does_not_exist_is_named():
    with pytest.raises(
        ValueError, match=r"layers must name submodules of the model, such as \['1', '3', '5'\], got '9'"
    ):
        activation_statistics(NETWORKS["plain"](), torch.ones(2, 6), ["9"])


def test_the_first_of_several_outputs_is_measured():
    model, x = nn.Sequential(nn.LSTM(3, 4)), torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    found = activation_statistics(model, x, channel_dim=-1)
    torch.testing.assert_close(found["0"].mean, model(x)[0].detach().mean((0, 1)))


def test_a_recording_has_each_training_batch_and_neither_evaluation_nor_probes():
    model, data = models.mlp((3, 8, 3), bnlib.BatchNorm), datasets.load("three_points")
    twin, loss, expected = copy.deepcopy(model), loss_on(data.train_x, data.train_y), []

    def probe(_, trained, index):
        internal_covariate_shift(trained, loss, all_moved(trained))
        activation_statistics(trained, data.train_x)

    with record_activation_statistics(model, ["1"]) as log:
        training.fit(model, data, batch_size=3, lr=0.5, epochs=4, callbacks=[probe], progress=False)
    optimiser = torch.optim.SGD(twin.parameters(), lr=0.5)
    for _ in range(4):
        expected.append(activation_statistics(twin, data.train_x)["1"])
        optimiser.zero_grad()
        loss(twin).backward()
        optimiser.step()
    assert list(log) == ["1"]
    for ours, theirs in zip(log["1"], expected, strict=True):
        torch.testing.assert_close(vars(ours), vars(theirs), rtol=1e-4, atol=1e-4)
    assert statistics_distance(log["1"][0], log["1"][3]).average().mean > 1e-3
