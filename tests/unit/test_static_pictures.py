"""The PNGs of the stored notebooks."""

import base64
import io

import pytest
from PIL import Image

from bnlib import figures
from bnlib.widgets import Explorer, Slider
from tools import static_pictures


def draw(figure, values, power=1):
    axes = figure.subplots()
    axes.plot(values, color=figures.BLUE)
    axes.set_title(f"power {power}")
    return f"A curve that ends at {values[-1]}."


def svg(values, **settings):
    return figures.picture(lambda figure: draw(figure, values, **settings)).svg


def image(picture):
    return Image.open(io.BytesIO(base64.b64decode(picture)))


@pytest.fixture(scope="module")
def curve():
    return static_pictures.png(svg([1, 4, 2]))


def test_a_figure_is_drawn_in_black_on_white_with_its_series_in_colour(curve):
    drawn = image(curve)
    assert drawn.mode == "P" and drawn.size == (950, 404)
    colours = [colour for _, colour in drawn.convert("RGB").getcolors()]
    assert len(colours) <= 64 and (255, 255, 255) in colours
    assert min(max(colour) for colour in colours) < 40, "no ink"
    assert any(blue > red + 120 for red, _, blue in colours), "no series"
    assert len(base64.b64decode(curve)) < 15_000


def test_the_same_figure_gives_the_same_bytes(curve):
    assert static_pictures.png(svg([1, 4, 2])) == curve


def test_html_without_a_drawing_has_no_picture():
    assert static_pictures.drawing({"text/html": "<table><tr><td>1</td></tr></table>"}) is None


def test_of_an_explorer_the_first_position_is_drawn_with_the_values_of_its_controls():
    sliders = [Slider("power", "the power", [1, 2, 3], 2)]
    explorer = Explorer("powers", "Powers; of <x>", sliders, lambda power: [0, 1, 2**power], draw)
    drawn = static_pictures.drawing({"text/html": explorer.html, "image/svg+xml": explorer.svg})
    assert ">power 2<" in drawn and ">Shown: the power 2<" in drawn
    width, height = static_pictures.size(static_pictures.png(drawn))
    assert (width, height) == (950, 404 + 32)


def test_only_a_change_that_is_seen_replaces_a_stored_picture(curve):
    moved = static_pictures.png(svg([1, 4, 2]).replace("stroke-width: 1.8", "stroke-width: 1.9"))
    another_digit = static_pictures.png(svg([1, 4, 2], power=7))
    assert curve != moved and static_pictures.kept(moved, [another_digit, curve]) == curve
    assert static_pictures.kept(another_digit, [curve, moved]) == another_digit
    assert static_pictures.kept(curve, []) == curve
    assert not static_pictures.look_the_same(curve, static_pictures.png('<svg xmlns="http://www.w3.org/2000/svg"/>'))
