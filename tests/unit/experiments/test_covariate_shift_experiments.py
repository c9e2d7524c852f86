"""The experiments of chapter 2, in small."""

import functools

import numpy as np
import pytest
import torch

from bnlib import BatchNorm, figures, models
from bnlib.datasets import Dataset
from bnlib.experiments.covariate_shift import (
    activation_shift,
    deep_linear_network,
    final_losses,
    gradient_shift,
    noisy_batch_norm,
    probed_training,
    two_gradients,
)
from bnlib.experiments.smoothness import landscape_over_training


def test_the_figure_of_mean_shifts_tells_medians_of_the_first_and_the_last_layer():
    shifts = {"batch norm": {"one step": np.array([[1, 9, 2], [3, 9, 4], [8, 9, 6]]), "20 steps": np.ones((2, 3))}}
    told = figures.picture(figures.draw_mean_shifts, shifts, (1, 4, 8)).alt
    assert "hidden layers 1 and 8, medians: batch norm, one step: 3 and 4; batch norm, 20 steps: 1 and 1." in told


def test_a_history_has_every_snapshot_of_every_layer():
    history = activation_shift.history_of("batch norm", 0.1, steps=10, interval=5)
    assert history.steps == [0, 5, 10] and list(history.statistics) == [1, 2, 4, 6, 8]
    assert len(history.statistics[8]) == 3
    # Before training beta is 0 and gamma 1, and the pictures are one batch.
    assert history.statistics[1][0].mean.abs().max() < 1e-5
    assert 0 <= history.mean_shift(1) < 0.1


def test_the_deep_linear_network_is_the_same_with_a_norm_and_without():
    (plain, x, target), (bn, x_again, _) = (deep_linear_network.network_and_data(norm, 3) for norm in (None, BatchNorm))
    weights = [[each.weight for each in net if isinstance(each, torch.nn.Linear)] for net in (plain, bn)]
    assert len(weights[0]) == 25 and torch.equal(x, x_again) and x.shape == target.shape == (1000, 10)
    assert all(map(torch.equal, *weights))
    assert plain(x).std() > 0.1  # Glorot's weights let the signal through


def test_deep_linear_losses_are_those_of_gradient_descent():
    found = deep_linear_network.measure("without normalisation", 1e-4, 20, seed=0, device="cpu")
    assert len(found["loss"]) == 11 and found["loss"][10] < found["loss"][0]
    assert np.isnan(deep_linear_network.measure("without normalisation", 10.0, 20, seed=0, device="cpu")["loss"][-1])
    assert found["cosine"].shape == (24,) and (found["cosine"] > 0.99).all()


def test_gradient_shift_probes_the_layers_after_the_first(monkeypatch):
    monkeypatch.setitem(gradient_shift.STEPS, "mlp", 10)
    found = gradient_shift.measure("mlp", "He", "batch norm", 32, 0.1, seed=0, device="cpu")
    assert all(found[name].shape == (3,) for name in ("cosine", "relative_ics", "step_ratio"))
    assert len(found["loss"]) == 10 and found["loss"][-1] < found["loss"][0]


