"""Figures as themed SVG."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.text import Annotation

from bnlib import figures
from bnlib.experiments.formula import training_curves


def curve(figure, values):
    axes = figure.subplots()
    axes.plot(values, color=figures.BLUE, label="a curve")
    axes.set(xlabel="x & y", ylabel="loss (nats)")
    axes.legend()
    return 'A "curve" & its legend.'


def test_a_picture_is_one_valid_svg_with_its_description():
    picture = figures.picture(curve, [1, 3, 2])
    root = ET.fromstring(picture.svg)
    assert root.get("role") == "img" and root.get("aria-label") == 'A "curve" & its legend.'
    assert "x & y" in "".join(root.itertext())
    assert picture.alt in picture._repr_mimebundle_()["text/plain"]


def test_a_picture_with_an_empty_group_is_valid_too():
    def draw(figure):
        """Matplotlib writes a scatter without points as an empty group."""
        figure.subplots().scatter([], [])
        return "A scatter plot without points."

    ET.fromstring(figures.picture(draw).svg)


def test_ink_takes_the_colour_of_the_page_and_series_keep_theirs():
    svg = figures.picture(curve, [1, 3, 2]).svg
    fills = re.findall(r"<text[^>]*fill: ([^;\"]+)", svg)
    assert fills and set(fills) == {"currentColor"}
    assert figures.BLUE.lower() in svg
    assert "#010203" not in svg and "#ffffff" not in svg and "#000000" not in svg


def test_the_same_figure_is_the_same_text():
    assert figures.picture(curve, [1, 3, 2]).svg == figures.picture(curve, [1, 3, 2]).svg
    assert figures.picture(curve, [1, 3, 2]).svg != figures.picture(curve, [1, 3, 2.5]).svg


def test_every_line_break_is_between_elements():
    """Explorers share lines between frames, so a line must be a whole element."""
    for line in figures.picture(curve, np.sin(np.arange(200))).svg.split("\n"):
        assert line.startswith("<") and line.endswith(">")


def test_points_that_change_nothing_are_left_out_of_a_path():
    def draw(figure):
        figure.subplots().fill_between(range(9), 0, [1, 1, 1, 1, 0.5, 1, 1, 1, 1], color=figures.BLUE)
        return "A band with a notch."

    path = max(re.findall(r'<path[^>]* d="M ([^"]*) z"', figures.picture(draw, size=(10, 10)).svg), key=len)
    numbers = [float(number) for number in path.split()]
    points = list(dict.fromkeys(zip(numbers[::2], numbers[1::2], strict=True)))
    xs, ys = (sorted({point[axis] for point in points}) for axis in (0, 1))
    assert len(points) == 7 and len(xs) == 5 and len(ys) == 3


def test_a_line_that_turns_back_keeps_its_ends():
    def draw(figure):
        axes = figure.subplots()
        axes.plot([0, 1, 4, 3, 2, 2, 2], [1, 1, 1, 1, 1, 2, 3])
        axes.set(xlim=(0, 10), ylim=(0, 10))
        axes.axis("off")
        return "A line that turns back."

    (path,) = re.findall(r'<path[^>]* d="M ([^"]*)" clip', figures.picture(draw, size=(10, 10)).svg)
    start, right, back, end = zip(*[iter(map(float, path.split()))] * 2, strict=True)
    assert start[1] == right[1] == back[1] > end[1] and start[0] < back[0] == end[0] < right[0]
    assert right[0] - start[0] == pytest.approx(2 * (back[0] - start[0]), abs=0.11)


def test_a_figure_without_words_is_refused():
    with pytest.raises(ValueError, match="alt must describe"):
        figures.picture(lambda figure: " ")


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", ["BLUE", "VERMILLION", "GREEN", "PURPLE", "GREY"])
@pytest.mark.parametrize("page", ["#ffffff", "#121212"])
def test_series_are_readable_on_light_and_dark(colour, page):
    """WCAG 1.4.11 asks for a contrast of 3:1 for graphics."""
    high, low = sorted([luminance(getattr(figures, colour)), luminance(page)], reverse=True)
    assert (high + 0.05) / (low + 0.05) >= 3


def test_a_band_reaches_from_the_lowest_to_the_highest_run():
    with figures.style():
        axes = figures.new_figure().subplots()
        figures.band(axes, [0, 1], np.array([[1.0, 5.0], [2.0, 6.0], [9.0, 7.0]]), color=figures.BLUE, label="x")
    assert axes.lines[0].get_ydata().tolist() == [2, 6]
    corners = axes.collections[0].get_paths()[0].vertices
    assert (corners[:, 1].min(), corners[:, 1].max()) == (1, 9)


def test_a_run_that_diverged_counts_as_infinite_in_the_line_and_leaves_the_band():
    runs = figures.as_array([[1.0, 2.0, 3.0], [1.0, 4.0], [1.0, None]])
    assert np.isnan(runs[1:, 2]).all()
    with figures.style():
        axes = figures.new_figure().subplots()
        figures.band(axes, [0, 1, 2], runs, color=figures.BLUE, label="x")
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [1, 4, np.nan])
    corners = axes.collections[0].get_paths()[0].vertices
    assert {(0, 1), (1, 2), (1, 4), (2, 3)} <= set(map(tuple, corners))


def test_the_error_map_shows_a_number_for_every_cell_also_where_runs_diverged():
    cells = training_curves.load()
    assert any(None in run for cell in cells.values() for run in cell["train_loss"])
    axes = cells, training_curves.BATCH_SIZES, training_curves.LEARNING_RATES
    svg = figures.picture(figures.draw_error_heatmaps, *axes).svg
    numbers = re.findall(r'<text style="font-size: 8px[^>]*>([^<]*)<', svg)
    assert len(numbers) == len(cells) and all(0 <= int(number) <= 100 for number in numbers)


def test_a_run_that_ended_early_counts_with_its_last_error():
    curve = {
        "epoch": [0, 1, 2],
        "train_loss": [[1.0, None], [1.0, 1.0, 1.0]],
        "test_error": [[0.5, 0.9], [0.5, 0.4, 0.3]],
    }
    note = figures.picture(figures.draw_training_curves, {"batch norm": curve}, 1, 10.0).alt
    assert "median test error 60.0 % (30.0 to 90.0 over 2 seeds)" in note


def test_the_curves_of_an_experiment_have_a_row_a_panel_and_a_line_a_norm():
    def kept(end):
        return {
            "epoch": [0, 1],
            "train_loss": [[1.0, end]] * 2 + [[1.0, None]],
            "test_error": [[1.0, end]] * 2 + [[1.0]],
        }

    panels = {"batch size 1": {"BN": kept(0.5)}, "batch size 2": {"BN": kept(0.25), "FN": kept(0.125)}}
    with figures.style():
        figure = figures.new_figure(6, 5)
        note = figures.draw_curves(figure, panels, ("train_loss", "test_error"))
    assert [len(axes.lines) for axes in figure.axes] == [1, 1, 2, 2]
    assert figure.axes[3].lines[1].get_ydata().tolist() == [100, 12.5]
    assert [axes.get_title() for axes in figure.axes] == ["batch size 1", "", "batch size 2", ""]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["BN", "FN"]
    assert figure.axes[0].lines[0].get_color() == figure.axes[2].lines[0].get_color()
    assert "batch size 2, FN: median test error" in note
    with pytest.raises(ValueError, match="at most 9 norms"):
        figures.draw_curves(figure, {"": {str(number): kept(1) for number in range(10)}}, ("train_loss",))


def test_the_gradient_that_bn_leaves_is_drawn_as_a_tangent_of_the_circle():
    x_hat, h = np.array([-1.0, -1.0, 2.0]) / np.sqrt(2), np.array([1.0, -1.0, 1.5])
    with figures.style():
        figure = figures.new_figure(7, 3.4)
        note = figures.draw_batch_of_three(figure, (0, 0, 3), h)
    assert ", ".join(f"{value:.2f}" for value in x_hat) in note
    plane = figure.axes[1]
    arrows = [np.array(text.xy) - text.xyann for text in plane.texts if isinstance(text, Annotation)]
    place = next(line.get_xydata()[0] for line in plane.lines[::-1] if line.get_marker() == "o")
    lengths = [np.linalg.norm(arrow) for arrow in arrows]
    assert np.linalg.norm(place) == pytest.approx(np.sqrt(3)) and lengths[0] == pytest.approx(
        np.linalg.norm(h - h.mean())
    )
    assert arrows[2] @ place == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(arrows[0], arrows[1] + arrows[2])


def test_relu_brings_values_together_and_the_next_bn_stretches_them():
    """Against the standard deviation of a large sample."""
    with figures.style():
        figure = figures.new_figure()
        told = figures.draw_relu_and_bn(figure, samples=401)
    values = np.array([line.get_ydata() for line in figure.axes[0].lines])
    assert values.shape == (401, 3)
    sample = np.maximum(np.random.default_rng(0).normal(size=100_000), 0)
    assert np.allclose(values.std(0), (1, sample.std(), 1), atol=0.02)
    assert np.allclose(values.mean(0), (0, sample.mean(), 0), atol=0.02)
    assert f"from 1 to {sample.std():.2f}" in told and "by 1.71" in told  # sqrt(2 pi / (pi - 1))
