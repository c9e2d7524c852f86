"""The experiments of chapter 4: what is drawn is what the formulas say."""

import math

import numpy as np
import pytest
import torch

from bnlib import figures
from bnlib.experiments.objective import absorption, errors_by_input_scale, four_samples, layer_by_layer, two_weights
from bnlib.experiments.objective import objective_and_evaluation as gap
from bnlib.models import mlp
from bnlib.samplers import FixedBatches


@pytest.mark.parametrize("construction", two_weights.CONSTRUCTIONS)
@pytest.mark.parametrize("batch_size", [2, 3, 6])
def test_the_surface_is_the_mean_over_the_batches_and_lowest_at_its_minimiser(construction, batch_size):
    x, classes, _ = (each.numpy() for each in two_weights.samples())
    surface = two_weights.surface(construction, batch_size)
    row, column = 5, 20
    weights = np.array([surface.axis[column], surface.axis[row]])
    means = []
    for batch in surface.batches.tolist():
        z = x[batch]
        z = (z - z.mean(0)) / np.sqrt(z.var(0) + two_weights.EPS)
        means.append(np.log1p(np.exp(-classes[batch] * (z @ weights))).mean())
    assert surface.values[row, column] == pytest.approx(np.mean(means), rel=1e-12)
    assert surface.minimum <= surface.values.min() + 1e-9
    assert len(surface.batches) == {"all subsets": math.comb(12, batch_size), "fixed": 12 // batch_size}.get(
        construction, 2 * math.comb(6, batch_size)
    )


def test_the_surface_at_batch_size_one_is_flat_and_nothing_moves():
    view = two_weights.lookup("all subsets", 1, 3.0)
    assert view.surface.minimiser is None and np.ptp(view.surface.values) < 1e-12
    assert np.ptp(view.path, axis=0).max() == 0


def test_descent_goes_down_the_gradient_of_its_batches():
    rates, batches = torch.tensor([0.5], dtype=torch.float64), two_weights.CONSTRUCTIONS["fixed"](6)[:1]
    iterates = list(two_weights.sgd_iterates(batches, rates, seed=0))
    start = iterates[0][0].requires_grad_()
    (gradient,) = torch.autograd.grad(two_weights.objective(start, batches), start)
    torch.testing.assert_close(iterates[1][0], start.detach() - 0.5 * gradient)
    done, total, view = list(two_weights.train("fixed", 3, 0.3))[-1]
    assert done == total == two_weights.STEPS and view.path.shape == (two_weights.STEPS + 1, 2)


@pytest.mark.parametrize("statistics", absorption.BATCHES)
def test_the_plain_network_is_that_of_the_chosen_statistics_and_of_no_others(statistics):
    for weight in absorption.WEIGHTS:
        pair = absorption.lookup(weight, statistics)
        assert pair.largest_difference(statistics) < 1e-12
        assert min(pair.largest_difference(name) for name in absorption.BATCHES if name != statistics) > 0.01


