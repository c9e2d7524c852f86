"""Workers with shards of their own: what is simulated is what processes do, and what is judged is what it says."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import distributed, figures
from bnlib.experiments.machines import label_skew, local_statistics, one_sample_per_worker, real_processes
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
    with pytest.raises(ValueError, match=r"skew must lie between 0 and 1, got 1\.5"):
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
    assert set(one_sample_per_worker.EXPERIMENT.measure_once(("SyncBN", 2), 0)) == set(label_skew.EVALUATIONS) - {
        "train_mode"
    }
    done, total, shown = next(label_skew.train(2, 0.5))
    assert done <= total == 3 and "local BN, your run" in shown and "local BN" in shown


def test_figures_tell_what_they_show():
    view = local_statistics.lookup(10, 1.0)
    assert "10 workers, skew 1" in figures.picture(figures.draw_local_statistics, view, 10, 1.0).alt
    data = label_skew.lookup(4, 1.0)
    median = 100 * np.median(data["local BN"]["worker_0"])
    assert f"local BN {median:.1f}" in figures.picture(figures.draw_label_skew, data, 4, 1.0).alt
