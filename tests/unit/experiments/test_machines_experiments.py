"""Workers with shards of their own: what is simulated is what processes do, and what is judged is what it says."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import distributed, figures, models
from bnlib.experiments.machines import (
    averaging_paths,
    label_skew,
    local_statistics,
    local_steps,
    one_sample_per_worker,
    real_processes,
)
from bnlib.objective import model_objective
from bnlib.samplers import PerWorker, shards


def losses(outputs, labels):
    return F.cross_entropy(outputs, labels, reduction="none")


def test_skew_is_the_share_of_own_labels():
    labels = label_skew.digits().train_y
    for skew in (0.0, 0.5, 1.0):
        dealt = shards(labels, 10, skew, torch.Generator().manual_seed(0))
        assert len(torch.cat(dealt).unique()) == 10 * len(dealt[0]) == 1430
        most = np.mean([labels[shard].bincount().max() / len(shard) for shard in dealt])
        assert most == pytest.approx(skew + (1 - skew) / 10, abs=0.06)
    with pytest.raises(ValueError, match=r"skew must be a finite number, .*, got 1\.5"):
        PerWorker(0, 2, skew=1.5)


@pytest.mark.parametrize(("method", "synchronised"), [("local BN", False), ("SyncBN", True), ("layer norm", True)])
def test_a_step_goes_down_the_gradient_of_objective_4(method, synchronised):
    """With local statistics over the batches of the workers, with synchronised ones over the global batch."""
    data, lr = label_skew.digits(), 0.1
    ((_, models),) = label_skew.simulate(method, 4, 1.0, 0, batch_size=20, steps=1, lr=lr)
    batches = [next(PerWorker(rank, 4, skew=1.0)(data.train_y, 20, 0)) for rank in range(4)]
    batches = [torch.cat(batches)] if synchronised else batches
    model = label_skew.network(label_skew.METHODS[method].norm, 0)
    model_objective(model, losses, data.train_x, data.train_y, batches).backward()
    for trained in models:
        for before, after in zip(model.parameters(), trained.parameters(), strict=True):
            torch.testing.assert_close(after.detach(), before.detach() - lr * before.grad, rtol=0, atol=1e-12)


def test_processes_do_what_is_simulated():
    methods = list(label_skew.METHODS)
    settings = [(method, False) for method in methods]
    done = real_processes.run(settings, 2, 0.9, 3, batch_size=40, steps=5)
    for number, method in enumerate(methods):
        ((_, models),) = label_skew.simulate(method, 2, 0.9, 3, batch_size=40, steps=5, lr=0.1)
        assert real_processes.largest_difference([each["state"] for each in done[number]], models) < 1e-10, method
        messages, sent = done[number][0]["statistics"]
        # Two layers of 100 channels, forward and backward: a count and two float64 numbers a channel.
        expected = (4, 4 * 8 * 201) if method in ("SyncBN", "shared FN") else (0, 0)
        assert (messages, sent) == expected, method


def fail(_):
    if distributed.rank_and_world_size()[0] == 1:
        raise ValueError("as told")
    return distributed.mean_over_processes(torch.ones(1)).item()


def test_an_error_in_one_process_reaches_the_caller():
    with pytest.raises(Exception, match=r"as told|Connection|closed"):
        distributed.run_in_processes(fail, 2, 0)


def test_statistics_of_all_workers_are_put_together():
    models = []
    for mean, variance in ((1.0, 2.0), (3.0, 4.0)):
        model = nn.Sequential(nn.BatchNorm1d(1)).eval()
        model[0].running_mean.fill_(mean)
        model[0].running_var.fill_(variance)
        models.append(model)
    for between, variance in ((False, 3.0), (True, 4.0)):
        found = label_skew.averaged(models, between=between)[0]
        assert (found.running_mean.item(), found.running_var.item()) == (2.0, variance)
    assert models[0][0].running_mean.item() == 1.0


@pytest.mark.parametrize("method", ["local BN", "shared FN"])
def test_recomputed_statistics_are_those_of_the_batch(method):
    model = label_skew.network(label_skew.METHODS[method].norm, 0)
    x = label_skew.digits().train_x
    with torch.no_grad():
        found, inputs = label_skew.recomputed(model, x), copy.deepcopy(model)[1](x.flatten(1))
    torch.testing.assert_close(found[2].running_mean.double(), inputs.mean(0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found[2].running_var.double(), inputs.var(0), rtol=1e-3, atol=1e-6)


def test_what_lies_between_workers_goes_with_the_square_of_the_skew():
    for workers in local_statistics.WORKERS:
        for skew in local_statistics.SKEWS:
            view = local_statistics.lookup(workers, skew)
            assert (view.shares - view.predicted).abs().mean() < 0.02
            torch.testing.assert_close(
                view.local_norm.mean(1), torch.zeros(workers, dtype=torch.float64), rtol=0, atol=1e-9
            )
            assert view.global_norm.mean().abs() < 1e-9


def test_short_measurements(monkeypatch):
    monkeypatch.setattr(label_skew, "STEPS", 3)
    monkeypatch.setattr(one_sample_per_worker, "STEPS", 3)
    found = label_skew.EXPERIMENT.measure_once(("local BN", 2, 1.0), 0)
    assert set(found) == set(label_skew.EVALUATIONS) and all(0 <= value <= 1 for value in found.values())
    assert set(one_sample_per_worker.EXPERIMENT.measure_once(("SyncBN", 2, 0.05), 0)) == {"test_error", "recomputed"}
    done, total, shown = next(label_skew.train(2, 0.5))
    assert done <= total == 3 and "local BN, your run" in shown and "local BN" in shown


def test_errors_in_train_mode_are_told_apart_by_the_label_that_fills_the_batch():
    """A model that knows the first two digits only: on workers with one digit each, no other digit is known."""

    class Knows(nn.Module):
        def __init__(self):
            super().__init__()
            self.labels = {tuple(x.flatten().tolist()): y for x, y in zip(data.train_x, data.train_y, strict=True)}

        def forward(self, x):
            answers = [self.labels[tuple(each.flatten().tolist())] for each in x]
            return F.one_hot(torch.stack(answers).clamp(max=1), 10).double()

    data = label_skew.digits()
    found = label_skew.train_mode_errors([Knows()] * 10, 8, 1.0, 0)
    assert found["most frequent label"] == pytest.approx(0.8, abs=0.02)
    # The few others in a batch are neighbours: those of one worker with a known label are an exception.
    assert found["all other labels"] > 0.6


def averaged_models(monkeypatch, method, settings, steps):
    """The models of each setting after a few steps of federated averaging at label skew 1, with seed 0."""
    monkeypatch.setattr(local_steps, "STEPS", steps)
    ((done, trained),) = local_steps.simulate(method, "labels", 1.0, 0, settings)
    assert done == steps
    return trained


def trained_alone(method, rank, rates):
    """The same by hand: the network of one worker after a step of its own with each rate."""
    data, sampler = local_steps.digits(), PerWorker(rank, local_steps.WORKERS, skew=1.0)
    model = models.mlp(local_steps.SIZES, local_steps.METHODS[method].norm, seed=0)
    batches = sampler(data.train_y, local_steps.BATCH_SIZE, 0)
    for rate in rates:
        index = next(batches)
        loss = F.cross_entropy(model(data.train_x[index]), data.train_y[index])
        gradients = torch.autograd.grad(loss, model.parameters())
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= rate * gradient
    return model


def close(found, expected, name):
    torch.testing.assert_close(found.state_dict()[name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["BN", "FedBN", "group norm"])
def test_federated_averaging_is_the_mean_of_what_the_workers_learn_alone(monkeypatch, method):
    """Two local steps, then the average; FedBN keeps its BN layers, and all settings are trained independently."""
    trained = averaged_models(monkeypatch, method, [(2, 0.3), (1, 0.1), (2, 0.1)], steps=2)
    alone = [trained_alone(method, rank, (0.1, 0.01)) for rank in range(local_steps.WORKERS)]
    for name in alone[0].state_dict():
        each = torch.stack([model.state_dict()[name].float() for model in alone])
        kept = method == "FedBN" and name.startswith(("2.", "5."))
        for rank, model in enumerate(trained[2]):
            if "num_batches" not in name:
                close(model, each[rank] if kept else each.mean(0), name)


def test_fixed_statistics_stay_those_of_the_first_half(monkeypatch):
    half = averaged_models(monkeypatch, "BN", [(1, 0.1)], steps=2)[0][0]
    whole = averaged_models(monkeypatch, "FixBN", [(1, 0.1)], steps=4)[0][0]
    for name, value in half.state_dict().items():
        assert torch.equal(whole.state_dict()[name], value) == ("running" in name or "num_batches" in name), name


def test_images_of_a_worker():
    x = local_steps.digits().test_x[:4]
    assert torch.equal(local_steps.worker_images(x, 3, 0.0), x)
    # A blank image shows the brightness alone; all contrasts, the middle one being 1, have a partner.
    blank, white = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    levels = [local_steps.worker_images(blank, rank, 1.0).unique().item() for rank in range(5)]
    spans = [local_steps.worker_images(white, rank, 1.0)[0, 0, 3, 3].item() - levels[rank] for rank in range(5)]
    assert sorted(levels) == pytest.approx([-0.5, -0.25, 0, 0.25, 0.5])
    assert sorted(spans) == pytest.approx([1 / 3, 3**-0.5, 1, 3**0.5, 3], rel=1e-4)


def test_own_images_are_judged_by_the_worker_whose_they_are():
    """Models that know one answer only: each is right on its worker's labels, and the others are wrong about them."""

    def answering(digit):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        nn.init.zeros_(model[1].weight)
        model[1].bias.data = F.one_hot(torch.tensor(digit), 10).float()
        return model

    found = local_steps.evaluate([answering(2 * rank) for rank in range(5)], "labels", 1.0, 0)
    assert found["own_error"] == pytest.approx(0.5, abs=0.05) and found["test_error"] == pytest.approx(0.9, abs=0.02)
    same = local_steps.evaluate([answering(3) for _ in range(5)], "labels", 1.0, 0)
    assert same["own_error"] == pytest.approx(same["test_error"]) == pytest.approx(same["recomputed_error"])


