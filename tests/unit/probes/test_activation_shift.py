"""Statistics of activations and their distances, against values by hand."""

import copy
import itertools
import math
from statistics import NormalDist

import pytest
import torch
from shift_examples import NETWORKS, all_moved, loss_on
from torch import nn

import bnlib
from bnlib import datasets, models, training
from bnlib.models.building import seeded
from bnlib.probes import (
    activation_statistics,
    channel_statistics,
    internal_covariate_shift,
    record_activation_statistics,
    statistics_distance,
)


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
    with seeded(0):
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


def test_activation_statistics_of_a_known_layer():
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
def test_statistics_are_taken_over_all_dimensions_but_the_channels(shape, channel):
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
        (torch.ones(3, 2), {"num_quantiles": 0}, "num_quantiles must be an integer, at least 1, got 0"),
        (torch.ones(3), {}, r"values must hold samples and, in dimension channel_dim=1, channels, got shape \(3,\)"),
        (torch.ones(3, 2), {"channel_dim": 2}, r"in dimension channel_dim=2, channels, got shape \(3, 2\)"),
        (torch.ones(0, 2), {}, r"got shape \(0, 2\)"),
    ],
)
def test_values_without_channels_are_refused(values, options, message):
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


def test_recording_has_each_training_batch_and_neither_evaluation_nor_probes():
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
