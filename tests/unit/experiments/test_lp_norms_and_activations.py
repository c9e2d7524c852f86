"""Networks normalised by other Lp norms, and deep networks with activations that are flat nowhere."""

import math

import numpy as np
import pytest
import torch

from bnlib import BatchNorm, datasets
from bnlib.experiments.perils import activations
from bnlib.experiments.smoothness import lp_norms
from bnlib.experiments.smoothness.lp_norms import LpNorm
from bnlib.models import mlp


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_the_lp_norm_of_each_channel_is_1(p):
    x = 3 + 5 * torch.randn(200, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    out = LpNorm(4, p).double()(x).detach()
    size = out.abs().amax(0) if p == math.inf else out.abs().pow(p).mean(0) ** (1 / p)
    torch.testing.assert_close(size, torch.ones_like(size), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.mean(0), torch.zeros(4).double())


def test_for_p_2_the_layer_is_bn_up_to_the_convention_of_the_running_variance():
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours, theirs = LpNorm(4, 2).double(), BatchNorm(4, dtype=torch.float64)
    for _ in range(100):
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), atol=0.05, rtol=0)


def test_eval_mode_follows_the_averages_and_changes_nothing():
    layer, x = LpNorm(2, 1), torch.tensor([[1.0, 5.0], [3.0, -5.0]])
    layer(x)
    assert layer.running_mean.tolist() == pytest.approx([0.2, 0.0])
    assert layer.running_norm.tolist() == pytest.approx([1.0, 1.4], abs=1e-4)
    before = [each.clone() for each in layer.eval().buffers()]
    assert layer(torch.tensor([[0.2, 1.4]])).tolist()[0] == pytest.approx([0.0, 1.0], abs=1e-3)
    assert all(torch.equal(old, new) for old, new in zip(before, layer.buffers(), strict=True))


def test_training_lowers_the_loss_and_a_diverged_run_counts_as_wrong():
    data = datasets.load("digits")
    net = mlp((64, 20, 10), BatchNorm, seed=0)
    learnt = lp_norms.train(net, data, 32, 0.1, 1, 0)
    assert learnt["train_loss"] < 1 and learnt["test_error"] < 0.3
    lost = lp_norms.train(mlp((64, 20, 10), None, seed=0), data, 32, 1e20, 1, 0)
    assert not math.isfinite(lost["train_loss"]) and lost["test_error"] == 1


def test_at_the_best_rate_the_errors_are_those_of_chapter_3():
    row = lp_norms.EXPERIMENT.load("quick")
    best = {
        norm: min(np.median(100 * row[norm, lr]["test_error"]) for lr in lp_norms.LEARNING_RATES)
        for norm in lp_norms.NORMS
    }
    assert best.pop("without normalisation") == pytest.approx(3.6, abs=0.05)
    assert all(abs(error - 2) < 0.3 for error in best.values())


def test_each_activation_has_its_own_initialisation():
    assert activations.ACTIVATIONS.keys() == activations.INITIALISATIONS.keys()
    weights = {name: torch.empty(400, 400) for name in activations.ACTIVATIONS}
    for name, init in activations.INITIALISATIONS.items():
        init(weights[name])
    gains = {name: (20 * each.std()).item() for name, each in weights.items()}
    assert gains == pytest.approx({"ReLU": 2**0.5, "LeakyReLU": 2**0.5, "SELU": 1.0}, rel=0.02)
