"""Figures of chapter 5: what is drawn is what the formulas say."""

import numpy as np
import pytest
import torch

from bnlib import FullNorm, datasets, figures
from bnlib.experiments.convergence import convergence_rates
from bnlib.experiments.full_normalization import (
    labels_per_batch,
    lag_and_noise,
    mcsgd_paths,
    oracle_bias,
    oracles_on_digits,
    what_oracles_see,
)
from bnlib.models import mlp


def test_the_paths_of_the_composition_are_those_of_single_runs_on_average():
    values = mcsgd_paths.lookup("independent", "0.03", 0.01).values
    assert values.shape[0] == mcsgd_paths.COPIES and (values[:, 0] == mcsgd_paths.START).all()
    assert abs(np.median(values[:, -10:]) - mcsgd_paths.OPTIMUM) < 0.3
    still = mcsgd_paths.lookup("constant", "1", 0.1).values
    assert (still == mcsgd_paths.START).all()
    alone = list(mcsgd_paths.run_paths("independent", [("0.03", 0.01)], 0))[-1][0]
    np.testing.assert_allclose(alone.values, values)
    done, total, paths = next(mcsgd_paths.train("same", "0.3", 0.03))
    assert 0 < done < total and len(paths.steps) == paths.values.shape[1]


def test_optimum_and_biased_point_are_zeros_of_their_gradients():
    a, c, t = mcsgd_paths.SAMPLES.T
    w = mcsgd_paths.OPTIMUM
    assert ((c * (w * a.mean() * c - t)).mean() * a.mean()).item() == pytest.approx(0, abs=1e-12)
    w = mcsgd_paths.SAME_ORACLE_ZERO
    assert (a * c * (w * a.mean() * c - t)).mean().item() == pytest.approx(0, abs=1e-12)


def test_figures_of_alpha_and_of_labels_tell_what_they_show():
    told = figures.picture(
        figures.draw_errors_by_alpha, oracles_on_digits.lookup("floor 0.03", "shuffled", 0.1), "x", "y", 0.1
    )
    assert "batch norm 90.0, " in told.alt
    told = figures.picture(figures.draw_labels_per_batch, labels_per_batch.lookup(1, 64, 0.1), 1, 64, 0.1).alt
    assert "At most 1 label in a batch" in told and told.count("median test error") == 3


def colors_by_name(draw, *data):
    """The colour of each name in the legend of a figure."""
    with figures.style():
        figure = figures.new_figure(7, 5)
        draw(figure, *data)
    found = {}
    for handle, name in (pair for axes in figure.axes for pair in zip(*axes.get_legend_handles_labels(), strict=True)):
        line = handle[0] if isinstance(handle, tuple) else handle
        found.setdefault(name, set()).add(line.get_color())
    return found


def test_an_oracle_has_one_colour_in_all_figures():
    """Figures 5.3, 5.6 and 12.3, and the same of another problem."""
    rates = {key: values for key, values in convergence_rates.load().items() if key[2:4] in [(0.8, 0.4), (0.0, 0.4)]}
    drawn = [
        (figures.draw_oracle_bias, oracle_bias.load()),
        (figures.draw_convergence_rates, convergence_rates.rate_curves(rates, "quadratic")),
        (figures.draw_convergence_rates, convergence_rates.rate_curves(rates, "network")),
        (figures.draw_labels_per_batch, labels_per_batch.lookup(1, 64, 0.1), 1, 64, 0.1),
    ]
    found = {"running": set(), "literal": set(), "same batch": set()}
    for draw, *data in drawn:
        for name, used in colors_by_name(draw, *data).items():
            for oracle, colors in found.items():
                if oracle in name:
                    colors |= used
    assert found == {"running": {figures.GREEN}, "literal": {figures.PURPLE}, "same batch": {figures.VERMILLION}}


def test_an_oracle_sees_the_samples_that_its_formula_names():
    """Weights by hand, with three samples, two channels and alpha 0.3."""
    seen = {name: what_oracles_see.sample_weights(name) for name in what_oracles_see.LAYERS}
    averages = np.repeat(0.3 * 0.7 ** np.arange(4, -1, -1)[:, None] / 3, 3, 1)
    batch = np.zeros((5, 3))
    batch[-1] = 1 / 3
    running = np.zeros((5, 3))
    running[:-1] = averages[1:]
    others = np.zeros((5, 3))
    others[-1, 1:] = 1 / 2
    expected = {"batch norm": batch, "batch": batch, "literal": batch / 2, "leave_one_out": others}
    expected |= {"constant": 0 * batch, "running": running}
    assert seen.keys() == expected.keys()
    for name, weights in seen.items():
        np.testing.assert_allclose(weights.backward, expected[name], atol=1e-6, err_msg=name)
        np.testing.assert_allclose(weights.forward, batch if name == "batch norm" else averages, atol=1e-9)
    told = figures.picture(figures.draw_what_oracles_see, seen).alt
    assert "leave one out: this batch 1.00" in told and "running: this batch 0.00, earlier ones 0.76" in told


def test_lag_and_noise_of_a_mean_that_moves_steadily():
    """At a speed s the lag is s(1 - alpha)/alpha; the noise is alpha/(2 - alpha) of the variance of a batch."""
    alphas, speed, variance, size = np.array([0.1, 0.5, 1.0]), 0.02, 4.0, 8
    means = speed * np.arange(1000.0)[:, None]
    lag, noise = lag_and_noise.squared_errors(means, np.full_like(means, variance), size, alphas)
    np.testing.assert_allclose(lag, (speed * (1 - alphas) / alphas) ** 2 / variance, atol=1e-12)
    np.testing.assert_allclose(noise, alphas / (2 - alphas) / size)


def test_the_moments_along_a_trajectory_are_those_of_the_network(monkeypatch):
    monkeypatch.setattr(lag_and_noise, "STEPS", 1)
    means, variances = lag_and_noise.trajectory(4, 0)
    network, x = mlp(lag_and_noise.SIZES, FullNorm, seed=0), datasets.load("digits").train_x.flatten(1)
    first = next(each for each in network if isinstance(each, torch.nn.Linear))
    outputs = first(x).detach().numpy()
    np.testing.assert_allclose(means[0], outputs.mean(0), atol=1e-5)
    np.testing.assert_allclose(variances[0], outputs.var(0), rtol=1e-4)


def test_the_figure_of_lag_and_noise_tells_the_best_alpha():
    told = figures.picture(figures.draw_lag_and_noise, lag_and_noise.load(), lag_and_noise.ALPHAS).alt
    for size in lag_and_noise.BATCH_SIZES:
        assert f"batch size {size}: the sum is least" in told and f"α = {lag_and_noise.best_alpha(size):g}" in told
