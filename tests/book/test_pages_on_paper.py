"""Each page of the site printed by Chromium."""

import pytest
from conftest import CHAPTERS, SHOWS

# A4 less its margins, in pixels of CSS.
SHEET = {"width": 688, "height": 1001}
HIDDEN = (
    ".bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article, .prev-next-footer, .copybtn, .bnb-slider input, "
    ".bnb-play, .bnb-actions, .bnb-rest, .bnb-buttons input:not(:checked) + span, .bnb-again, "
    ".bnb-laboratory :is(button, input, select, summary)"
)
# What unfolds on paper: of a prediction the right option alone, whose text names the answer and its reason. In the
# laboratory folds are controls.
FOLDS = "article details:not(.bnb-prediction > :not([data-right]), .bnb-laboratory *)"
OPEN = "article details[open]:not(.bnb-laboratory *)"

# What reaches over the right edge of the sheet, or is cut off within a box of its own.
CUT_OFF = """
() => [...document.querySelectorAll("html, article :is(div, pre, table, p, svg)")].filter(element => {
  if (!element.checkVisibility() || element.closest("math, svg *")) return false;
  const holds = element.matches("html, pre") || getComputedStyle(element).overflowX !== "visible";
  const cut = holds && element.scrollWidth > element.clientWidth + 1;
  return cut || element.getBoundingClientRect().right > innerWidth + 1;
}).map(element => element.outerHTML.slice(0, 200))
"""


# Whether each of some elements can be seen.
SEEN = "elements => elements.map(element => element.checkVisibility({visibilityProperty: true}))"


@pytest.mark.parametrize("narrow", [SHEET["width"]], indirect=True)
def test_on_paper_nothing_is_cut_off_folded_or_dark(narrow):
    opened = narrow.page
    opened.emulate_media(color_scheme="dark")
    opened.wait_for_function(SHOWS, arg="dark")
    folds = opened.locator(FOLDS).count()
    folded = opened.eval_on_selector_all(f"{FOLDS} > :not(summary)", SEEN)
    assert not any(folded) and bool(folded) == bool(folds)
    opened.emulate_media(media="print")
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.locator(OPEN).count() == folds
    assert all(opened.eval_on_selector_all(f"{FOLDS} > :not(summary)", SEEN))
    assert not any(opened.eval_on_selector_all(HIDDEN, SEEN))
    assert opened.eval_on_selector_all("h1", SEEN) == [True]
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert opened.evaluate(CUT_OFF) == []
    assert all(opened.eval_on_selector_all(".bnb-explorer :is(output, select, :checked + span)", SEEN))
    opened.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.locator(OPEN).count() == 0
    assert opened.evaluate("document.documentElement.dataset.theme") == "dark"


def test_the_browser_asks_for_this_when_it_prints(visit):
    opened = visit("chapters/intro.html", color_scheme="dark").page
    opened.evaluate("addEventListener('beforeprint', () => { window.theme = document.documentElement.dataset.theme })")
    opened.pdf()
    assert opened.evaluate("window.theme") == "light"


def test_what_is_too_wide_for_the_sheet_is_noticed(visit):
    opened = visit(CHAPTERS[-1], viewport=SHEET).page
    opened.emulate_media(media="print")
    shown = "[...document.querySelectorAll('article pre')].find(pre => pre.checkVisibility())"  # the imports are folded
    opened.evaluate(f"{shown}.style.whiteSpace = 'pre'")
    opened.evaluate(f"{shown}.prepend('wide '.repeat(100))")
    assert opened.evaluate(CUT_OFF) != []
