"""Cures of the noise of deep stacks, and networks without norms: what is tried is what its name says."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import BatchNorm, BatchRenorm, datasets, figures, models
from bnlib.experiments.depth import (
    cure_outcomes,
    cures,
    cures_by_depth,
    descent,
    without_norms,
    without_skip_connections,
)
from bnlib.gradient_clipping import clip_gradients_adaptively_
from bnlib.samplers import shuffled


def built(variant, depth=3, width=8):
    chosen = cures.VARIANTS[variant]
    sizes = {"in_features": chosen.characters, "num_classes": chosen.characters}
    return chosen.build(depth=depth, width=width, seed=0, **sizes).to(chosen.dtype)


def test_a_clipped_variance_by_hand():
    """The first channel has variance 4 and is divided by 2, the second has 0.01 and is divided by the root of 0.25."""
    layer = cures.VarianceClippedBatchNorm(2, least=0.25)
    x = torch.tensor([[1.0, 0.1], [5.0, 0.3]])
    torch.testing.assert_close(layer(x), torch.tensor([[-1.0, -0.2], [1.0, 0.2]]))
    wide = torch.randn(50, 2)
    torch.testing.assert_close(layer(wide), nn.BatchNorm1d(2, eps=1e-12)(wide))


def test_the_total_norm_is_clipped_to_one_and_a_short_gradient_is_left_alone():
    long = cures.clip_total_norm([], [torch.tensor([3.0]), torch.tensor([[4.0]])])
    torch.testing.assert_close(torch.cat([each.flatten() for each in long]), torch.tensor([0.6, 0.8]))
    (short,) = cures.clip_total_norm([], [torch.tensor([0.3, 0.4])])
    torch.testing.assert_close(short, torch.tensor([0.3, 0.4]))


def test_adaptive_clipping_leaves_out_the_last_layer():
    parameters = [torch.ones(2, 4), torch.ones(2), torch.ones(3, 2), torch.ones(3)]
    gradients = [100 * each for each in parameters]
    weight, bias, *last = cures.clip_adaptively(parameters, gradients)
    torch.testing.assert_close(weight.norm(dim=1), torch.full((2,), 0.02))
    torch.testing.assert_close(bias.norm(), torch.tensor(0.01 * math.sqrt(2)))
    assert all(torch.equal(*pair) for pair in zip(last, gradients[2:], strict=True))


def test_what_the_variants_change():
    plain = descent.VARIANTS["batch norm"].build(depth=3, width=8, seed=0).double()
    x, _ = descent.sentence()
    larger = built("initial weights x 10")
    torch.testing.assert_close(larger[1].weight, 10 * plain[1].weight)
    torch.testing.assert_close(larger[-1].weight, plain[-1].weight)
    gammas = [[each.weight[0].item() for each in built(f"gamma 0.1 in {where}") if isinstance(each, BatchNorm)]
              for where in ("the last norm", "all norms but the last")]  # fmt: skip
    np.testing.assert_allclose(gammas, [[1, 1, 0.1], [0.1, 0.1, 1]], rtol=1e-6)
    warm = built("Batch Renorm, statistics of the first batch")
    assert {(each.momentum, each.r_max, each.d_max) for each in warm if isinstance(each, BatchRenorm)} == {(0.1, 3, 5)}
    torch.testing.assert_close(warm(x), plain(x), rtol=1e-6, atol=1e-6)  # on the first batch it is batch norm
    assert built("128 characters")[1].in_features == 128


def trained_layers(variant, depth=5):
    """Whether the weights of each linear layer differ after three steps."""
    model = built(variant, depth).double()
    layers = [each for each in model.modules() if isinstance(each, nn.Linear)]
    before = [each.weight.clone() for each in layers]
    optimiser, (x, y) = torch.optim.SGD(model.parameters(), lr=0.4), descent.sentence()
    for _ in range(3):
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()
    return [not torch.equal(*pair) for pair in zip([each.weight for each in layers], before, strict=True)]


def test_from_gamma_0_all_layers_train_if_the_relu_stands_behind_the_sum():
    """A ReLU in the branch, at 0, passes no gradient, so only the first and the last layer train."""
    x, _ = descent.sentence()
    quiet = built("post-activation, gamma 0")
    torch.testing.assert_close(quiet[:-1](x), quiet[:4](x))  # the blocks pass on their input at first
    assert trained_layers("post-activation, gamma 0") == [True] * 6
    assert trained_layers("residual, gamma 0") == [True, False, False, False, False, True]


def test_with_the_schedule_of_its_paper_batch_renorm_is_batch_norm_for_5000_steps():
    """So the first 60 steps of a run would not show what Batch Renorm does."""
    x, layer, plain = torch.randn(20, 3), BatchRenorm(3), nn.BatchNorm1d(3)
    layer.num_batches_tracked.fill_(4990)
    torch.testing.assert_close(layer(x), plain(x))
    layer.num_batches_tracked.fill_(30000)
    assert not torch.allclose(layer(x), plain(x), atol=1e-2)


def test_descent_clips_the_gradients_of_its_steps(monkeypatch):
    monkeypatch.setattr(descent, "STEPS", 2)
    plain = descent.measure("batch norm", 3, 1.0, seed=0, device="cpu")
    clipped = descent.measure(cures.VARIANTS["adaptive gradient clipping"], 3, 1.0, seed=0, device="cpu")
    assert plain["initial_loss"] == clipped["initial_loss"] and plain["loss_changes"][0] != clipped["loss_changes"][0]


def test_a_cure_is_compared_at_a_rate_inside_those_that_were_tried():
    """Those that are not are named in the text."""
    names = [*cure_outcomes.GROUPS["skip connections"], "Batch Renorm", "variance at least 0.1", "batch norm"]
    names += cure_outcomes.GROUPS["growth removed, BN kept"]
    edges = {name: cure_outcomes.best_rate(name).edge for name in names}
    at_edge = dict.fromkeys(("residual, gamma 0", "Batch Renorm"), "highest")
    assert {name: edge for name, edge in edges.items() if edge} == at_edge
    assert [cure_outcomes.best_rate(name).rate for name in ("linear", "beta 3")] == [0.001, 0.01]  # as in the text


def test_networks_without_norms_are_compared_at_rates_inside_those_that_were_tried():
    last = len(without_norms.LEARNING_RATES) - 1
    places = {cell: without_norms.best(*cell) for cell in without_norms.load()}
    assert not {cell for cell, place in places.items() if place in (0, last)}


@pytest.mark.parametrize("network", ["batch norm", "weight standardisation, AGC"])
def test_stacked_training_without_norms_is_that_of_torch(network, monkeypatch):
    for name, value in (("STEPS", 3), ("DEPTH", 4), ("WIDTH", 8), ("LEARNING_RATES", (0.1, 1.0))):
        monkeypatch.setattr(without_norms, name, value)
    found = without_norms.measure(network, 16, seed=1, device="cpu")
    data, chosen = datasets.load("digits"), without_norms.NETWORKS[network]
    model = chosen.build(depth=4, width=8, seed=1)
    x, test_x = ((each - data.train_x.mean()) / data.train_x.std() for each in (data.train_x, data.test_x))
    optimiser, batches = torch.optim.SGD(model.parameters(), lr=1.0), shuffled(data.train_y, 16, 1)
    for _ in range(3):
        index = next(batches)
        optimiser.zero_grad()
        F.cross_entropy(model(x[index]), data.train_y[index]).backward()
        if chosen.clip:
            clip_gradients_adaptively_(model[:-1].parameters(), clipping=without_norms.CLIPPING)
        optimiser.step()
    model.eval()
    assert found["train_loss"][1] == pytest.approx(F.cross_entropy(model(x), data.train_y).item(), rel=1e-3)
    error = (model(test_x).argmax(1) != data.test_y).double().mean().item()
    assert found["test_error"][1] == pytest.approx(error, abs=0.01)


def test_the_figure_of_the_suspects_tells_what_it_shows():
    def outcome(value):
        return cure_outcomes.Outcome(np.array([1.0, value, np.nan]), np.full(3, 4.0), 0.1, np.array([1.0, 2, 3]))

    groups = {name: {name: outcome(number + 0.5)} for number, name in enumerate(cure_outcomes.GROUPS)}
    told = figures.picture(figures.draw_suspects, groups).alt
    assert "smaller steps 2.5" in told and "skip connections 7.5" in told


def test_the_figure_shows_every_variant_of_all_experiments():
    shown = [name for names in cure_outcomes.GROUPS.values() for name in names]
    hidden = {"gamma 0.1 in the last norm", "gamma 0.1 in all norms but the last"}
    assert len(shown) == len(set(shown)) and {*shown} == {*descent.VARIANTS, *cures.VARIANTS} - hidden


def test_models_of_the_experiment_are_those_of_the_library():
    model = without_norms.NETWORKS["weight standardisation"].build(depth=5, width=8, seed=0)
    assert sum(isinstance(layer, models.ScaledSkipConnection) for layer in model) == 4


def test_without_skip_connections_means_the_same_layers_and_no_skip_connection():
    for name, network in without_skip_connections.NETWORKS.items():
        model = network.build(depth=5, width=8, seed=0)
        assert sum(isinstance(layer, nn.Linear) for layer in model) == 6
        assert sum(isinstance(layer, BatchNorm) for layer in model) == (5 if name == "batch norm" else 0)
        assert not any(isinstance(layer, models.SkipConnection) for layer in model)


def test_networks_without_skip_connections_fail_at_every_rate_or_have_a_best_rate_inside():
    last = len(without_norms.LEARNING_RATES) - 1
    for (network, size), row in without_skip_connections.load().items():
        assert without_norms.best_place(row) not in (0, last) or np.nanmin(row["test_error"]) > 0.5, (network, size)


def test_outcomes_by_depth_are_those_of_the_runs():
    rows = {row["change"]: row for row in cure_outcomes.depth_rows()}
    assert list(rows) == [cure_outcomes.LABELS.get(name, name) for name in ("batch norm", *cures_by_depth.COMPARED)]
    found = descent.load()["batch norm", 20, 1e-4].roughness
    assert rows["batch norm and ReLU"]["roughness at 0.0001", "20 layers"] == np.median(found)
    ends = [np.median(cures_by_depth.load()["linear", 40, lr]["final_loss"]) for lr in cures_by_depth.RATES]
    assert rows["no activation"]["final loss (nats)", "40 layers"] == min(ends)


def test_with_fewer_layers_the_best_rates_at_an_edge_are_known():
    """Three rates each; the text names them."""
    at_edge = {
        (name, depth): cure_outcomes.best_rate(name, depth).edge
        for name in cures_by_depth.COMPARED
        for depth in cures_by_depth.LAYERS[:-1]
    }
    assert {arm: edge for arm, edge in at_edge.items() if edge} == {
        ("gradient clipping", 20): "highest",
        ("gradient clipping", 40): "lowest",
        ("variance at least 0.1", 20): "highest",
        ("pre-activation", 20): "highest",
        ("pre-activation", 40): "highest",
    }