def test_a_live_run_of_noise_is_shown_beside_the_grid():
    runs = noisy_batch_norm.train(0.1, 0.5, 1.25)
    done, total, data = next(runs)
    assert done == 0 and total == 20 * (1437 // 64) and list(data) == list(noisy_batch_norm.INITS)
    assert list(data["He"])[:4] == ["batch norm", "noisy BN", "without normalisation", "noise without BN"]
    assert data["He"]["batch norm"] is noisy_batch_norm.load()["9 layers", "He", 0.1, "batch norm", 0.0, 1.0]
    done, _, later = next(runs)
    assert done > 0 and len(later["PyTorch default"]["noise without BN, your run"]["train_loss"][0]) == 2


@pytest.mark.parametrize("experiment", [gradient_shift, landscape_over_training])
def test_the_paper_scale_runs_on_pictures_in_colour(experiment, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(300, 3, 32, 32, generator=generator), torch.arange(300) % 10
    monkeypatch.setattr(probed_training.datasets, "load", lambda name: Dataset("cifar10", x, y, x[:10], y[:10], 10))
    monkeypatch.setattr(probed_training, "vgg", functools.partial(models.vgg, width=2, depth=11))
    monkeypatch.setitem(experiment.STEPS, "vgg", 20)
    for cell, seeds in experiment.cells("paper").items():
        assert cell[0] == "vgg" and cell[-2:] == (128, 0.1) and len(seeds) == 3
        found = experiment.EXPERIMENT.measure_once((*cell[:-2], 8, 0.1), seeds[0])
        assert np.isfinite(np.array(found["loss"], float)).all()


def test_a_diverged_run_has_an_infinite_final_loss_and_noise_needs_a_strength():
    losses = noisy_batch_norm.final_losses("noise without BN", "He", 0.3)
    assert losses.shape == (5,) and np.isinf(losses).sum() >= 3
    assert noisy_batch_norm.strength_of("batch norm", (2.0, 1.25)) == noisy_batch_norm.NO_NOISE
    assert noisy_batch_norm.strength_of("noisy BN") == noisy_batch_norm.PUBLISHED
    stronger, published = (
        noisy_batch_norm.final_losses("noisy BN", "He", 0.1, strength=strength)
        for strength in ((2.0, 1.25), noisy_batch_norm.PUBLISHED)
    )
    assert stronger.min() > published.max()


def test_rank_correlations_compare_settings_that_differ_in_the_batch_size_only(monkeypatch):
    def row(shift, loss):
        return {"relative_ics": np.full((5, 3), shift), "final_loss": np.full(5, loss)}

    sizes, up = gradient_shift.BATCH_SIZES, (1.0, 2.0, 3.0, 4.0)
    cell = ("mlp", "He", "batch norm")
    rows = {(*cell, size, 0.1): row(shift, 10 * shift) for size, shift in zip(sizes, up, strict=True)}
    rows |= {(*cell, size, 0.3): row(shift, -shift) for size, shift in zip(sizes, up, strict=True)}
    rows |= {(*cell, size, 0.03): row(shift, shift) for size, shift in zip(sizes, (1.0, 2.0, np.nan, 4.0), strict=True)}
    monkeypatch.setattr(gradient_shift, "load", lambda: rows)
    assert gradient_shift.rank_correlations("batch norm", "He", 0.1) == pytest.approx(np.ones(5))
    assert gradient_shift.rank_correlations("batch norm", "He", 0.3) == pytest.approx(-np.ones(5))
    assert np.isnan(gradient_shift.rank_correlations("batch norm", "He", 0.03)).all()


def test_the_table_and_the_rings_of_the_figure_show_the_same_settings():
    rows = gradient_shift.step_shift_and_loss_rows(64, 0.1)
    assert [(row["initialisation"], row["network"]) for row in rows] == [
        (init, norm) for init in gradient_shift.INITS for norm in gradient_shift.NORMS
    ]
    told = figures.picture(figures.draw_step_and_shift, gradient_shift.load(), (64, 0.1)).alt
    for row in rows:
        step, shift = np.median(row["relative step (‰)"]), np.median(row["relative shift"])
        assert f"{row['network']}, {row['initialisation']} initialisation: {step:.1f} and {shift:.2f}" in told


def test_the_mean_factor_changes_noisy_bn_alone():
    rows = final_losses.mean_factor_rows(0.1)
    assert [row["network"] for row in rows[:3]] == ["batch norm", "noisy BN", "noisy BN, factor 1.125 kept"]
    for init in noisy_batch_norm.INITS:
        of_init = [row for row in rows if row["initialisation"] == init]
        in_both = final_losses.loss_and_error_rows(0.1, init)[:2]
        for row, again in zip(of_init[:2], in_both, strict=True):
            assert (row["training loss (nats)"] == again["training loss (nats)"]).all()
        assert (of_init[2]["training loss (nats)"] < of_init[1]["training loss (nats)"]).all()


def test_final_losses_are_those_of_the_trained_network_in_eval_mode(monkeypatch):
    monkeypatch.setattr(final_losses, "EPOCHS", 1)
    found = final_losses.measure("He", "batch norm", 0.1, seed=0, device="cpu")
    data = final_losses.datasets.load("digits")
    model = models.mlp(noisy_batch_norm.SIZES["9 layers"], BatchNorm, init=torch.nn.init.kaiming_normal_, seed=0)
    settings = {"batch_size": 64, "lr": 0.1, "epochs": 1, "checkpoints": 10, "seed": 0}
    history = final_losses.fit(model, data, **settings, progress=False)
    loss = torch.nn.functional.cross_entropy(model.eval()(data.train_x), data.train_y).item()
    assert found["train_loss"] == pytest.approx(loss, rel=0.01)
    assert found["train_mode_loss"] == pytest.approx(history.train_loss[-1], rel=0.01)
    assert found["train_mode_loss"] > 1.02 * found["train_loss"]  # it has the noise of the batches, and earlier weights


def test_one_loss_of_noisy_bn_in_eval_mode_is_as_high_as_the_ledger_says():
    every = [losses["train_loss"] for (_, norm, _), losses in final_losses.load().items() if norm == "noisy BN"]
    (high,) = [loss for loss in np.concatenate(every) if loss > 0.2]
    assert len(every) == 4 and f"{high:.2f}" == "0.21" and high in final_losses.final_values("noisy BN", "He", 0.1)


def test_with_the_mean_factor_kept_noisy_bn_fits_as_the_ledger_says(monkeypatch):
    kept = {cell: losses["train_loss_factor_kept"] for cell, losses in final_losses.load().items()}
    assert max(losses.max() for (_, norm, _), losses in kept.items() if norm == "noisy BN") < 0.04
    noisy, plain = (kept["He", norm, 0.1] for norm in ("noisy BN", "without normalisation"))
    assert noisy.min() < plain.max() and plain.min() < noisy.max()
    monkeypatch.setattr(final_losses, "EPOCHS", 1)
    monkeypatch.setattr(final_losses, "MEAN_FACTOR", 1.0)
    found = final_losses.measure("He", "noisy BN", 0.1, seed=0, device="cpu")
    assert found["test_loss_factor_kept"] == found["test_loss"]
    monkeypatch.setattr(final_losses, "MEAN_FACTOR", 1.125)
    assert (
        final_losses.measure("He", "noisy BN", 0.1, seed=0, device="cpu")["test_loss_factor_kept"] != found["test_loss"]
    )


def test_the_final_losses_in_train_mode_are_those_of_the_curves():
    """The two experiments train the same networks, so their losses in train mode agree up to the effect of rounding."""
    for norm in ("batch norm", "noisy BN"):
        curves = noisy_batch_norm.final_losses(norm, "He", 0.1)
        again = final_losses.final_values(norm, "He", 0.1, "train_mode_loss")
        assert np.median(again) == pytest.approx(np.median(curves), rel=0.25)


def test_the_best_rate_has_the_lowest_median_loss_and_a_diverged_run_counts_as_infinite(monkeypatch):
    rows = {("He", "batch norm", lr): {"train_loss": np.array(losses)} for lr, losses in
            ((0.1, [0.2, 0.3, 0.1]), (0.3, [np.nan, 0.01, np.nan]))}  # fmt: skip
    monkeypatch.setattr(final_losses, "load", lambda: rows)
    assert final_losses.best_learning_rate("batch norm", "He") == 0.1
    assert np.isinf(final_losses.final_values("batch norm", "He", 0.3)).sum() == 2


def test_bn_repeats_one_channel_in_every_step_and_noisy_bn_does_not():
    outputs = noisy_batch_norm.one_channel(steps=3, images=20)
    np.testing.assert_array_equal(outputs["batch norm"], outputs["batch norm"][:1].repeat(3, 0))
    means = outputs["noisy BN"].mean(1)
    assert len(np.unique(means)) == 3 and 0.05 < np.abs(means).max() < 0.6


def test_values_around_a_step_are_those_of_a_unit_with_a_typical_shift():
    before, after = activation_shift.values_around_a_step("without normalisation", seed=1)
    shift = abs(after.mean() - before.mean()) / np.sqrt((before.var() + after.var()) / 2)
    history = activation_shift.history_of("without normalisation", 0.1, steps=1, interval=1, seed=1)
    assert len(before) == activation_shift.IMAGES
    assert shift == pytest.approx(history.mean_shift(8), rel=0.05)  # the median, of an even number of units


def test_two_gradients_are_the_slopes_of_the_two_losses():
    found = two_gradients.measure()
    centre, spacing = two_gradients.POINTS // 2, found.grid[0, 1] - found.grid[0, 0]
    for losses, gradient in zip(found.losses, found.gradients, strict=True):
        slopes = [losses[centre, centre + 1] - losses[centre, centre - 1]]
        slopes += [losses[centre + 1, centre] - losses[centre - 1, centre]]
        np.testing.assert_allclose(np.array(slopes) / (2 * spacing), gradient, atol=2e-3)
    old, new = found.gradients
    assert float(found.shift.cosine) == pytest.approx(old @ new / np.linalg.norm(old) / np.linalg.norm(new))
    assert float(found.shift.ics) == pytest.approx(np.linalg.norm(old - new))
