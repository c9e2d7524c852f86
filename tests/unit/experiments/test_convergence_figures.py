"""Figures of chapter 12 about trainings: what they draw and tell, for results that are known."""

import numpy as np
import pytest

from bnlib import figures
from bnlib.experiments.convergence import adjoint_errors, causes_of_failures


def drawn(draw, data):
    with figures.style():
        figure = figures.new_figure()
        return figure, draw(figure, data)


def test_the_figure_of_the_bias_has_the_numbers_of_the_table():
    """From the sixth comparison on; of the component the mean over all seeds."""
    figure, told = drawn(figures.draw_bias, adjoint_errors.load())
    for row in adjoint_errors.rows():
        (line,) = [each for each in figure.axes[1].lines if each.get_label() == f"rate {row['learning rate']}"]
        place = line.get_xdata().tolist().index(float(row["floor of α"]))
        assert line.get_ydata()[place] == pytest.approx(row["mean gradient along the true one"])
    assert "rate 0.02: bias over gradient 2.5 at 0.003" in told


def test_the_bias_over_the_gradient_leaves_the_first_comparisons_out():
    values = {"bias": np.array([[8.0, 2.0, 2.0]] * 3), "gradient": np.ones((3, 3)), "along": np.ones((3, 3))}
    cells = {(lr, floor): values for lr in (0.1, 1) for floor in (0.03, 0.3)}
    with figures.style():
        told = figures.draw_bias(figures.new_figure(), cells, first=1)
    assert "rate 0.1: bias over gradient 2 at 0.03, 2 at 0.3; component along the gradient 1 at 0.03" in told


def test_the_figure_of_the_causes_has_a_row_for_each_arm_and_tells_medians():
    figure, told = drawn(figures.draw_causes_of_failures, causes_of_failures.load())
    assert len(figure.axes[0].get_yticklabels()) == len(causes_of_failures.ARMS)
    assert told.count("convolutional, ") + told.count("fully connected, ") == len(causes_of_failures.load())
    kept = causes_of_failures.load()["fully connected", "FN, exact statistics"]
    median = 100 * np.median(kept["test_error"])
    assert f"fully connected, exact statistics: {median:.1f} and " in told


def test_the_figure_of_the_causes_leaves_out_arms_without_results():
    shown = {key: each for key, each in causes_of_failures.load().items() if key[1] in ("BN", "FN, floor 0.1")}
    figure, _ = drawn(figures.draw_causes_of_failures, shown)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["BN", "floor 0.1"]
    # A row apart, and the space above a group.
    assert axes.get_yticks().tolist() == pytest.approx([0.6, 2.2])


def test_an_error_that_was_not_measured_is_not_drawn():
    errors = {"test_error": np.array([0.1, 0.2, 0.4]), "test_error_exact": np.full(3, np.nan)}
    figure, told = drawn(figures.draw_causes_of_failures, {("convolutional", "BN"): errors})
    assert told.endswith("convolutional, BN: 20.0.")
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert [line.get_xdata().tolist() for line in marks] == [[pytest.approx(20)]]
