"""Every slider of every chapter, called at every position in plain Python."""

import re

import pytest

from chapters import ALL_EXPLORERS, explorers
from tools.notebooks import CHAPTERS


@pytest.fixture(scope="module", params=ALL_EXPLORERS, ids=lambda place: f"{place[0]}-{place[1]}")
def explorer(request):
    chapter, index = request.param
    return explorers(CHAPTERS / f"{chapter}.ipynb")[index]


def test_every_position_is_drawn_and_described(explorer):
    for setting in explorer.settings():
        svg, note = explorer.frames[tuple(setting.values())]
        assert svg.startswith("<svg") and 'role="img" aria-label="' in svg
        assert len(note) > 40
        assert "nan" not in svg.lower().replace("tenant", "")
        assert not re.search(r"\bnan\b|\binf\b", note)


def test_no_two_neighbouring_positions_look_alike(explorer):
    """A slider that changes nothing teaches nothing."""
    frames = explorer.frames
    for place, slider in enumerate(explorer.sliders):
        for key in frames:
            index = list(slider.values).index(key[place])
            if index:
                neighbour = (*key[:place], slider.values[index - 1], *key[place + 1 :])
                assert frames[key] != frames[neighbour], (slider.name, key)


def test_the_callback_of_the_kernel_shows_the_frame_of_the_position(explorer):
    panel = explorer.panel
    for setting in explorer.settings():
        for name, value in setting.items():
            panel.controls[name].value = value
        svg, _ = explorer.frames[tuple(setting.values())]
        assert svg in panel.view.value


def test_the_page_of_the_explorer_keeps_its_budget(explorer):
    assert len(explorer.html.encode()) <= explorer.budget


def test_the_sliders_have_labels(explorer):
    assert all(slider.label for slider in explorer.sliders)
    assert all(f"<span>{slider.label}</span><input" in explorer.html for slider in explorer.sliders)
