"""The search of the built site: queries and symptoms, by keyboard, on a phone, elsewhere, without scripts."""

import re
from urllib.parse import urlsplit

import pytest
import yaml
from conftest import CHAPTERS, PATIENCE, ROOT, Visit, check_that_it_is_at_home
from mdit_py_plugins.anchors.index import slugify

from bnlib.doctor import SYMPTOM_GROUPS, all_advice

ASKED = yaml.safe_load((ROOT / "tests" / "book" / "queries.yml").read_text())
QUERIES, SYMPTOMS = ({each[key]: each["sections"] for each in ASKED if key in each} for key in ("query", "symptom"))
SYNONYMS = yaml.safe_load((ROOT / "chapters" / "synonyms.yml").read_text())
SCREEN = {"width": 1280, "height": 720}
# TeX, Markdown, HTML.
MARKUP = re.compile(r"\\[a-zA-Z]+|\$|[_^]\{|</?[a-z]+>|\*\*|\]\(")

RESULTS = """
items => items.map(item => ({
  href: item.querySelector("a").getAttribute("href"),
  title: item.querySelector("a").innerText,
  snippet: item.querySelector(".bnb-snippet").innerText,
  marks: item.querySelectorAll("mark").length,
}))
"""


def ask(page, query: str) -> list[dict]:
    """Type a query; returns the results."""
    page.fill(".bd-search-container input[name=q]", query)
    page.keyboard.press("Enter")
    return page.eval_on_selector_all("#search-results li", RESULTS)


@pytest.fixture(scope="module")
def search(browser, address):
    """The search page."""
    opened = Visit(browser, address + "search.html", viewport=SCREEN)
    yield opened
    opened.context.close()


@pytest.fixture(scope="module")
def answers(search) -> dict[str, list[dict]]:
    """The results of each query and of each symptom."""
    return {query: ask(search.page, query) for query in [*QUERIES, *SYMPTOMS]}


def missed(asked: dict, answers: dict) -> dict[str, list[str]]:
    """What was asked without finding one of its sections among the first three results, with these results."""
    found = {}
    for query, sections in asked.items():
        wanted = {"chapters/{}.html#{}".format(*section.split("#")) for section in sections}
        first = [result["href"] for result in answers[query][:3]]
        if not wanted & set(first):
            found[query] = first
    print(f"{len(asked) - len(found)} of {len(asked)}; missed: {found}")
    return found


def test_of_forty_queries_nearly_all_find_their_section_among_the_first_three(answers):
    assert len(QUERIES) >= 42
    assert len(missed(QUERIES, answers)) <= 6


def test_the_heading_above_many_rows_does_not_stand_before_a_row_that_fits(answers):
    headings = {f"chapters/07_why_is_my_bn_failing.html#{slugify(title)}" for title in SYMPTOM_GROUPS.values()}
    rows = [query for query, sections in SYMPTOMS.items() if all("#symptom-" in section for section in sections)]
    firsts = [answers[query][0]["href"] for query in rows]
    assert len(rows) >= 90 and not headings & set(firsts)
    assert sum("#symptom-" in href for href in firsts) >= 0.9 * len(rows)


def test_more_words_are_those_of_a_row_and_lead_to_it(search):
    assert SYNONYMS["rows"].keys() <= all_advice().keys()
    for name in ("one-value-per-channel", "decay-of-gamma", "statistics-of-each-tile"):
        words = SYNONYMS["rows"][name].split(", ")
        found = [[result["href"].partition("#symptom-")[2] for result in ask(search.page, each)[:3]] for each in words]
        assert sum(name in each for each in found) >= len(words) / 2, found


def test_of_thirty_symptoms_nearly_all_find_their_section_among_the_first_three(answers):
    assert len(SYMPTOMS) >= 30 and len(QUERIES) + len(SYMPTOMS) == len(ASKED)
    assert len(missed(SYMPTOMS, answers)) <= 3


def test_every_result_is_a_section_with_readable_words_around_what_was_found(answers, site):
    for query, results in answers.items():
        assert 1 <= len(results) <= 10, query
        for result in results:
            page, _, anchor = result["href"].partition("#")
            assert f'id="{anchor}"' in (site / page).read_text(), result
            assert result["title"] and 3 <= len(result["snippet"]) <= 400 and result["marks"] <= 20, result
            assert not MARKUP.search(result["snippet"]), result
        assert sum(result["marks"] > 0 for result in results) >= len(results) / 2, query


