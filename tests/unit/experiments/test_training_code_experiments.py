"""The experiments of chapter 11: fine-tuning, and averages of weights."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from bnlib import BatchNorm, FullNorm, datasets
from bnlib.experiments.training_code import averaged_weights, fine_tuning
from bnlib.samplers import shuffled
from bnlib.training import error_rate

AT_THE_EDGE = {
    # Training does more harm than good, so the best rate is the one that trains least.
    "lowest": {("darker", "train mode", 2), ("darker", "re-estimated, then frozen", 1)},
    # One value per channel: no rate trains the layers below.
    "highest": {("transposed", "train mode", 1), ("inverted", "train mode", 1), ("transposed", "Batch Renorm", 1)},
}


def norms(model):
    return [layer for layer in model.modules() if isinstance(layer, BatchNorm)]


def test_pretraining_has_not_seen_the_new_images_and_the_test_images_are_shifted_as_they_are():
    original, data = datasets.load("digits"), fine_tuning.new_images("inverted", seed=0)
    _, index = fine_tuning.pretrained(0)
    assert len(set(index.tolist())) == len(data.train_x) == fine_tuning.IMAGES
    torch.testing.assert_close(data.train_x, 1 - original.train_x[index])
    torch.testing.assert_close(data.test_x, 1 - original.test_x)
    turned = fine_tuning.new_images("transposed", seed=0)
    assert torch.equal(turned.test_x[3, 0], original.test_x[3, 0].T)


def test_the_network_is_pretrained_on_the_images_that_are_left(monkeypatch):
    seen = {}
    monkeypatch.setattr(fine_tuning, "fit", lambda model, data, **settings: seen.update(data=data))
    _, index = fine_tuning.pretrained.__wrapped__(0)
    original = datasets.load("digits")
    both = torch.cat([seen["data"].train_x, original.train_x[index]]).flatten(1)
    assert torch.equal(both.sum(0), original.train_x.flatten(1).sum(0)) and len(both) == len(original.train_x)


@pytest.mark.parametrize("arm", ["train mode", *fine_tuning.FROZEN])
def test_each_arm_is_sgd_by_hand_on_what_it_trains(arm, monkeypatch):
    monkeypatch.setattr(fine_tuning, "STEPS", 3)
    data, rates = fine_tuning.new_images("darker", seed=0), (0.01, 0.1)
    model = fine_tuning.prepared(arm, data, seed=0)
    tuned = fine_tuning.fine_tune(model, arm, data, 4, seed=1, rates=rates)[1]
    model.train()
    if arm != "train mode":
        for layer in norms(model):
            layer.eval().requires_grad_("too" not in arm)
    optimiser, batches = (
        torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1),
        iter(shuffled(data.train_y, 4, 1)),
    )
    for _ in range(3):
        index = next(batches)
        optimiser.zero_grad()
        F.cross_entropy(model(data.train_x[index]), data.train_y[index]).backward()
        optimiser.step()
    for (name, ours), theirs in zip(tuned.state_dict().items(), model.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=f"{arm}: {name}", atol=1e-5, rtol=1e-4)


def test_an_arm_keeps_what_it_freezes_and_re_estimates_from_the_new_images(monkeypatch):
    monkeypatch.setattr(fine_tuning, "STEPS", 2)
    data, before = fine_tuning.new_images("darker", seed=0), fine_tuning.pretrained(0)[0]
    moved = {}
    for arm in fine_tuning.ARMS[:4]:
        start = fine_tuning.prepared(arm, data, seed=0)
        after = fine_tuning.fine_tune(start, arm, data, 4, seed=0)[3]
        pairs = list(zip(norms(start), norms(after), strict=True))
        moved[arm] = [
            not all(torch.equal(getattr(one, name), getattr(two, name)) for one, two in pairs)
            for name in ("running_mean", "running_var", "weight", "bias")
        ]
    assert moved["train mode"] == [True] * 4
    assert moved["frozen"] == moved["re-estimated, then frozen"] == [False, False, True, True]
    assert moved["frozen, gamma and beta too"] == [False] * 4
    inputs = before[1](data.train_x.flatten(1)).detach()
    torch.testing.assert_close(
        norms(start := fine_tuning.prepared(fine_tuning.FROZEN[2], data, 0))[0].running_mean, inputs.mean(0)
    )
    assert not any(layer.training for layer in norms(start))


def test_in_batches_of_one_train_mode_changes_little_more_than_the_running_means():
    """The layers before the last BN learn nothing, and the new running means alone help on darker digits."""
    fixed = ["1.weight", "1.bias", "2.weight", "2.bias", "4.weight", "4.bias", "5.weight"]
    fixed += ["2.running_var", "5.running_var"]
    errors, before = [], []
    for seed in fine_tuning.SEEDS["quick"]:
        data = fine_tuning.new_images("darker", seed)
        start = fine_tuning.prepared("train mode", data, seed)
        untrained, tuned = fine_tuning.fine_tune(start, "train mode", data, 1, seed, rates=(0.0, 0.3))
        states = start.state_dict(), tuned.state_dict()
        changed = {name for name in states[0] if not torch.equal(states[0][name], states[1][name])}
        assert changed - {name for name in changed if "num_batches" in name} == {
            "2.running_mean", "5.running_mean", "5.bias", "7.weight", "7.bias"
        }  # fmt: skip
        assert not changed & set(fixed)
        errors.append(100 * error_rate(untrained, data.test_x, data.test_y))
        before.append(100 * error_rate(start, data.test_x, data.test_y))
    assert 8.55 < np.median(errors) < 8.65 and 47.5 < np.median(before) < 48.5


def test_best_rates_of_fine_tuning_lie_inside_the_grid_or_are_named():
    """The lowest rates are best where training does harm; the text says so."""
    found = {"lowest": set(), "highest": set()}
    for arm, best in fine_tuning.best().items():
        if best.edge:
            found[best.edge].add(arm)
    assert found == AT_THE_EDGE


def test_rows_have_the_errors_at_the_best_rate():
    (row,) = fine_tuning.error_rows("transposed", ["frozen"], [2])
    cell = fine_tuning.load()["transposed", "frozen", 2]["test_error"]
    assert row["batch norm"] == "frozen"
    assert np.median(row["batch size", "2"]) == pytest.approx(100 * np.median(cell, 0).min())
    assert fine_tuning.errors_by_shift()["darker"].keys() == set(fine_tuning.MAIN_ARMS)


@pytest.fixture
def wandering():
    """Networks with BN as training might leave them one after the other, the buffers included."""
    torch.manual_seed(0)
    models = []
    for step in range(6):
        model = nn.Sequential(nn.Linear(3, 4), BatchNorm(4))
        model[1].running_mean.normal_()
        model[1].running_var.uniform_(0.5, 2)
        model[1].num_batches_tracked += step
        models.append(model)
    return models


@pytest.mark.parametrize("name", averaged_weights.AVERAGES)
def test_an_average_is_what_its_name_says_of_weights_and_of_statistics(name, wandering):
    average = averaged_weights.averaged_models(wandering[0])[name]
    for model in wandering:
        average.update_parameters(model)
    values = [torch.cat([model[0].weight.detach().flatten(), model[1].running_var]) for model in wandering]
    expected = values[0]
    for count, value in enumerate(values[1:], 1):
        kept = {
            averaged_weights.SWA: count / (count + 1),
            averaged_weights.WARM_UP: min(0.999, (1 + count) / (10 + count)),
        }.get(name) or float(name.removeprefix("EMA "))
        expected = kept * expected + (1 - kept) * value
    ours = torch.cat([average.module[0].weight.detach().flatten(), average.module[1].running_var])
    torch.testing.assert_close(ours, expected)


def test_copied_statistics_are_those_of_the_last_network_under_the_averaged_weights(wandering):
    one, two = wandering[:2]
    copied = averaged_weights.with_buffers_of(one, two)
    assert torch.equal(copied[0].weight, one[0].weight)
    assert torch.equal(copied[1].running_var, two[1].running_var) and not torch.equal(
        one[1].running_var, two[1].running_var
    )
    # It is what PyTorch does by default.
    average = AveragedModel(one)
    for model in (one, two):
        average.update_parameters(model)
    assert torch.equal(average.module[1].running_var, two[1].running_var)


def test_the_variance_ratio_is_how_many_times_too_large_the_variances_are(wandering):
    wrong = copy.deepcopy(wandering[0])
    wrong[1].running_var *= 3
    assert averaged_weights.variance_ratio(wrong, wandering[0]) == pytest.approx(3)
    assert np.isnan(averaged_weights.variance_ratio(nn.Linear(2, 2), nn.Linear(2, 2)))


def test_swa_is_tested_only_after_it_has_begun_and_a_short_run_ends_with_the_last_checkpoint():
    row = averaged_weights.load()["batch norm", 0.1]
    swa = averaged_weights.AVERAGES.index(averaged_weights.SWA)
    begun = [epoch >= averaged_weights.SWA_START for epoch in averaged_weights.CHECKPOINTS]
    for statistics in averaged_weights.STATISTICS:
        assert (np.isfinite(row[statistics][:, :, swa]).all(0) == begun).all()
        assert np.isfinite(np.delete(row[statistics], swa, 2)).all()
    assert averaged_weights.CHECKPOINTS[-1] == averaged_weights.EPOCHS


def test_layer_norm_has_no_statistics_that_could_be_wrong():
    row = averaged_weights.load()["layer norm", averaged_weights.CONTROL_RATE]
    for statistics in averaged_weights.STATISTICS[1:]:
        np.testing.assert_array_equal(row[statistics], row["copied"])


def test_rows_of_averages_have_the_errors_of_their_epoch_and_statistics():
    rows = averaged_weights.error_rows("batch norm", 0.1, 5, ["EMA 0.99"])
    expected = 100 * averaged_weights.load()["batch norm", 0.1]["averaged"][:, 2, 1]
    np.testing.assert_array_equal(rows[0]["running statistics", "averaged"], expected)
    assert set(averaged_weights.lookup("EMA 0.99", 0.1)) == {"last", *averaged_weights.STATISTICS}
    np.testing.assert_array_equal(100 * averaged_weights.lookup("EMA 0.99", 0.1)["averaged"][:, 2], expected)


def test_a_live_run_stands_beside_the_committed_ones(monkeypatch):
    monkeypatch.setattr(averaged_weights, "EPOCHS", 2)
    *_, (done, total, data) = averaged_weights.train("EMA 0.9", 0.1)
    assert done == total and len(data["copied, your run"]) == 2 and data["copied, your run"][-1] < 0.3


def test_recomputed_statistics_also_fit_full_norm():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), FullNorm(5))
    x = datasets.load("digits").train_x
    right = averaged_weights.recomputed(model, x)
    torch.testing.assert_close(right[2].running_var, right[:2](x).detach().var(0, correction=0))