def test_each_arm_has_its_own_best_rate():
    arm, where = "FedBN, own images", ("labels", 1.0, 16)
    rates = local_steps.METHODS["FedBN"].rates
    medians = [np.median(local_steps.load()["FedBN", *where, lr]["own_error"]) for lr in rates]
    assert np.median(local_steps.errors(arm, *where)) == pytest.approx(100 * min(medians))
    assert np.array_equal(local_steps.errors("BN", "images", 0.0, 4), local_steps.errors("BN", "labels", 0.0, 4))


def test_figures_tell_what_they_show():
    view = local_statistics.lookup(10, 1.0)
    assert "10 workers, skew 1" in figures.picture(figures.draw_local_statistics, view, 10, 1.0).alt
    data = label_skew.lookup(4, 1.0)
    median = 100 * np.median(data["local BN"]["worker_0"])
    federated = local_steps.lookup("images", 1.0, 16)
    told = f"image skew 1, 16 local steps. Median test errors in per cent: BN {np.median(federated['BN'][16]):.1f}"
    assert told in figures.picture(figures.draw_local_steps, federated, "images", 1.0, 16).alt
    assert f"local BN {median:.1f}" in figures.picture(figures.draw_label_skew, data, 4, 1.0).alt


def test_rows_of_local_steps_hold_the_errors_at_the_best_rate():
    rows = {row["method"]: row for row in local_steps.error_rows([("labels", 0.75), ("images", 1.0)], (1, 16))}
    assert list(rows) == list(local_steps.ARMS)
    rate = local_steps.best_rate("FedBN, own images", "images", 1.0, 16)
    found = local_steps.load()["FedBN", "images", 1.0, 16, rate]
    assert list(rows["FedBN, own images"]["images, skew 1", "16 local steps"]) == list(100 * found["own_error"])
    assert ("labels, skew 0.75", "1 local step") in rows["BN"]


