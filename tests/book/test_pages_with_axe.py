"""Each page of the site read by axe, which finds what readers with a disability stumble over."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import FRONT, PHONE, SCREEN, resize

# Axe reads every page in light on a wide screen, and of one of each kind also the colours, and in dark on a phone: all
# have the same styles, and a chapter every kind of element, so what axe can find there it finds in these.
READERS = {"light": SCREEN, "dark": PHONE}
# Axe takes minutes to walk through all that is alike: a screen reader gets the name of a formula or a picture, not its
# parts, one word of each colour tells whether coloured code can be read, ten rows how a long table or list is made,
# three letters how the index is, six claims how the ledger is, and three names how a page of the reference is.
REMOVE_PARTS = """
() => {
  document.querySelectorAll("math > *, svg[aria-label] > *, .bnb-panels > *").forEach(part => part.remove());
  document.querySelectorAll("article :is(tr, li, dt, dd):nth-child(n + 11)").forEach(entry => entry.remove());
  [...document.querySelectorAll(".genindextable")].slice(3).forEach(letter => letter.remove());
  document.querySelectorAll("article section > section:nth-of-type(n + 7)").forEach(claim => claim.remove());
  document.querySelectorAll("article section > dl.py:nth-of-type(n + 4)").forEach(name => name.remove());
  for (const code of document.querySelectorAll("pre")) {
    const seen = new Set();
    for (const word of code.querySelectorAll("span:not(:has(*))")) {
      if (seen.has(word.className)) word.replaceWith(word.textContent);
      seen.add(word.className);
    }
  }
}
"""


FOUND = "search.html?q=variance"
ONE_OF_EACH_KIND = (
    "chapters/07_why_is_my_bn_failing.html",
    *(f"chapters/{page}.html" for page in ("claims", "glossary", "reference", "status")),
    "index.html",  # genindex.html as well
    FOUND,
)


def complaints(page, contrast=True) -> dict[str, str]:
    """What axe finds: the name of each broken rule and where; contrast takes it more time than all other rules."""
    page.evaluate(REMOVE_PARTS)
    rules = {"color-contrast": {"enabled": contrast}}
    found = Axe().run(page, options={"resultTypes": ["violations"], "rules": rules})
    return {rule["id"]: str([node["html"] for node in rule["nodes"]]) for rule in found.response["violations"]}


def check_as_read_by_all(opened):
    one_of_each = opened.url.endswith(ONE_OF_EACH_KIND)
    for scheme, screen in READERS.items():
        if scheme == "light" or one_of_each:
            opened.emulate_media(color_scheme=scheme)
            if opened.viewport_size != screen:
                resize(opened, screen)
            assert complaints(opened, contrast=one_of_each) == {}


def test_axe_finds_nothing_to_mend(visited):
    """The last test here of a page, which it takes apart."""
    check_as_read_by_all(visited.page)


@pytest.mark.parametrize("path", [FOUND, "genindex.html"])
def test_axe_finds_nothing_to_mend_where_one_looks_things_up(visit, path):
    check_as_read_by_all(visit(path).page)


HARM = """
() => {
  for (const label of document.querySelectorAll(".bnb-slider label")) label.remove();
  document.querySelector("article p").style.color = "#999";
  document.querySelector(".bnb-stage .bnb-panels").removeAttribute("aria-label");
}
"""


def test_axe_finds_sliders_without_a_name_pale_letters_and_a_picture_without_words(visit):
    opened = visit(FRONT).page
    opened.evaluate(HARM)
    assert {"label", "color-contrast", "role-img-alt"} <= complaints(opened).keys()
