"""What a reader does on the built site in Chromium: searches, reads without scripts or on a phone, by keyboard."""

import pytest
from conftest import CHAPTERS, check_that_it_is_at_home


@pytest.mark.parametrize("page", [CHAPTERS[0], CHAPTERS[-1]])
def test_without_scripts_the_default_pictures_are_there(visit, page):
    opened = visit(page, java_script_enabled=False).page
    for explorer in opened.locator(".bnb-explorer").all():
        assert explorer.locator(".bnb-panels > svg").first.is_visible()
        assert all(control.is_disabled() for control in explorer.locator("input, select").all())
        assert explorer.get_by_text("These controls do nothing here").is_visible()
        assert explorer.locator("button").count() == 0


def test_the_search_finds_what_a_chapter_says_without_another_host(visit, address):
    visited = visit("search.html?q=biased")
    visited.page.wait_for_selector("#search-results li")
    assert "The formula" in visited.page.locator("#search-results").inner_text()
    check_that_it_is_at_home(visited, address)
