"""The experiments of chapter 8, in small, and their figures."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import BatchNorm, figures, models
from bnlib.experiments.depth import (
    cure_outcomes,
    descent,
    gradient_growth,
    longer_descent,
    loss_jumps,
    stability_limit,
    stacked_lstms,
)
from bnlib.models import SkipConnection


def first_losses(variant, lr, steps=3, depth=4):
    return list(itertools.islice(descent.descend(variant, depth, lr, 1), steps + 1))


def test_descent_is_that_of_torch():
    x, y = descent.sentence()
    model = models.deep_stack(4, 63, BatchNorm, seed=1).double()
    optimiser, losses = torch.optim.SGD(model.parameters(), lr=0.3), []
    for _ in range(4):
        loss = F.cross_entropy(model(x), y)
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    np.testing.assert_allclose(first_losses("batch norm", 0.3), losses, rtol=1e-9)


def test_the_sentence_has_each_character_once_and_its_successor():
    x, y = descent.sentence(torch.float32, 7)
    assert (
        x.dtype == torch.float32 and torch.equal(x.argmax(1), torch.arange(7)) and y.tolist() == [1, 2, 3, 4, 5, 6, 0]
    )


@pytest.mark.parametrize("variant", descent.VARIANTS)
def test_each_variant_trains_and_is_another_one(variant):
    losses = first_losses(variant, 0.1)
    assert all(map(math.isfinite, losses))
    if variant == "float32":
        np.testing.assert_allclose(losses, first_losses("batch norm", 0.1), rtol=1e-3)
    # A gamma in front of a ReLU and another BN layer does nothing but at the top, where no norm follows.
    assert (losses == first_losses("batch norm", 0.1)) == (variant == "batch norm")


def test_what_the_variants_change():
    def stack(variant):
        return descent.VARIANTS[variant].build(depth=3, width=8, seed=0)

    branches = [block.branch[1] for block in stack("residual, gamma 0.1") if isinstance(block, SkipConnection)]
    assert len(branches) == 2 and all(torch.allclose(norm.weight, torch.tensor(0.1)) for norm in branches)
    x, _ = descent.sentence(torch.float32)
    still = stack("residual, gamma 0")
    torch.testing.assert_close(still[:-1](x), still[:4](x))  # the branches are silent at first
    shifted = [layer for layer in stack("beta 3") if isinstance(layer, BatchNorm)]
    assert len(shifted) == 3 and all((norm.bias == 3).all() and (norm.weight == 1).all() for norm in shifted)
    assert {norm.eps for norm in stack("eps 0.1") if isinstance(norm, BatchNorm)} == {0.1}
    # With a warm-up the first step is a part of one; kept lengths make no difference to it.
    plain, warm, kept = (first_losses(each, 1e-3, steps=1) for each in ("batch norm", "warm-up", "weight norms fixed"))
    steps = descent.VARIANTS["warm-up"].warm_up
    assert first_losses("batch norm", 1e-3 / steps, steps=1)[1] == pytest.approx(warm[1], rel=1e-12)
    assert kept[1] == pytest.approx(plain[1], rel=1e-4)


def test_jitter_progress_and_roughness():
    found = descent.curves(np.array([4.0, 1.0]), np.array([[-1.0, 1.0, -1.0, 0.5], [-0.1, -0.1, -0.1, -0.1]]))
    np.testing.assert_allclose(found.losses[0], [4, 3, 4, 3, 3.5])
    np.testing.assert_allclose(found.jitter, [0.75, 0.1])
    np.testing.assert_allclose(found.progress, [0.25, 0.1])
    np.testing.assert_allclose(found.roughness, [7, 1])


def test_a_run_that_exceeds_a_million_has_diverged_even_if_the_changes_lead_back():
    """Beside a change of 1e20 the loss of 4 is lost to rounding."""
    found = descent.curves(np.array([4.0, 4.0]), np.array([[1e20, -1e20, 0.0], [1e5, -1e5, 0.0]]))
    np.testing.assert_array_equal(found.losses[0], [4, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(found.losses[1], [4, 100004, 4, 4])


def test_a_run_that_diverges_ends_in_nan():
    found = descent.measure("without normalisation, He init", 5, 1e6, seed=0, device="cpu")
    assert (
        math.isfinite(found["initial_loss"])
        and np.isnan(found["loss_changes"][-1])
        and len(found["loss_changes"]) == descent.STEPS
    )


def test_a_live_run_is_drawn_beside_the_result():
    *_, (done, total, shown) = itertools.islice(descent.train(5, 0.1), 3)
    assert (done, total) == (10, descent.STEPS) and len(shown) == 4
    told = figures.picture(figures.draw_depth, shown, 5, 0.1).alt
    assert "5 hidden layers, learning rate 0.1" in told and "batch norm, your run: final loss" in told
    shown = next(cure_outcomes.train_variant("linear", 1e-4))[2]
    assert "linear, your run: just started" in figures.picture(figures.draw_variant, shown, "linear", 1e-4).alt


def test_only_hidden_weights_make_the_jitter(monkeypatch):
    monkeypatch.setattr(loss_jumps, "STEPS", 4)
    found = loss_jumps.measure("batch norm", 3, "free", -4, seed=0, device="cpu")
    assert 0 < found["jitter"] < 0.01 and found["mean_change"] < 0 < found["first_change"]
    tenth = loss_jumps.measure("batch norm", 3, "free", -6, seed=0, device="cpu")
    assert found["first_change"] / tenth["first_change"] == pytest.approx(100, rel=0.05)  # in proportion to small rates
    x, y = descent.sentence()
    model = models.deep_stack(3, 63, BatchNorm).double()
    before = F.cross_entropy(model(x), y)
    hidden = [each.weight for each in model if isinstance(each, nn.Linear)][:-1]
    gradients = torch.autograd.grad(before, hidden)
    with torch.no_grad():
        for weight, gradient in zip(hidden, gradients, strict=True):
            weight -= 1e-4 * gradient
    assert abs(F.cross_entropy(model(x), y) - before).item() == pytest.approx(found["first_change"], rel=1e-6)


def test_unrelated_networks_share_the_last_layer_only():
    assert 0.01 < loss_jumps.loss_difference_of_unrelated_networks("batch norm", 5, draws=4) < 0.3


def test_a_step_changes_the_features_of_a_deep_stack_completely_and_of_a_shallow_one_hardly():
    turns, correlations = loss_jumps.changes_of_steps(1e-4, seed=0, steps=3)
    assert turns.shape == (3, 100) and turns[0, 0] == pytest.approx(90, abs=0.1) and turns[1, 0] < 0.01
    assert turns[0, :25].min() > 85 and turns[1:, :25].max() < 1
    assert np.abs(correlations).max() < 0.2 > abs(loss_jumps.correlation_of_unrelated_networks(0))
    turns, correlations = loss_jumps.changes_of_steps(1e-4, seed=0, steps=3, depth=5)
    assert turns.max() < 0.1 and correlations.min() > 0.9999


def test_angles_and_correlations_are_those_of_small_examples():
    old, new = torch.tensor([[3.0, 4.0]]), torch.tensor([[-4.0, 3.0]])
    assert loss_jumps._angle(old, 10 * new) == pytest.approx(90)
    assert loss_jumps._angle(old, old + new) == pytest.approx(45, abs=1e-4)
    x = torch.tensor([[1.0, 5.0], [2.0, 7.0], [4.0, 6.0]])
    assert loss_jumps.correlation(x, 2 * x + 3) == pytest.approx(1)
    assert loss_jumps.correlation(x, 1 - x) == pytest.approx(-1)


def test_limits_of_a_shallow_stack_are_near_what_the_sharpness_says():
    found = stability_limit.measure("linear", 2, seed=0, device="cpu")
    stable = dict(zip(stability_limit.MULTIPLES, found["stable"], strict=True))
    assert stable[0.125] == 1 and stable[16] == 0


def test_in_some_deep_stacks_stable_and_unstable_rates_alternate():
    """So no bisection can find the border."""
    assert not all(scan.has_one_border for cell in stability_limit.load() for scan in stability_limit.scans(*cell))


def test_the_sentences_of_the_lstms():
    x, y = stacked_lstms.sentences(5)
    assert x.shape == (5, 50, 50) and y.shape == (5, 50)
    # At each step all sentences are at another character, and each sentence has all of them.
    assert all(len(set(x[:, step].argmax(1).tolist())) == 5 for step in range(50))
    assert all(sorted(row.tolist()) == list(range(50)) for row in y)
    assert torch.equal((x.argmax(2) + 1) % 50, y)
    with pytest.raises(ValueError, match="count must be from 1 to 50, got 0"):
        stacked_lstms.sentences(0)


@pytest.mark.parametrize("statistics", stacked_lstms.SENTENCES)
def test_a_short_training_of_lstms(statistics, monkeypatch):
    monkeypatch.setattr(stacked_lstms, "STEPS", 2)
    found = stacked_lstms.measure(statistics, 2, 0.01, seed=0, device="cpu")
    assert (
        np.isfinite(found["loss_changes"]).all()
        and len(found["loss_changes"]) == 2
        and len(found["gradient_norms"]) == 2
    )


def test_figures_tell_what_they_show():
    view = gradient_growth.GradientsByLayer(np.array([[8.0, 4.0, 2.0, 1.0]]), 2.0)
    told = figures.picture(figures.draw_gradients, view, "net", 50).alt
    assert "a factor of 2.000 per layer (theory 2.000)" in told and "layer 4: 8" in told
    gone = gradient_growth.GradientsByLayer(np.array([[0.0, 1.0]]), None)
    assert "0." in figures.picture(figures.draw_gradients, gone, "net", 50).alt
    rates, lines = [1e-4, 1e-2], {"deep": np.array([[1e-3, 1e-1]])}
    told = figures.picture(figures.draw_jitter, rates, lines, {"deep": 1e-3}, 0.05).alt
    assert "deep: 2 / sharpness = 0.001" in told
    lost = {"batch norm": descent.Curves(np.array([[1.0, 2.0, np.nan, np.nan]]))}
    assert "batch norm: diverged" in figures.picture(figures.draw_depth, lost, 5, 0.1).alt


def test_what_is_carried_on_begins_as_the_short_descent(monkeypatch):
    monkeypatch.setattr(longer_descent, "STEPS", 4)
    monkeypatch.setattr(longer_descent, "EVERY", 2)
    found = longer_descent.measure(0.4, seed=0, device="cpu")
    losses = list(itertools.islice(descent.descend("batch norm", 100, 0.4, 0), 5))
    assert found["loss"] == losses[::2] and found["lowest_loss"] == min(losses)


def test_the_figure_of_lstms_shows_the_committed_runs():
    data = stacked_lstms.by_depth()
    assert set(data.ratios) == set(stacked_lstms.SENTENCES) | {"without normalisation"}
    assert set(data.roughness) == {1e-4, 0.4} and list(data.roughness[0.4]) == [10, 20, 40, 100]
    run, gradient = stacked_lstms.load()["per time step", 20, 1e-4]
    assert np.array_equal(data.ratios["per time step"][20], gradient[:, 0] / gradient[:, -1])
    assert (run.roughness > 0.99).all() and (run.roughness < 1.35).all()
    assert np.isnan(data.roughness[0.4][100]).sum() == 1
    assert "at rate 0.4 1.4, 2.2, 6.3, 5.6" in figures.picture(figures.draw_lstms, data).alt