def test_the_search_asks_no_other_host_and_does_not_complain(search, answers, address):
    check_that_it_is_at_home(search, address)


def test_results_come_while_one_types_and_a_screen_reader_is_told_how_many(search):
    page = search.page
    page.fill(".bd-search-container input[name=q]", "")
    page.keyboard.type("sharpness")
    page.wait_for_function("document.querySelector('#search-status').textContent.includes('“sharpness”')")
    told = page.get_by_role("status").inner_text()
    shown = page.locator("#search-results li").count()
    assert re.match(rf"(The {shown} best of \d+ sections|{shown} sections?) for ", told)
    assert page.get_by_role("search").get_by_role("searchbox", name="Search the book").is_visible()
    more = page.get_by_role("button", name="Show more")
    more.click()
    assert page.locator("#search-results li").count() > shown
    assert page.evaluate("document.activeElement === document.querySelectorAll('#search-results a')[10]")


def test_what_is_not_in_the_book_leads_to_the_index(search):
    for query in ("zebra crossing", "__proto__", "constructor"):
        ask(search.page, query)
    assert ask(search.page, "zebra") == []
    assert "No section" in search.page.get_by_role("status").inner_text()
    assert search.page.get_by_role("status").get_by_role("link").get_attribute("href") == "genindex.html"
    assert ask(search.page, "") == [] and search.page.get_by_role("status").inner_text() == ""


def test_synonyms_are_words_of_the_book_and_no_name_means_two_things(search):
    names = [name for line in SYNONYMS["same"] for name in line]
    assert len(names) == len(set(names))
    unknown = search.page.evaluate(
        """all => {
          const engine = new BookSearch(BOOK);
          return all.filter(text => engine.words(text).some(word => !engine.known.has(word)));
        }""",
        [*SYNONYMS["see"].values(), *(line[0] for line in SYNONYMS["same"] if not SYNONYMS["see"].keys() & set(line))],
    )
    assert unknown == [], "in chapters/synonyms.yml, but nowhere in the book"


def test_the_dialog_finds_by_keyboard_and_leads_to_a_section_without_marks(search, address):
    page = search.page
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="dark")
    page.goto(address + "chapters/reference.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("batch size 1")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    while not page.evaluate("document.activeElement.closest('#search-results') !== null"):
        page.keyboard.press("Tab")
    target = page.evaluate("document.activeElement.href")
    page.keyboard.press("Enter")
    page.wait_for_url(target, wait_until="domcontentloaded")
    assert page.url.startswith(address + "chapters/")
    anchor = urlsplit(target).fragment
    page.wait_for_function("id => Math.abs(document.getElementById(id).getBoundingClientRect().top) < 300", arg=anchor)
    assert page.locator("mark, .highlighted").count() == 0


def test_the_search_works_under_any_address(browser, site):
    prefix = "http://book.test/some/path/"
    with browser.new_context(viewport=SCREEN) as context:
        context.set_default_timeout(PATIENCE)
        context.route(
            "**/*", lambda route: route.fulfill(path=site / urlsplit(route.request.url).path[len("/some/path/") :])
        )
        asked = []
        context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()
        page.goto(prefix + "search.html?q=sharpness")
        link = page.locator("#search-results a").first.evaluate("link => link.href")
        assert link.startswith(prefix + "chapters/")
        assert all(url.startswith(prefix) for url in asked)


@pytest.mark.parametrize("path", ["search.html", CHAPTERS[-1]])
def test_without_scripts_a_sentence_leads_to_the_index(visit, path):
    page = visit(path, java_script_enabled=False, viewport=SCREEN).page
    sentence = page.locator("noscript p").last
    assert sentence.bounding_box()["height"] > 10 and "Search needs JavaScript" in sentence.inner_text()
    assert sentence.locator("a").first.get_attribute("href").endswith("genindex.html")
    assert not page.locator(".bd-search:visible, .search-button__button:visible").count()
