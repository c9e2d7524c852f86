"""Figures as panels that wrap."""

import re

import pytest
from bs4 import BeautifulSoup
from matplotlib.patches import Patch

from bnlib import figures


def shared(figure):
    left, right = figure.subplots(1, 2, sharey=True)
    for axes in (left, right):
        axes.plot([1, 2], color=figures.BLUE, label="a <curve>")
        axes.errorbar([0, 1], [1, 2], [0.1, 0.1], fmt="o", color=figures.GREEN, label="points")
        axes.set_xlabel("step")
    left.set_ylabel("loss")
    right.legend()
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center")
    return "Two panels & a legend."


def elements(draw, size=(7, 3)):
    return BeautifulSoup(figures.picture(draw, size=size).html, "html.parser")


def windows(page):
    return [[float(each) for each in svg["viewbox"].split()] for svg in page.select(".bnb-panels > svg")]


def test_each_panel_has_a_window_of_its_own_beside_the_next_and_all_texts_of_a_shared_axis():
    page = elements(shared)
    assert page.select_one("[role=img]")["aria-label"] == "Two panels & a legend."
    (x, _, width, height), (next_x, _, next_width, next_height) = windows(page)
    assert x == 0 and next_x == pytest.approx(width, abs=0.2) and height == next_height
    assert width == pytest.approx(next_width, rel=0.2)
    for panel in page.select(".bnb-panels > svg"):
        texts = [text.text for text in panel.select("text")]
        assert "loss" in texts and "step" in texts and "1.0" in texts


def test_a_legend_is_text_of_the_page_with_a_sample_of_each_series_once():
    page = elements(shared)
    keys = page.select(".bnb-legend > span")
    assert [key.text.strip() for key in keys] == ["a <curve>", "points"]
    for key, color in zip(keys, (figures.BLUE, figures.GREEN), strict=True):
        assert color.lower() in str(key.svg)
    assert "curve" not in "".join(svg.text for svg in page.select(".bnb-panels > svg"))


def test_the_samples_of_a_legend_stand_in_their_windows():
    for key in elements(shared).select(".bnb-legend svg"):
        x, y, width, height = map(float, key["viewbox"].split())
        points = re.findall(r'd="M ([\d.]+) ([\d.]+)', str(key))
        assert points and all(x <= float(a) <= x + width and y <= float(b) <= y + height for a, b in points)


def test_a_legend_of_samples_that_are_in_no_axes_is_kept():
    def with_own_samples(figure):
        figure.add_subplot().plot([0, 1])
        figure.legend(
            handles=[Patch(color=figures.PURPLE, label="forward"), Patch(color=figures.BLUE, label="backward")]
        )
        return "A line."

    keys = elements(with_own_samples).select(".bnb-legend > span")
    assert [key.text.strip() for key in keys] == ["forward", "backward"]
    assert figures.PURPLE.lower() in str(keys[0].svg)


@pytest.mark.parametrize("smallest", [8, 10])
def test_a_wide_figure_is_drawn_so_narrow_that_its_smallest_letters_have_11_pixels_on_a_phone(smallest):
    def wide(figure):
        figure.subplots().set_title("a title", fontsize=smallest)
        return "Wide axes."

    ((_, _, width, _),) = windows(elements(wide, size=(12, 3)))
    assert smallest * 344 / width >= 11
    assert smallest * 344 / width < 12, "and not narrower"


def test_a_colour_bar_stays_in_the_panel_of_its_picture():
    def draw(figure):
        left, _ = figure.subplots(1, 2)
        figure.colorbar(left.imshow([[0, 1]]), ax=left)
        return "A picture and empty axes."

    assert len(windows(elements(draw))) == 2


def test_a_series_without_points_leaves_every_text_in_its_own_panel():
    def draw(figure):
        for axes, name in zip(figure.subplots(1, 2), ("left", "right"), strict=True):
            axes.plot([], [], "o", label="nothing")
            axes.set(title=f"title of the {name}", xlabel=f"label of the {name}")
        return "Two empty panels."

    for svg, name in zip(elements(draw).select(".bnb-panels > svg"), ("left", "right"), strict=True):
        assert f"title of the {name}" in svg.text and f"label of the {name}" in svg.text


def test_rows_and_columns_are_cut_into_as_many_windows_which_fill_the_figure():
    def draw(figure):
        figure.subplots(2, 3, sharex=True, sharey=True)
        figure.supxlabel("a label of all")
        return "Six panels."

    page = elements(draw, size=(7, 4))
    assert all("a label of all" in svg.text for svg in page.select(".bnb-panels > svg"))
    found = windows(page)
    assert len(found) == 6
    assert [y == 0 for _, y, *_ in found] == [True] * 3 + [False] * 3
    assert sum(width for *_, width, _ in found[:3]) == pytest.approx(found[2][0] + found[2][2], abs=0.3)
    assert found[0][3] + found[3][3] == pytest.approx(4 * 72, abs=0.3)


def test_a_figure_for_a_file_is_one_svg_with_its_legend_inside():
    svg = figures.picture(shared).svg
    assert svg.startswith("<svg") and svg.count("<svg") == 1 and "a &lt;curve&gt;" in svg