def test_in_batches_is_the_mean_over_batches_and_leaves_the_model(monkeypatch):
    model = mlp((64, 8, 10), "batch_norm", seed=0)
    x, y = torch.randn(12, 64, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 10
    batches = [torch.arange(4), torch.arange(4, 12)]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loss, wrong = gap._metrics_in_batches(model, x, y, batches)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    losses = [torch.nn.functional.cross_entropy(model(x[index]), y[index]).item() for index in batches]
    assert loss == pytest.approx(np.mean(losses), rel=1e-6) and 0 <= wrong <= 1


def test_the_fixed_batches_of_the_training_are_those_that_are_measured():
    labels = torch.arange(100) % 10
    first, again = (FixedBatches()(labels, 16, 3) for _ in range(2))
    assert all(torch.equal(next(first), next(again)) for _ in range(6))


def test_one_short_measurement(monkeypatch):
    monkeypatch.setitem(gap.EPOCHS, 64, 1)
    found = gap.EXPERIMENT.measure_once(("random", "one label", 64, "batch norm"), 0)
    assert set(found) == set(gap.EVALUATIONS) and all(
        len(each) == 2 and np.isfinite(each).all() for each in found.values()
    )


def test_the_figure_of_objective_and_evaluation_tells_what_it_shows():
    data = gap.lookup("random", "fixed", 16)
    told = figures.picture(figures.draw_objective_and_evaluation, data, "random", "fixed", 16).alt
    assert "batch norm 2.7, 53.9, 40.8," in told


def test_errors_by_signal_are_those_of_the_intervals():
    found = errors_by_input_scale.EXPERIMENT.measure_once(("batch norm", 20, 200, 400), 0)
    assert 0 <= found["test"] <= found["test_train_mode"] <= 1 and len(found["test_by_signal"]) == 4
    # The intervals hold about 10, 10, 20 and 60 per cent of the samples.
    assert abs(np.dot(found["test_by_signal"], (0.1, 0.1, 0.2, 0.6)) - found["test"]) < 0.1


def test_the_function_of_a_layer_contains_the_averages_of_the_layers_before():
    for batch, outputs in zip(layer_by_layer.BATCHES.values(), layer_by_layer.lookup().values(), strict=True):
        z = np.array(batch)
        for (weight, _), found in zip([(None, None), *layer_by_layer.LAYERS], outputs, strict=True):
            if weight is not None:
                factor, bias = weight[0].tolist()
                z = np.tanh(factor * (z - z.mean()) / z.std() + bias)
            np.testing.assert_allclose(found.on_batch, z, rtol=1e-9)
            np.testing.assert_allclose(found.on_shared, z[batch.index(layer_by_layer.SHARED)], rtol=1e-9)
    told = figures.picture(figures.draw_layer_by_layer, layer_by_layer.lookup()).alt
    assert "batch A: 1.00, 0.94, -0.77; batch B: 1.00, -0.80, 0.98" in told


def test_objective_4_is_the_mean_of_the_losses_and_objective_5_is_not():
    found = four_samples.averages()
    np.testing.assert_allclose(found.losses.mean(0), found.objective, rtol=1e-12)
    x, y = found.samples
    for number, (first, second) in enumerate([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]):
        mean, std = (x[first] + x[second]) / 2, abs(x[first] - x[second]) / 2
        np.testing.assert_allclose(found.functions[number], 0.5 * (found.inputs - mean) / std + 1.5, rtol=1e-9)
    normalised = (x - x.mean()) / x.std()
    expected = [np.mean((w * normalised + 1.5 - y) ** 2) for w in found.weights]
    np.testing.assert_allclose(found.objective_of_all, expected, rtol=1e-9)
    assert (
        "lowest at w = 0.833, and the full-batch objective at w = 1.072"
        in figures.picture(figures.draw_two_averages, found).alt
    )


def test_the_figure_of_memorised_labels_tells_what_is_right_and_not_what_is_wrong():
    shares = gap.random_labels_predicted()
    fixed = 100 - gap.errors("random", "fixed", 16, "batch norm", "reshuffled")
    np.testing.assert_array_equal(shares["batch norm, fixed batches"][1], fixed)
    told = figures.picture(figures.draw_memorised_labels, shares).alt
    assert "batch norm, fixed batches: 97, 46, 59 %;" in told


def test_the_label_of_the_figure_of_memorised_labels_is_not_cut_off():
    with figures.style():
        figure = figures.new_figure(6.6, 3.0)
        figures.draw_memorised_labels(figure, gap.random_labels_predicted())
        figure.draw_without_rendering()
        label = figure.axes[0].yaxis.label.get_window_extent()
    assert figure.bbox.y0 <= label.y0 and label.y1 <= figure.bbox.y1


def test_the_figure_of_minima_tells_weights_and_both_losses():
    minimum = two_weights.full_batch_minimum()
    told = figures.picture(figures.draw_minima, two_weights.surfaces(), minimum, 6).alt
    workers = two_weights.surface("one worker", 6)
    losses = f"losses {workers.minimum:.2f} and {workers.full_batch_loss:.2f}"
    first, second = workers.minimiser
    assert "at batch size 6" in told and f"one worker: ({first:.2f}, {second:.2f}), {losses};" in told
    assert "one label: (0.00, 0.00)" in told and f"loss {minimum[1]:.2f}" in told


def test_fixed_batches_leave_out_what_does_not_fill_one():
    batches = two_weights.CONSTRUCTIONS["fixed"](5)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    assert batches.tolist() == [order[:5].tolist(), order[5:10].tolist()]


def test_training_now_adds_both_networks_to_the_figure():
    setting = {"labels": "true", "construction": "shuffled", "batch_size": 64}
    first, *_, (done, total, data) = gap.train(**setting, device="cpu")
    assert first[:2] == (0, 2) and (done, total) == (2, 2) and first[2].keys() == set(gap.NORMS)
    found = data["batch norm, your run"]
    assert found.keys() == set(gap.EVALUATIONS) and found["test"].shape == (1, 2) and found["test"][0, 1] < 0.05
    told = figures.draw_objective_and_evaluation(figures.new_figure(7, 3), data, **setting)
    assert f"batch norm, your run {100 * found['objective'][0, 1]:.1f}, " in told
    *_, (_, _, again) = gap.train(**setting, device="cpu")
    assert (again["batch norm, your run"]["objective"] != found["objective"]).any()
