"""The convolutional network of chapter 12 is that of chapter 5, and its test error depends on rounding errors."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bnlib import FullNorm, datasets
from bnlib.experiments.convergence import causes_of_failures
from bnlib.experiments.objective import lian_figure_2
from bnlib.models import small_cnn
from bnlib.samplers import shuffled

RUNS = lian_figure_2.cells("quick")["FN, default", 64, 0.1]


def test_the_stored_medians_of_the_same_runs_differ():
    data, here = datasets.load("digits"), causes_of_failures.load()["convolutional", "FN"]
    assert causes_of_failures.STEPS == RUNS[0].epochs * (len(data.train_x) // 64)
    assert [run.seed for run in RUNS] == list(causes_of_failures.cells("quick")["convolutional", "FN"])
    assert round(100 * np.median(here["test_error"]), 1) == 7.5
    assert round(np.median(lian_figure_2.final_test_errors("FN, default", 64, 0.1)), 1) == 5.0


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"seed {run.seed}")
def test_the_first_epoch_is_the_same(run, monkeypatch):
    monkeypatch.setitem(causes_of_failures.ARMS, "FN", causes_of_failures.Arm(steps=22))
    measured = causes_of_failures.measure("convolutional", "FN", seed=run.seed, device="cpu")
    *_, (_, _, history) = replace(run, epochs=1, checkpoints=1).iterate()
    assert abs(measured["test_error"] - history.test_error[-1]) < 1e-6


def test_small_changes_of_the_initial_weights_change_the_error():
    data, errors = datasets.load("digits"), []
    for change in range(3):
        network, generator = small_cnn(norm=FullNorm, seed=1), torch.Generator().manual_seed(change)
        with torch.no_grad():
            for each in network.parameters():
                each.mul_(1 + 1e-7 * torch.randn(each.shape, generator=generator))
        optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
        for index in itertools.islice(shuffled(data.train_y, 64, 1), causes_of_failures.STEPS):
            optimiser.zero_grad()
            F.cross_entropy(network(data.train_x[index]), data.train_y[index]).backward()
            optimiser.step()
        with torch.no_grad():
            wrong = network.eval()(data.test_x).argmax(1) != data.test_y
        errors.append(wrong.double().mean().item())
    assert max(errors) - min(errors) > 0.002  # one image of 360 is 0.003
