"""axe-core reads every page in light on a wide screen, and one of each kind also in dark on a phone.

All pages have the same styles, and a chapter every kind of element: what axe can find in dark it finds in these.
"""

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import PAGES

READERS = {"light": {"width": 1280, "height": 900}, "dark": {"width": 375, "height": 740}}
# Axe takes minutes to walk through all that is alike: a screen reader gets the name of a formula or a picture, not its
# parts, one word of each colour tells whether coloured code can be read, and ten rows how a long table or list is made.
REMOVE_PARTS = """
() => {
  document.querySelectorAll("mjx-container > *, svg[aria-label] > *").forEach(part => part.remove());
  document.querySelectorAll("article :is(tr, li, dt, dd):nth-child(n + 11)").forEach(entry => entry.remove());
  for (const code of document.querySelectorAll("pre")) {
    const seen = new Set();
    for (const word of code.querySelectorAll("span:not(:has(*))")) {
      if (seen.has(word.className)) word.replaceWith(word.textContent);
      seen.add(word.className);
    }
  }
}
"""


def complaints(page) -> str:
    """What axe finds, as a text to read; empty if nothing."""
    page.evaluate(REMOVE_PARTS)
    found = Axe().run(page, options={"resultTypes": ["violations"]})  # without the names of all that is well
    return found.generate_report() if found.violations_count else ""


FOUND = "search.html?q=variance"
IN_DARK = ("chapters/07_why_is_my_bn_failing.html", "chapters/claims.html", "chapters/status.html", FOUND)


@pytest.mark.parametrize("path", [*PAGES, FOUND, "genindex.html"])
def test_axe_finds_nothing_to_mend(visit, path):
    opened = visit(path).page
    for scheme, screen in READERS.items():
        if scheme == "light" or path in IN_DARK:
            opened.emulate_media(color_scheme=scheme)
            opened.set_viewport_size(screen)
            opened.wait_for_timeout(500)  # the theme sees after 300 ms what scrolls and must be reached by keyboard
            assert complaints(opened) == ""


@pytest.mark.parametrize(
    "harm",
    [
        "for (const slider of document.querySelectorAll('.bnb-slider')) slider.replaceWith(slider.children[1])",
        "document.querySelector('article p').style.color = '#999'",
        "document.querySelector('.bnb-stage svg').removeAttribute('aria-label')",
    ],
    ids=["a slider without a label", "pale letters", "a picture without a name"],
)
def test_axe_finds_what_was_harmed(visit, harm):
    opened = visit("chapters/01_the_formula.html", color_scheme="light").page
    opened.evaluate(harm)
    assert complaints(opened)
