"""The experiments of chapters 2 and 3, in small."""

import functools
import math

import numpy as np
import pytest
import torch

from bnlib import BatchNorm, models
from bnlib.datasets import Dataset
from bnlib.experiments import (
    deep_linear_shift,
    gradient_shift,
    landscape_over_training,
    moving_activations,
    noise_behind_bn,
    probed_training,
    smooth_function,
    stable_rates,
)


def test_a_path_has_every_snapshot_of_every_layer():
    path = moving_activations.whole("batch norm", 0.1, steps=10, every=5)
    assert path.steps == [0, 5, 10] and list(path.moments) == [1, 2, 4, 6, 8]
    assert path.quantiles(2, unit=3).shape == (5, 3)
    assert (np.diff(path.quantiles(2), axis=0) >= 0).all()
    # Before training beta is 0 and gamma 1, and the pictures are one batch.
    assert path.moments[1][0].mean.abs().max() < 1e-5
    assert 0 <= path.moved(1) < 0.1


def test_the_deep_linear_network_is_the_same_with_a_norm_and_without():
    (plain, x, target), (bn, x_again, _) = (deep_linear_shift.problem(norm, 3) for norm in (None, BatchNorm))
    weights = [[each.weight for each in net if isinstance(each, torch.nn.Linear)] for net in (plain, bn)]
    assert len(weights[0]) == 25 and torch.equal(x, x_again) and x.shape == target.shape == (1000, 10)
    assert all(map(torch.equal, *weights))
    assert plain(x).std() > 0.1  # Glorot's weights let the signal through


def test_deep_linear_losses_are_those_of_gradient_descent():
    found = deep_linear_shift.measure("no norm", 1e-4, 20, seed=0, device="cpu")
    assert len(found["loss"]) == 11 and found["loss"][10] < found["loss"][0]
    assert np.isnan(deep_linear_shift.measure("no norm", 10.0, 20, seed=0, device="cpu")["loss"][-1])
    assert found["cosine"].shape == (24,) and (found["cosine"] > 0.99).all()


def test_gradient_shift_probes_the_layers_after_the_first(monkeypatch):
    monkeypatch.setitem(gradient_shift.STEPS, "mlp", 10)
    found = gradient_shift.measure("mlp", "He", "batch norm", 32, 0.1, seed=0, device="cpu")
    assert all(found[name].shape == (3,) for name in ("cosine", "relative_ics", "step_ratio"))
    assert len(found["loss"]) == 10 and found["loss"][-1] < found["loss"][0]


def test_landscape_walks_and_a_live_run_is_such_a_walk(monkeypatch):
    monkeypatch.setitem(landscape_over_training.STEPS, "mlp", 20)
    found = landscape_over_training.measure("mlp", "He", "batch norm", 32, 0.1, seed=0, device="cpu")
    assert {len(values) for values in found.values()} == {20}
    assert all(low <= high for low, high in zip(found["low"], found["high"], strict=True))
    first, second = [], []
    for seen, runs in zip((first, second), range(2), strict=True):
        for done, total, data in landscape_over_training.train("He", 32, 0.1):
            seen.append((done, total, data))
            if runs and done == 2:
                break
    assert [done for done, *_ in first] == list(range(1, 21)) and len(second) == 2
    assert set(first[-1][2]) == {"no norm", "batch norm"} and first[-1][2]["no norm"]["beta"].shape == (1, 20)
    assert first[0][2]["no norm"]["loss"][0, 0] != second[0][2]["no norm"]["loss"][0, 0]


def test_the_largest_stable_rate_never_leads_above_the_start():
    found = stable_rates.measure("He", "no norm", 2, seed=0, device="cpu")
    assert 0.3 < found["rate"] < 2 and found["loss"] < math.log(10) and found["sharpness"] > 0


@pytest.mark.parametrize("waves", smooth_function.WAVES)
def test_no_parabola_of_curvature_beta_is_crossed(waves):
    for length in smooth_function.STEP_LENGTHS:
        step = smooth_function.lookup(waves, length)
        assert (step.f <= step.bound + 1e-12).all()
        assert step.after <= step.promised + 1e-12
        if length < 2 / step.beta:
            assert step.after < step.before
    slopes = np.abs(np.diff(step.f, 2)) / (step.w[1] - step.w[0]) ** 2
    assert slopes.max() <= step.beta * (1 + 1e-6) and slopes.max() > 0.95 * step.beta


def test_a_live_run_of_noise_is_shown_beside_the_grid():
    runs = noise_behind_bn.train(0.1, 0.5, 1.25)
    done, total, data = next(runs)
    assert done == 0 and total == 20 * (1437 // 64) and list(data) == list(noise_behind_bn.INITS)
    assert list(data["He"])[:4] == ["BN", "BN, noise", "none", "noise"]
    assert data["He"]["BN"] is noise_behind_bn.load()["9 layers", "He", 0.1, "BN", 0.0, 1.0]
    done, _, later = next(runs)
    assert done > 0 and len(later["torch"]["noise, your run"]["train_loss"][0]) == 2


@pytest.mark.parametrize("experiment", [gradient_shift, landscape_over_training])
def test_the_paper_scale_runs_on_pictures_in_colour(experiment, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(300, 3, 32, 32, generator=generator), torch.arange(300) % 10
    monkeypatch.setattr(probed_training.datasets, "load", lambda name: Dataset("cifar10", x, y, x[:10], y[:10], 10))
    monkeypatch.setattr(probed_training, "vgg", functools.partial(models.vgg, width=2, depth=11))
    monkeypatch.setitem(experiment.STEPS, "vgg", 20)
    for cell, seeds in experiment.cells("paper").items():
        assert cell[0] == "vgg" and cell[-2:] == (128, 0.1) and len(seeds) == 3
        found = experiment.EXPERIMENT.once((*cell[:-2], 8, 0.1), seeds[0])
        assert np.isfinite(np.array(found["loss"], float)).all()
