"""Every explorer of every chapter: the frames that its page holds, and the widgets that show them in a notebook."""

import html
import json
import re
from functools import cache

import pytest
from bs4 import BeautifulSoup
from conftest import SITE

from bnlib.widgets import Choice, Slider
from chapters import explorers, with_explorer
from tools.notebooks import CHAPTERS, chapters

ALL_EXPLORERS = [(path.stem, index) for path in chapters() for index in range(len(with_explorer(path)))]


@cache
def elements(chapter: str) -> list:
    page = (SITE / "chapters" / f"{chapter}.html").read_text()
    return BeautifulSoup(page, "html.parser").select(".bnb-explorer")


def frames(explorer, element) -> dict[tuple, tuple[str, str]]:
    """What the page shows at each position, put together as its script does."""
    payload = json.loads(element.select_one("script").string)
    lines = payload["lines"]
    drawn = [
        "\n".join(line for start, end in zip(frame[::2], frame[1::2], strict=True) for line in lines[start:end])
        for frame in payload["frames"]
    ]
    keys = [tuple(setting.values()) for setting in explorer.settings()]
    return dict(zip(keys, zip(drawn, payload["notes"], strict=True), strict=True))


@pytest.fixture(scope="module", params=ALL_EXPLORERS, ids=lambda place: f"{place[0]}-{place[1]}")
def explorer(request, site):
    """The explorer of the notebook, with the frames that its page was built with instead of new ones."""
    chapter, index = request.param
    made = explorers(CHAPTERS / f"{chapter}.ipynb")
    assert len(elements(chapter)) == len(made)
    made[index].element = elements(chapter)[index]
    made[index].frames = frames(made[index], made[index].element)
    return made[index]


def test_the_page_shows_what_the_notebook_draws(explorer):
    first, *_, last = explorer.settings()
    # The default is drawn in any case, for the layout of all others.
    for setting in (first, explorer.defaults if explorer.defaults != first else last):
        drawn, note = explorer.picture(explorer.data(**setting), setting)
        assert (drawn, note) == explorer.frames[tuple(setting.values())], setting


def test_every_position_is_drawn_and_described(explorer):
    for svg, note in explorer.frames.values():
        assert svg.startswith('<div class="bnb-panels" role="img" aria-label="') and "<svg" in svg
        assert len(note) > 40
        assert "nan" not in svg.lower().replace("tenant", "")
        assert not re.search(r"\bnan\b|\binf\b", note)


def test_each_position_has_a_name_of_its_own(explorer):
    """The description of the picture follows the controls."""
    names = {key: re.search(r' aria-label="([^"]*)"', svg)[1] for key, (svg, _) in explorer.frames.items()}
    assert len(set(names.values())) == len(names)
    for key, name in names.items():
        for control, value in zip(explorer.controls, key, strict=True):
            assert f"{control.label} {control.text(value)}" in html.unescape(name)


def test_no_two_neighbouring_positions_say_the_same(explorer):
    """The note tells what a step has changed even where nothing moves; the walk in the browser sees the picture."""
    for place, control in enumerate(explorer.controls):
        for key, (_, note) in explorer.frames.items():
            index = control.values.index(key[place])
            if index:
                neighbour = (*key[:place], control.values[index - 1], *key[place + 1 :])
                assert note != explorer.frames[neighbour][1], (control.name, key)


def test_the_callback_of_the_kernel_shows_the_frame_of_the_position(explorer):
    panel = explorer.panel
    for setting in explorer.settings():
        for name, value in setting.items():
            panel.controls[name].value = value
        svg, _ = explorer.frames[tuple(setting.values())]
        assert svg in panel.view.value


def test_the_page_of_the_explorer_keeps_its_budget(explorer):
    assert len(str(explorer.element).encode()) <= explorer.budget


def test_the_controls_have_labels_and_the_values_of_the_notebook(explorer):
    elements = explorer.element.select(".bnb-controls > [data-name]")
    texts = json.loads(explorer.element.select_one("script").string)["texts"]
    for control, element in zip(explorer.controls, elements, strict=True):
        assert control.label and element.select_one("label, legend").string == control.label
        assert element["data-name"] == control.name and texts[control.name] == control.texts
        told = [each.string for each in element.select("option, .bnb-buttons span, output")]
        assert told == (control.texts if isinstance(control, Choice) else [control.text(control.default)])


def test_sliders_are_for_numbers_in_order(explorer):
    for control in explorer.controls:
        in_order = all(isinstance(each, int | float) for each in control.values) and (
            control.values in (sorted(control.values), sorted(control.values, reverse=True))
        )
        assert isinstance(control, Slider) == in_order, control.name
