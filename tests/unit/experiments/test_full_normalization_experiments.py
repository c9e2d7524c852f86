"""Figures of chapter 5: what is drawn is what the formulas say."""

import numpy as np
import pytest

from bnlib import figures
from bnlib.experiments.convergence import convergence_rates
from bnlib.experiments.full_normalization import (
    labels_per_batch,
    lian_comparison,
    mcsgd_paths,
    oracle_bias,
    oracles_on_digits,
)


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
    """Figures 5.2, 5.3, 5.8 and 5.9; the two names of an oracle in layers and in Algorithm 2 count as one."""
    rates = {key: values for key, values in convergence_rates.load().items() if key[2:4] in [(0.8, 0.4), (0.0, 0.4)]}
    kept = lian_comparison.load(4, "quick")
    norms = ("BN", "FN, batch", "FN, literal", "FN, running", "FN, default")
    panels = {"one label": {lian_comparison.NORMS[norm]: kept["convolutional", norm] for norm in norms}}
    drawn = [
        (figures.draw_oracle_bias, oracle_bias.load()),
        (figures.draw_convergence_rates, convergence_rates.rate_curves(rates, "quadratic")),
        (figures.draw_convergence_rates, convergence_rates.rate_curves(rates, "network")),
        (figures.draw_labels_per_batch, labels_per_batch.lookup(1, 64, 0.1), 1, 64, 0.1),
        (figures.draw_lian_figures, panels, ("train_loss", "test_error")),
    ]
    found = {"running": set(), "literal": set(), "same": set()}
    for draw, *data in drawn:
        for name, used in colors_by_name(draw, *data).items():
            for oracle, colors in found.items():
                if oracle in name or (oracle == "same" and name == "batch"):
                    colors |= used
    assert found == {"running": {figures.GREEN}, "literal": {figures.PURPLE}, "same": {figures.VERMILLION}}