def test_the_paths_of_the_weights_start_at_the_averages():
    data = averaging_paths.weight_paths()
    torch.testing.assert_close(data.workers[:, 0], data.averages[:-1, None].expand(-1, 5, -1))
    torch.testing.assert_close(data.workers[:, -1].mean(1), data.averages[1:], rtol=0, atol=1e-5)
    moved = data.averages.diff(dim=0).norm(dim=1)
    drifted = (data.workers[:, -1] - data.workers[:, 0]).norm(dim=2)
    assert moved.max() < drifted.min() / 3, "the average moves little in the plane"
    assert data.moved[averaging_paths.ROUND] < data.moved[1] / 2, "chapter 10, below figure 10.4"
    assert np.all(np.diff(list(data.moved.values())) < 0), "the longer the rounds, the less the average moves"
    every_step, rounds = data.distances[1], data.distances[averaging_paths.ROUND]
    assert rounds[16] < 0.6 * rounds[15] and (rounds[:16].diff() > 0).all() and every_step.max() == every_step[0]
    alt = figures.picture(figures.draw_averaging_paths, data).alt
    assert alt.endswith(
        f"1: {every_step.max():.2f}, 4: {data.distances[4].max():.2f}, 16: {rounds.max():.2f}, 64: 0.20."
    )


def test_the_first_distance_is_the_spread_of_the_gradients():
    digits = local_steps.digits()
    gradients = []
    for rank in range(5):
        model = models.mlp(local_steps.SIZES, local_steps.METHODS["BN"].norm, seed=0)
        index = next(PerWorker(rank, 5, skew=1.0)(digits.train_y, local_steps.BATCH_SIZE, 0))
        F.cross_entropy(model(digits.train_x[index]), digits.train_y[index]).backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
    start = torch.cat([weight.detach().flatten() for weight in model.parameters()])
    spread = (torch.stack(gradients) - torch.stack(gradients).mean(0)).norm(dim=1).mean()
    expected = averaging_paths.LEARNING_RATE * spread / start.norm()
    assert averaging_paths.weight_paths().distances[1][0].item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_drawing_shows_the_batch_of_each_worker():
    images = np.random.default_rng(0).random((2, 3, 8, 8))
    shown = {"worker 0": images[0], "worker 1": images[1]}
    with figures.style():
        figure = figures.new_figure(7, 2)
        alt = figures.draw_batches_of_workers(figure, shown)
    assert alt.startswith("The images of one step, 3 for each of 2 workers")
    assert [axes.get_title() for axes in figure.axes] == ["local BN: 2 batches", "SyncBN: one batch"]
    assert [len(axes.patches) for axes in figure.axes] == [2, 1]
    drawn = figure.axes[0].images[0].get_array()
    assert np.allclose(drawn[14:22, 11:19], images[1, 1])
