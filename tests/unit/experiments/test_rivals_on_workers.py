"""The contest on workers with different labels: the rule, and that a stack does what five single networks do."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bnlib.experiments.full_normalization import rivals, rivals_on_workers
from bnlib.samplers import PerWorker


def test_the_cells_of_the_selection_are_complete():
    cells = rivals_on_workers.selection_cells("quick")
    assert len(cells) == 11 * 2 * 2 * 2 * 5 and set(cells.values()) == {rivals.SELECTION_SEEDS}
    assert rivals_on_workers.LEARNING_RATES == rivals.learning_rates("SGD", 64) == (0.03, 0.1, 0.3, 1.0, 3.0)


@pytest.mark.parametrize("data", [rivals.images(), rivals.selection_images()])
def test_a_worker_has_two_labels_and_a_few_images_of_a_third(data):
    for rank in range(5):
        batches = PerWorker(rank, 5, skew=1.0)(data.train_y, 16, 0)
        labels = data.train_y[torch.cat([next(batches) for _ in range(len(data.train_y) // 5 // 16)])]
        counts = sorted(labels.bincount().tolist(), reverse=True)
        assert sum(counts[2:]) < 0.1 * len(labels) and len([count for count in counts if count]) <= 3


def mean_state(models):
    """The means of all parameters and buffers over the workers; the counts of batches are equal."""
    states = [model.state_dict() for model in models]
    return {
        name: torch.stack([state[name] for state in states]).to(value).mean(0) if value.is_floating_point() else value
        for name, value in states[0].items()
    }


def one_after_another(norm, setting, way, batch_size, lr, seed, data, rounds):
    """The same training with five single networks and PyTorch's optimiser."""
    workers = [rivals.model(norm, setting, seed=seed).double().train() for _ in range(5)]
    optimisers = [torch.optim.SGD(model.parameters(), lr) for model in workers]
    streams = [PerWorker(rank, 5, skew=1.0)(data.train_y, batch_size, seed) for rank in range(5)]
    for step in range(rounds * 64 // batch_size):
        for model, optimiser, stream in zip(workers, optimisers, streams, strict=True):
            index = next(stream)
            optimiser.zero_grad()
            F.cross_entropy(model(data.train_x[index].double()), data.train_y[index]).backward()
        if way == "joined gradients":
            for parameters in zip(*[model.parameters() for model in workers], strict=True):
                mean = torch.stack([each.grad for each in parameters]).mean(0)
                for each in parameters:
                    each.grad = mean.clone()
        for optimiser in optimisers:
            optimiser.step()
        if way == "local steps" and (step + 1) * batch_size % 64 == 0:
            state = mean_state(workers)
            for model in workers:
                model.load_state_dict(copy.deepcopy(state))
    return mean_state(workers)


@pytest.mark.parametrize("norm", rivals.NORMS)
def test_a_stack_trains_as_single_networks_do(norm):
    data, setting = rivals.selection_images(), list(rivals.NORMS[norm])[-1]
    for way, rounds in zip(rivals_on_workers.WAYS, (2, 1), strict=True):
        runs = [(0.03, 1), (0.1, 2)]
        found = rivals_on_workers.train(norm, setting, way, 16, runs, data, rounds=rounds, dtype=torch.float64)
        for (lr, seed), model in zip(runs, found, strict=True):
            expected = one_after_another(norm, setting, way, 16, lr, seed, data, rounds)
            state = model.state_dict()
            assert state.keys() == expected.keys()
            for name, value in state.items():
                assert torch.allclose(value, expected[name], rtol=1e-6, atol=1e-6), (way, name)


def test_a_worker_that_diverges_ends_its_run_only():
    data = rivals.selection_images()
    setting = "PyTorch init"
    found = rivals_on_workers.train(
        "without normalisation", setting, "local steps", 16, [(0.03, 0), (1e6, 0)], data, rounds=3
    )
    assert found[0] is not None and found[1] is None


def test_a_run_alone_gives_what_it_gives_together_with_others(monkeypatch):
    monkeypatch.setattr(rivals_on_workers, "ROUNDS", 2)
    trained = []

    def few(*arguments):
        trained.append(arguments[4])
        return train(*arguments, rounds=2)

    train = rivals_on_workers.train
    monkeypatch.setattr(rivals_on_workers, "train", few)
    monkeypatch.setattr(rivals_on_workers, "_known", {})
    arm, runs = ("batch norm", "momentum 0.1", "local steps", 16), list(itertools.product((0.03, 0.1), (0, 1)))
    together = [rivals_on_workers._measured(arm, run, runs, rivals.images()) for run in runs]
    assert trained == [runs]
    monkeypatch.setattr(rivals_on_workers, "_known", {})
    alone = [rivals_on_workers._measured(arm, run, runs, rivals.images()) for run in runs[1:]]
    assert [list(each) for each in trained[1:]] == [[run] for run in runs[1:]]
    assert np.allclose([each["test_error"] for each in together[1:]], [each["test_error"] for each in alone], atol=0.02)
