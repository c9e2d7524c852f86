"""The numbers of the monitor are those of the layers, and go where loggers want them."""

import csv
import io
import math

import numpy as np
import pytest
import torch
from monitored_networks import batches, convolutional, perceptron, train
from torch import nn

import bnlib
from bnlib import models, probes
from bnlib.doctor.layer_statistics import PooledStatistics
from bnlib.doctor.running_averages import distance as distance_of_the_doctor
from bnlib.monitor.layer_states import Snapshot, batch_between
from bnlib.monitor.quantities import distance


@pytest.mark.parametrize("momentum", [0.1, 0.01, 0.9, None])
@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (5.0, 0.1), (-20.0, 3.0)])
def test_two_states_tell_the_statistics_of_the_batch(momentum, offset, scale):
    layer = nn.BatchNorm2d(4, momentum=momentum)
    inputs = [offset + scale * torch.randn(6, 4, 3, 3) for _ in range(5)]
    for x in inputs[:-1]:
        layer(x)
    before = Snapshot({"a": layer}).states()["a"]
    layer(inputs[-1])
    found = batch_between(layer, before, Snapshot({"a": layer}).states()["a"], 54)
    variance, mean = torch.var_mean(inputs[-1].double(), (0, 2, 3))
    assert np.allclose(found.mean, mean, rtol=1e-4, atol=1e-4 * scale)
    assert np.allclose(found.variance, variance, rtol=1e-3)


def test_two_batches_between_two_states_tell_nothing():
    layer = nn.BatchNorm1d(4)
    before = Snapshot({"a": layer}).states()["a"]
    for _ in range(2):
        layer(torch.randn(8, 4))
    assert batch_between(layer, before, Snapshot({"a": layer}).states()["a"], 8) is None


@pytest.mark.parametrize("channels", [1, 4, 7])
def test_the_distance_is_that_of_the_doctor(channels):
    layer, (mean, other) = nn.BatchNorm1d(channels), torch.randn(2, channels).double()
    variance, target = torch.rand(2, channels).double()
    theirs = distance_of_the_doctor(layer, mean, variance, PooledStatistics(9, other, target, target))
    ours = distance(mean.numpy(), variance.numpy(), other.numpy(), target.numpy(), layer.eps)
    assert [ours.value, ours.means, ours.factor] == pytest.approx([theirs.value, theirs.means, theirs.factor])


def last(monitor):
    return {row["layer"]: row for row in monitor.log if row["step"] == monitor.log[-1]["step"]}


@pytest.mark.parametrize("make", [perceptron, convolutional])
def test_each_quantity_of_a_plain_training_is_measured(make):
    model = make()
    with bnlib.Monitor(model, every=10, warn=False) as monitor:
        train(model, steps=42)
    assert [row["step"] for row in monitor.log if row["layer"] == monitor.log[0]["layer"]] == [2, 12, 22, 32, 42]
    for row in last(monitor).values():
        assert set(row) == {"step", "layer", *bnlib.monitor.QUANTITIES}
        assert all(math.isfinite(value) for value in list(row.values())[2:]), row
        assert row["updates"] == row["calls"] == row["train_mode"] == 1 and row["non_finite"] == 0
        assert row["values_per_channel"] == (32 if make is perceptron else 192)
        assert row["initial_weight"] == pytest.approx(0.9**42)
        assert row["distance"] < 0.5 and row["between_batches"] < 0.1


@pytest.mark.parametrize("norm", ["full_norm", "batch_renorm", "batch_norm"])
def test_layers_are_measured_whatever_way_their_statistics_move(norm):
    model = models.mlp((6, 8, 3), norm)
    with bnlib.Monitor(model, every=5) as monitor:
        train(model, steps=60)
    (row,) = last(monitor).values()
    assert row["distance"] < 0.5 and row["variance_over_eps"] > 1000


def test_a_layer_without_running_statistics_is_measured_at_its_input():
    model = nn.Sequential(nn.BatchNorm1d(6, track_running_stats=False))
    with bnlib.Monitor(model, every=2) as monitor:
        train(model, steps=4)
    row = last(monitor)["0"]
    assert math.isnan(row["distance"]) and 1e4 < row["variance_over_eps"] < 1e6


def test_passes_that_are_no_training_do_not_count():
    model, other = perceptron(), torch.randn(8, 6)
    with bnlib.Monitor(model, every=3) as monitor:
        for x in batches(7):
            train(model, inputs=[x])
            model.eval()(other).sum().backward()
            with torch.no_grad():
                model(other)
            probes.batch_dependence(model.train(), other)
            torch.func.vmap(model.eval())(other.view(2, 4, 6))
            model.train()
    assert monitor.step == 7


