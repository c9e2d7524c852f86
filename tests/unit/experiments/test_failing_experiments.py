"""The experiments of chapter 7 do what their words say, and their figures can be drawn."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import BatchNorm, datasets, figures
from bnlib.experiments.failing import (
    broken_networks,
    evaluation_statistics,
    initial_gamma,
    input_scale,
    placement,
    published_examples,
)
from bnlib.experiments.failing.evaluation_statistics import MOMENTA, MicroBatchNorm
from bnlib.models import mlp


def twins(micro):
    """The same network with BN of micro-batches, and with plain BN."""
    ours = evaluation_statistics.network("batch norm", micro, 0).double()
    theirs = mlp(evaluation_statistics.SIZES, BatchNorm, seed=0).double()
    return ours, theirs


@pytest.mark.parametrize("micro", [2, 8, 32])
def test_micro_batches_are_accumulated_gradients(micro):
    ours, theirs = twins(micro)
    data = datasets.load("digits")
    x, y = data.train_x[:32].double(), data.train_y[:32]
    F.cross_entropy(ours(x), y).backward()
    for few, labels in zip(x.split(micro), y.split(micro), strict=True):
        (F.cross_entropy(theirs(few), labels) * micro / 32).backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("momentum", MOMENTA)
def test_the_averages_are_those_of_one_micro_batch_after_the_other(momentum):
    ours, theirs = twins(8)
    for layer in theirs:
        if isinstance(layer, BatchNorm):
            layer.momentum = momentum
    x = datasets.load("digits").train_x[:96].double()
    with torch.no_grad():
        for batch in x.split(32):
            ours(batch)
        for few in x.split(8):
            theirs(few)
    pairs = zip(ours, theirs, strict=True)
    for mine, its in ((a, b) for a, b in pairs if isinstance(a, MicroBatchNorm)):
        both = mine.averages[MOMENTA.index(momentum)]
        torch.testing.assert_close(both, torch.stack([its.running_mean, its.running_var]), rtol=1e-6, atol=1e-8)


def test_precise_statistics_are_those_that_update_bn_finds():
    model, data = evaluation_statistics.network("batch norm", 32, 0), datasets.load("digits")
    plain = mlp(evaluation_statistics.SIZES, nn.BatchNorm1d, seed=0)
    batches = list(data.train_x[:96].split(32))
    torch.optim.swa_utils.update_bn(batches, plain)
    evaluation_statistics._test_with_precise_statistics(model, data, batches)
    for a, b in zip(model, plain, strict=True):
        if isinstance(b, nn.BatchNorm1d):
            torch.testing.assert_close(a.running_mean, b.running_mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(a.running_var, b.running_var, rtol=1e-4, atol=1e-5)


def test_one_short_measurement_of_statistics(monkeypatch):
    monkeypatch.setitem(evaluation_statistics.CHECKPOINTS, 32, (1, 3))
    for norm in ("batch norm", "without normalisation"):
        found = evaluation_statistics.EXPERIMENT.measure_once((norm, 32, 32, 0.1), 0)
        assert np.array(found["running"]).shape == (2, len(MOMENTA), 2) and np.array(found["precise"]).shape == (2, 2)
        assert norm != "without normalisation" or np.ptp(np.array(found["running"]), axis=1).max() == 0
    # With the newest batch alone there is nothing of the start.
    assert evaluation_statistics.MOMENTA[0] == 1


def test_the_printed_examples_measure_four_losses_and_restore_the_statistics(monkeypatch):
    monkeypatch.setattr(published_examples, "EPOCHS", 2)
    found = published_examples.EXPERIMENT.measure_once(("BN, ReLU", "printed", 4, 1.0), 0)
    assert all(
        np.array(found[name]).shape == (2, published_examples.NETWORKS_PER_SEED) for name in published_examples.LOSSES
    )
    plain = published_examples.EXPERIMENT.measure_once(("without normalisation", "printed", 32, 1.0), 0)
    np.testing.assert_allclose(plain["printed_batches"], plain["eval_mode"], rtol=1e-3)
    np.testing.assert_allclose(plain["reshuffled_batches"], plain["eval_mode"], rtol=1e-3)
    generator = torch.Generator().manual_seed(0)
    printed = torch.arange(100).split(4)
    assert published_examples._batches_of_epoch("printed", printed, generator) is printed
    same = published_examples._batches_of_epoch("same batches", printed, generator)
    assert sorted(batch[0].item() for batch in same) == list(range(0, 100, 4)) and same[0].tolist() != [0, 1, 2, 3]
    dealt = torch.cat(published_examples._batches_of_epoch("shuffled", printed, generator))
    assert sorted(dealt.tolist()) == list(range(100)) and dealt[:4].sort().values.diff().max() > 1


def test_targets_have_variance_one_and_the_share_of_noise_they_say():
    generator = torch.Generator().manual_seed(0)
    for noise in published_examples.NOISE:
        x, y = published_examples._samples(20_000, noise, generator)
        assert y.var().item() == pytest.approx(1, rel=0.02)
        rest = y - (1 - noise) ** 0.5 * x[..., :4].sum(-1, keepdim=True) / 2
        assert rest.var().item() == pytest.approx(noise, abs=0.02)


def test_gamma_of_a_residual_network_is_set_at_the_end_of_branches_alone():
    model = initial_gamma.make("residual", 0.0, 0)
    blocks = [each for each in model if isinstance(each, initial_gamma.Block)]
    assert len(blocks) == 4
    assert all(not block.branch[4].weight.any() and (block.branch[1].weight == 1).all() for block in blocks)
    x = torch.randn(8, initial_gamma.WIDTH)
    assert torch.equal(blocks[0](x), x)
    plain = initial_gamma.make("BN, ReLU", 0.1, 0)
    assert all((each.weight == 0.1).all() for each in plain if isinstance(each, BatchNorm))


def test_gradients_are_named_by_layer_and_exactly_zero_behind_gamma_zero():
    found = initial_gamma.gradients("BN, ReLU", 0.0)
    assert {name for name, value in found.items() if value > 0} == {"b3"}
    assert set(found) == {"W1", "b1", "γ1", "β1", "W2", "b2", "γ2", "β2", "W3", "b3"}


def test_another_unit_is_another_eps_and_only_the_bias_is_left_out():
    data = datasets.load("digits")
    tiny = input_scale.scaled_digits(1e-3)
    torch.testing.assert_close(tiny.train_x, 1e-3 * data.train_x)
    net = input_scale.network("eps 1e-5, no bias", seed=0).double()
    assert net[1].bias is None and net[4].bias is None and net[-1].bias is not None
    other = copy.deepcopy(net)
    other[2].eps = 1e-5 / 1e-6
    torch.testing.assert_close(net(1e-3 * data.train_x[:32].double()), other(data.train_x[:32].double()))
    assert torch.equal(net[1].weight, input_scale.network("eps 1e-14, bias", seed=0).double()[1].weight)


def test_the_figures_can_be_drawn_and_say_what_is_to_be_seen():
    panels = {"BN": published_examples.load()["BN, ReLU", "printed", 4, 1.0]}
    assert (
        "reshuffled batches" in figures.picture(figures.draw_fixed_batches, panels, published_examples.CHECKPOINTS).alt
    )
    assert (
        "micro-batches of 2,"
        in figures.picture(
            lambda figure: figures.draw_micro_batches(figure, evaluation_statistics.by_micro_batch(2, 0.1), 2, 0.1)
        ).alt
    )
    assert (
        "82 %"
        in figures.picture(
            lambda figure: figures.draw_evaluation_statistics(
                figure, evaluation_statistics.by_momentum(0.1, 0.01), 0.1, 0.01
            )
        ).alt
    )
    view = initial_gamma.lookup("2 layers", 0.0)
    assert "exactly 0 in 7 of 7" in figures.picture(lambda f: figures.draw_initial_gamma(f, view, "BN, ReLU", 0.0)).alt
    ends = {(where, 1, lr): np.array([0.1, 0.2]) for where in ("before", "after") for lr in (0.1, 1.0)}
    assert "depth 1: 15.0, 15.0" in figures.picture(figures.draw_placement, ends).alt


def test_what_the_chapter_reads_of_the_results():
    assert set(initial_gamma.NETWORK_LABELS.values()) == set(initial_gamma.NETWORKS)
    train, test = evaluation_statistics.final_errors(2, 0.1)
    assert train.shape == test.shape == (5,) and 30 < np.median(train) < 50 and 8 < np.median(test) < 18
    row = evaluation_statistics.load()["batch norm", 32, 32, 0.1]
    expected = 100 * (row["running"][:, 4, 2, 1] - row["precise"][:, 4, 1])
    np.testing.assert_array_equal(evaluation_statistics.cost_of_running_averages(0.1, 0.1, 20), expected)
    ends, apart = placement.final_values("test_error"), placement.after_minus_before("test_error")
    np.testing.assert_array_equal(apart[1, 0.1], ends["after", 1, 0.1] - ends["before", 1, 0.1])
    medians = [np.median(ends["after", 8, lr]) for lr in placement.LEARNING_RATES]
    assert placement.best_median("test_error", "after", 8) == min(medians)


def test_the_recursion_of_the_variances_is_what_networks_do():
    for gamma in (1.0, 0.1, 0.01, 0.003):
        measured = initial_gamma.input_variances(gamma)
        np.testing.assert_allclose(measured, initial_gamma.predicted_variances(gamma, measured[0]), rtol=0.2)


def test_broken_networks_are_broken_and_the_healthy_one_is_not():
    models = broken_networks.wrong_modes()
    wrong = {
        name: [broken_networks.error_after_eval(model, size) for size in (360, 2)] for name, model in models.items()
    }
    assert {name for name, (many, few) in wrong.items() if few > many + 0.2} == {
        "HardCodedTraining",
        "LayersInList",
        "TrainInForward",
    }
    assert max(many for many, _ in wrong.values()) < 0.1
    assert len(broken_networks.loader()) == 16 and broken_networks.random_labels().train_y.shape == (256,)


def test_live_runs_are_drawn_beside_the_results():
    for train, draw, setting in (
        (initial_gamma.train, figures.draw_initial_gamma, {"network": "2 layers", "gamma": 0.1}),
        (evaluation_statistics.train_micro_batch, figures.draw_micro_batches, {"micro_batch_size": 8, "lr": 0.1}),
        (evaluation_statistics.train_momentum, figures.draw_evaluation_statistics, {"lr": 0.1, "momentum": 0.1}),
    ):
        run = train(**setting, device="cpu")
        for points in (1, 2):
            done, total, data = next(run)
            assert 0 < done < total and all(len(values) == points for values in data["live"].values())
        figures.picture(draw, data, *setting.values())
