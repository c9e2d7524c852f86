"""axe-core reads every page in light and dark, wide and narrow."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import PAGES

READERS = {
    "wide and light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "narrow and dark": {"viewport": {"width": 375, "height": 740}, "color_scheme": "dark"},
}


@pytest.mark.parametrize("page", [*PAGES, "search.html?q=variance", "genindex.html"])
def test_axe_finds_nothing_to_mend(visit, page):
    opened = visit(page, **READERS["wide and light"]).page
    for reader in READERS.values():
        opened.set_viewport_size(reader["viewport"])
        opened.emulate_media(color_scheme=reader["color_scheme"])
        found = Axe().run(opened)
        assert found.violations_count == 0, found.generate_report()