def test_the_first_norm_layer_counts_where_only_parts_of_the_model_are_called():
    model = nn.ModuleDict({"first": perceptron(), "second": nn.BatchNorm1d(3)})
    with bnlib.Monitor(model, every=3) as monitor:
        for x in batches(7):
            model["second"](model["first"](x)).sum().backward()
    assert monitor.step == 7 and {row["layer"] for row in monitor.log} == {"first.1", "first.4", "second"}
    assert all(row["calls"] == 1 for row in monitor.log)


def test_the_step_can_be_that_of_a_checkpoint():
    model = perceptron()
    with bnlib.Monitor(model, every=4) as monitor:
        monitor.step = 1000
        train(model, steps=5)
    assert monitor.step == 1005 and [row["step"] for row in monitor.log] == [1002] * 2 + [1005] * 2


def test_the_numbers_go_to_a_function_a_writer_and_a_table():
    class Writer:
        def __init__(self):
            self.written = {}

        def add_scalar(self, name, value, step):
            self.written[name, step] = value

    seen, writer = [], Writer()
    for to in (lambda scalars, step: seen.append((step, scalars)), writer):
        model = perceptron()
        with bnlib.Monitor(model, every=4, to=to) as monitor:
            train(model, steps=9)
    assert [step for step, _ in seen] == [2, 6, 9]
    assert seen[-1][1] == monitor.scalars() and monitor.scalars()["batch_norm_updates/1"] == 1.0
    assert {step for _, step in writer.written} == {2, 6, 9}
    assert writer.written["batch_norm_gamma/4", 9] == monitor.scalars()["batch_norm_gamma/4"]
    table = io.StringIO()
    rows = csv.DictWriter(table, monitor.log[0].keys())
    rows.writeheader()
    rows.writerows(monitor.log)
    assert len(table.getvalue().splitlines()) == 1 + 3 * 2
    assert {type(value) for row in monitor.log for value in row.values()} == {int, str, float}


def test_before_the_first_step_there_is_nothing():
    monitor = bnlib.Monitor(perceptron())
    assert (monitor.log, monitor.findings, monitor.scalars(), monitor.step) == ([], [], {}, 0)
    assert "saw no training pass" in str(monitor.report())
    with pytest.raises(ValueError, match=r"must have measured something .* got an empty log"):
        monitor.plot()


def test_the_figure_has_a_panel_for_each_quantity_and_names_layers_and_findings():
    model = perceptron()
    with bnlib.Monitor(model, every=4, warn=False) as monitor:
        train(model, inputs=[*batches(9), torch.full((32, 6), torch.inf), *batches(3)])
    picture = monitor.plot(("distance", "gamma", "updates"))
    assert picture.html.count("<svg viewBox") - picture.html.count('class="bnb-legend"') >= 3
    assert "non-finite-values in layer 1 at step 10" in picture.alt and picture.svg.startswith("<svg")
    with pytest.raises(ValueError, match=r"quantities must be one of .*'gamma'.* got 'gama'; did you mean 'gamma'\?"):
        monitor.plot(["gama"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (nn.Linear(2, 2), "model must have a layer with batch statistics, .* got Linear with 1 modules"),
        (nn.LazyBatchNorm1d(), "model must have initialised parameters, .* run a batch first"),
        (nn.Sequential(nn.LayerNorm(2), nn.InstanceNorm1d(2)), "model must have a layer with batch statistics"),
    ],
)
def test_a_model_that_cannot_be_watched_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        bnlib.Monitor(wrong)


def test_a_compiled_model_is_watched_by_its_buffers():
    torch._dynamo.reset()
    model = torch.compile(perceptron(), backend="eager")
    with bnlib.Monitor(model, every=5, warn=False) as monitor:
        train(model, inputs=[*batches(40), torch.full((32, 6), torch.inf)])
    # The wrapper that torch.compile returns runs its hooks outside of the compiled code.
    assert monitor.step == 41 and [each.evidence[:14] for each in monitor.findings] == ["Since step 41,"] * 2
    row = monitor.log[-4]
    assert row["distance"] < 0.5 and row["updates"] == 1 and math.isnan(row["calls"])
    assert "2 of 2 norm layers are compiled" in str(monitor.report())


def test_a_monitor_that_cannot_see_the_passes_says_so():
    torch._dynamo.reset()
    model = perceptron()
    monitor = bnlib.Monitor(model)
    train(torch.compile(model, backend="eager", fullgraph=True), steps=3)
    assert "perhaps the model was compiled after" in str(monitor.report())
    with pytest.warns(UserWarning, match="saw no training pass.* model = torch.compile"):
        monitor.remove()
    model.compile(backend="eager")
    with pytest.raises(
        ValueError, match=r"model must be compiled by torch.compile, .* got .*: use model = torch.compile"
    ):
        bnlib.Monitor(model)
