"""What the theme's scripts and styles do for a reader still works: both are cut down to what the pages use."""

import pytest
from conftest import CHAPTERS, Visit


@pytest.fixture(scope="module")
def page(browser, address):
    """A chapter on a wide light screen, whose clipboard may be read."""
    visit = Visit(browser, address + CHAPTERS[0], viewport={"width": 1280, "height": 720}, color_scheme="light")
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield visit.page
    visit.context.close()


def test_the_side_bar_hides_and_comes_back(page):
    beside = page.locator(".bd-sidebar-primary").bounding_box()["x"]
    page.locator(".primary-toggle:visible").click()
    page.wait_for_function("document.querySelector('.bd-sidebar-primary').getBoundingClientRect().right <= 0")
    page.locator(".primary-toggle:visible").click()
    there = "x => document.querySelector('.bd-sidebar-primary').getBoundingClientRect().x === x"
    page.wait_for_function(there, arg=beside)  # it slides


def test_the_theme_switch_goes_through_light_dark_and_the_systems_own(page):
    seen = set()
    for _ in range(3):
        page.locator(".bd-header-article .theme-switch-button:visible").click()
        mode, theme = page.evaluate("(({mode, theme}) => [mode, theme])(document.documentElement.dataset)")
        shown = page.evaluate("getComputedStyle(document.body).backgroundColor")
        icons = page.locator(".bd-header-article .theme-switch:visible")
        assert icons.count() == 1 and icons.get_attribute("data-mode") == mode
        seen.add((mode, theme, shown))
    assert {(mode, theme) for mode, theme, _ in seen} == {("light", "light"), ("dark", "dark"), ("auto", "light")}
    assert len({shown for _, _, shown in seen}) == 2


def test_the_search_opens_and_closes(page):
    page.locator(".search-button-field:visible").click()
    assert page.locator("#pst-search-dialog input").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#pst-search-dialog input").is_visible()


def test_a_cell_is_copied(page):
    cell = page.locator("div.cell_input .highlight:visible").first
    cell.hover()
    cell.locator("button.copybtn").click()
    cell.locator("button.copybtn.success").wait_for()
    assert page.evaluate("navigator.clipboard.readText()").strip() == cell.locator("pre").inner_text().strip()


def test_a_hidden_cell_opens_and_closes(page):
    fold = page.locator("article details.hide").first
    inside = fold.locator(":scope > :not(summary)").first
    assert not inside.is_visible()
    fold.locator("summary").first.click()
    assert inside.is_visible()
    fold.locator("summary").first.click()
    assert not inside.is_visible()


def test_the_menu_of_downloads_opens(page):
    link = page.locator("a.btn-download-source-button")
    assert not link.is_visible()
    page.locator(".dropdown-download-buttons > button").click()
    assert link.is_visible()
    page.locator("article h1").click()
    assert not link.is_visible()


def test_a_phone_shows_the_chapters_and_the_contents_of_the_page_when_asked(visit):
    page = visit(CHAPTERS[-1], viewport={"width": 390, "height": 844}).page
    for side in ("primary", "secondary"):
        dialog = page.locator(f"#pst-{side}-sidebar-modal")
        assert not dialog.is_visible()
        page.locator(f".{side}-toggle:visible").click()
        dialog.locator("a").nth(5).wait_for()
        page.keyboard.press("Escape")
        dialog.wait_for(state="hidden")
