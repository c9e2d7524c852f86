"""What a page tells search engines and previews of links, and the page for addresses where there is none."""

import doctest
import importlib
import json
import re
from collections import Counter
from functools import cache

import pytest
import reading_time
import yaml
from bs4 import BeautifulSoup
from conftest import CHAPTERS, PAGES, REFERENCE, ROOT, SITE, soup

CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
DESCRIPTIONS = yaml.safe_load((ROOT / "chapters" / "descriptions.yml").read_text())
EVERY_FILE = sorted(str(path.relative_to(SITE)) for path in SITE.rglob("*.html") if "_static" not in path.parts)
WRITTEN = [*PAGES, *REFERENCE, "index.html", "CHANGELOG.html"]


@cache
def head(page: str) -> BeautifulSoup:
    return BeautifulSoup((SITE / page).read_text().partition("</head>")[0], "html.parser")


def metadata(page: str) -> dict[str, str]:
    return {tag.get("name") or tag.get("property"): tag["content"] for tag in head(page).select("meta[content]")}


@pytest.mark.parametrize("page", EVERY_FILE)
def test_every_page_describes_itself(site, page):
    found = metadata(page)
    assert 40 <= len(found["description"]) <= 250
    assert found["og:description"] == found["description"]
    assert found["og:title"] and found["og:title"] in head(page).title.string
    assert found["og:site_name"] == CONFIG["title"]
    assert found["og:type"] == ("website" if page == "index.html" else "article")
    assert found["twitter:card"] == ("summary_large_image" if CONFIG["html"]["baseurl"] else "summary")
    assert len(head(page).select("meta[name=description]")) == 1


@pytest.mark.parametrize("page", EVERY_FILE)
def test_tags_with_an_address_are_there_if_the_site_has_one_and_then_absolute(site, page):
    found, base = metadata(page), CONFIG["html"]["baseurl"]
    canonical = [tag["href"] for tag in head(page).select("link[rel=canonical]")]
    if not base:
        assert not canonical and not {"og:url", "og:image"} & found.keys()
    elif page != "404.html":
        assert canonical == [found["og:url"]] and found["og:url"].startswith(base)
        assert found["og:image"].startswith(base)


def test_each_title_and_each_written_description_is_that_of_one_page(site):
    titles = Counter(head(page).title.string for page in EVERY_FILE)
    assert [title for title, count in titles.items() if count > 1] == []
    assert len(set(DESCRIPTIONS.values())) == len(DESCRIPTIONS)


def test_there_is_a_written_description_for_every_page_of_the_book_and_for_no_other(site):
    pages = {page.removesuffix(".html") for page in EVERY_FILE if not page.startswith("_modules/")}
    assert pages == set(DESCRIPTIONS)
    for page in WRITTEN:
        assert metadata(page)["description"] == DESCRIPTIONS[page.removesuffix(".html")].strip()


def test_a_title_names_chapter_and_book_once(site):
    assert head("index.html").title.string == CONFIG["title"]
    for page in EVERY_FILE:
        assert head(page).title.string.count(CONFIG["title"]) == 1, page
    for number, page in enumerate(CHAPTERS, 1):
        assert re.fullmatch(rf"{number}\. .+ — {CONFIG['title']}", head(page).title.string)


@pytest.mark.parametrize("page", [*WRITTEN, "genindex.html", "search.html", "404.html"])
def test_a_page_has_one_heading_of_the_first_level_also_on_paper(site, page):
    (heading,) = soup(site / page).find_all("h1")
    if page in CHAPTERS:
        assert heading.get_text().startswith(f"{CHAPTERS.index(page) + 1}. ")


def test_the_address_of_the_site_shows_the_first_page_itself(site):
    html = soup(site / "index.html")
    assert not html.select("meta[http-equiv=refresh]")
    assert html.h1.get_text().startswith(CONFIG["title"]) and len(html.article.get_text().split()) > 300


def test_a_list_of_pages_is_there_if_the_site_has_an_address(site):
    assert (site / "sitemap.xml").exists() == bool(CONFIG["html"]["baseurl"])


@pytest.mark.parametrize("name", ["citation", "not_found", "page_metadata", "reading_time", "sitemap"])
def test_the_examples_in_the_hooks_are_right(name):
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried and not failed


def test_the_reading_time_leaves_exercises_and_proofs_out(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": "# Title\n\n" + "word " * 2380},
        {"cell_type": "code", "source": "word " * 3000},
        {"cell_type": "markdown", "source": "## A section\n\n" + "word " * 1190},
        {"cell_type": "markdown", "source": "#### Proof of it\n\n" + "word " * 3000},
        {"cell_type": "markdown", "source": "## Exercises\n\n### Exercise 1\n\n" + "word " * 3000},
    ]
    (tmp_path / "page.ipynb").write_text(json.dumps({"cells": cells}))
    assert reading_time.minutes(tmp_path, ["page"]) == 15
    assert reading_time.minutes(tmp_path, ["page#a-section"]) == 5
    with pytest.raises(ValueError, match="'nowhere'; it has a-section, exercises"):
        reading_time.minutes(tmp_path, ["page#nowhere"])


def test_the_first_four_chapters_can_be_read_in_an_hour():
    pages = sorted(path.stem for path in (ROOT / "chapters").glob("0[1-4]_*.ipynb"))
    assert len(pages) == 4
    assert reading_time.total_words(ROOT / "chapters", pages) / reading_time.WORDS_PER_MINUTE <= 60


def test_the_introduction_says_how_reading_times_are_computed():
    text = (ROOT / "chapters" / "intro.md").read_text()
    assert f"{reading_time.WORDS_PER_MINUTE} words per minute" in text and "10.1016/j.jml.2019.104047" in text


def test_the_times_on_the_page_are_those_of_the_chapters(site):
    text = soup(site / "chapters" / "intro.html").article.get_text()
    pages = [page.removeprefix("chapters/").removesuffix(".html") for page in CHAPTERS]
    expected = [reading_time.minutes(ROOT / "chapters", named) for named in (pages[:4], pages[5:7])]
    assert [*map(int, re.findall(r"\((\d+) minutes\)", text)[:2])] == expected
