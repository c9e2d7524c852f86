"""Each page of the site in Chromium, with no kernel: nothing from elsewhere, light, whole and readable."""

import pytest
from conftest import BROKEN_WORDS, EVERY_CHAPTER, PHONE, SHOWS, WITH_SLIDERS, check_that_it_is_at_home


def test_a_page_asks_no_other_host_and_does_not_complain(visited, address):
    check_that_it_is_at_home(visited, address)


def test_a_page_weighs_at_most_a_megabyte_beside_what_all_pages_share(visited):
    own = [response for response in visited.responses if "/_static/" not in response.url]
    assert 0 < sum(len(response.body()) for response in own) <= 1_000_000


# The icons that a page names and does not draw: their font is cut down to those that some page uses.
BLANK = """
async () => {
  const missing = [];
  for (const icon of document.querySelectorAll("[class*='fa-']")) {
    const { content, fontFamily, fontWeight } = getComputedStyle(icon, "::before");
    const glyph = content.replaceAll('"', "");
    const box = document.createElement("canvas").getContext("2d");
    const font = family => `${fontWeight} 20px ${family}`;
    await document.fonts.load(font(fontFamily), glyph);
    const [drawn, blank] = [fontFamily + ", monospace", "monospace"].map(family => {
      box.font = font(family);
      return box.measureText(glyph).width;
    });
    if (content === "none" || drawn === blank) missing.push(icon.outerHTML);
  }
  return missing;
}
"""


def test_every_icon_is_drawn(visited):
    assert visited.page.locator("[class*='fa-']").count() > 5
    assert visited.page.evaluate(BLANK) == []


# What is cut off and cannot be scrolled.
CUT_OFF = """
() => [...document.querySelectorAll("article :is(div, p, pre, table, td, .math)")].filter(element =>
  ["hidden", "clip"].includes(getComputedStyle(element).overflowX) && element.scrollWidth > element.clientWidth + 1
).map(element => element.outerHTML.slice(0, 200))
"""


@pytest.mark.parametrize("narrow", [375], indirect=True)
def test_a_phone_shows_the_page_without_scrolling_sideways(narrow):
    assert narrow.page.evaluate("document.documentElement.scrollWidth") <= 375
    assert narrow.page.evaluate(CUT_OFF) == []
    for slider in narrow.page.locator("input[type=range]").all():
        assert slider.bounding_box()["width"] > 200


def test_names_of_rows_break_between_words_only_on_a_phone(narrow):
    assert narrow.page.evaluate(BROKEN_WORDS, ".bnb-results th[scope=row]") == []


@pytest.mark.parametrize("path", ["genindex.html", "py-modindex.html", "404.html", "CHANGELOG.html"])
def test_a_phone_shows_pages_beside_the_chapters_without_scrolling_sideways(visit, path):
    assert visit(path, viewport=PHONE).page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_mathematics_is_set_without_a_script_and_only_where_there_is_some(visited):
    written = visited.page.locator("article .math").count()
    assert written == visited.page.locator("article .math > math").count()
    asked = [url.partition("?")[0] for url in visited.requests if not url.startswith("data:")]
    of_formulas = {url.rpartition("/")[2] for url in asked if "math" in url.lower()}
    assert of_formulas == ({"mathematics.css", "mathematics.woff2"} if written else set())
    if written:
        assert visited.page.evaluate("document.fonts.check('16px \"STIX Two Math\"')")


# Of each panel of each figure: whether it is cut off, the smallest letters in it, and what of its text leaves it.
PANELS = """
() => [...document.querySelectorAll(".bnb-figure, .bnb-stage")].map(figure => {
  const panels = [...figure.querySelectorAll(".bnb-panels > svg")];
  const texts = panels.flatMap(panel => [...panel.querySelectorAll("text")].map(text => {
    const [inner, outer] = [text.getBoundingClientRect(), panel.getBoundingClientRect()];
    const out = Math.max(outer.left - inner.left, inner.right - outer.right, outer.top - inner.top,
                         inner.bottom - outer.bottom);
    const size = parseFloat(getComputedStyle(text).fontSize) * outer.width / panel.viewBox.baseVal.width;
    return {text: text.textContent, out, size};
  }));
  const parts = [figure, ...panels, ...figure.querySelectorAll(".bnb-legend, .bnb-legend > span")];
  return {
    name: figure.querySelector("[role=img]").ariaLabel.slice(0, 80),
    panels: panels.length,
    right: Math.max(...parts.map(part => part.getBoundingClientRect().right)),
    scrolls: parts.some(part => part.scrollWidth > part.clientWidth + 1 && part.matches("div, span")),
    small: texts.filter(each => each.size < (innerWidth < 600 ? 11 : 10)).map(each => each.text),
    out: texts.filter(each => each.out > 3).map(each => each.text),
    tops: new Set(panels.map(panel => panel.getBoundingClientRect().top)).size,
  };
})
"""


@EVERY_CHAPTER
@pytest.mark.parametrize("narrow", [375, 390], indirect=True)
def test_panels_are_whole_and_legible_and_stack_on_a_phone(narrow):
    for each in whole_figures(narrow.page):
        assert each["tops"] == each["panels"], f"panels do not stack: {each}"


@EVERY_CHAPTER
def test_panels_and_legends_are_whole_and_legible_on_a_wide_screen(visited):
    whole_figures(visited.page)


def whole_figures(opened) -> list[dict]:
    """The figures of a page, none of which reaches out of it, is cut off or has letters that are too small."""
    figures = opened.evaluate(PANELS)
    assert figures
    for each in figures:
        assert each["right"] <= opened.viewport_size["width"] and not each["scrolls"], each
        assert not each["small"] and not each["out"], each
    return figures


CONTRAST = """
elements => elements.map(element => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
      .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
      .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  let behind = element;
  let colour = [0, 0, 0, 0];
  while (behind && colour[3] === 0) {
    colour = parse(getComputedStyle(behind).backgroundColor);
    if (colour.length === 3) colour.push(1);
    behind = behind.parentElement;
  }
  const style = getComputedStyle(element);
  const ink = parse(style.fill);
  const [high, low] = [light(ink), light(colour)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
})
"""


@WITH_SLIDERS
def test_text_in_figures_is_readable_in_light_and_dark(visited):
    """Axe reads the other text (test_pages_with_axe.py)."""
    opened = visited.page
    figures = "article svg text[style*=currentColor], article svg tspan[style*=currentColor]"
    behind = "e => e.map(x => getComputedStyle(x.parentElement).backgroundColor)"
    for scheme in ("dark", "light"):
        opened.emulate_media(color_scheme=scheme)
        opened.wait_for_function(SHOWS, arg=scheme)
        background = opened.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (scheme == "light")
        assert set(opened.eval_on_selector_all(".bnb-figure, .bnb-explorer", behind)) == {"rgba(0, 0, 0, 0)"}
        contrasts = opened.eval_on_selector_all(figures, CONTRAST)
        assert contrasts and min(contrasts) >= 4.5
