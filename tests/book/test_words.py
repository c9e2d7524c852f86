"""Glossary, index, summaries: what they name exists and speaks of it, and no section of the book is left out."""

import re
from collections import Counter
from functools import cache
from itertools import chain
from pathlib import Path

import nbformat
import pytest
import yaml
from conftest import soup
from mdit_py_plugins.anchors.index import slugify

from tools import notebooks

FOLDER = notebooks.CHAPTERS
INDEX = yaml.safe_load((FOLDER / "index.yml").read_text())
ENTRIES = [(page, place, term) for page in INDEX for place in INDEX[page] for term in INDEX[page][place]]
FILLING = {"and", "the", "its", "for", "when", "that", "them", "they", "their", "what", "with", "into", "besid"}
# At the end of each chapter, and the heading above its exercises.
EVERYWHERE = {"exercises", "what-to-remember", "references", "further-reading"}
GLOSSARY = re.findall(
    r"^(\S.*)\n  (.+\(([\w.]+)#([\w-]+)\).*)$", (FOLDER / "glossary.md").read_text(), flags=re.MULTILINE
)


@cache
def sections(page: str) -> dict[str, str]:
    """What stands below each heading of a page, up to the next one, by its anchor: text, code and stored outputs."""
    path = FOLDER / f"{page}.ipynb"
    if not path.exists():
        path = path.with_suffix(".md")
    found, anchor = {}, ""
    for line in chain.from_iterable(map(str.splitlines, pieces(path))):
        if heading := re.fullmatch(r"#{1,3} (.+)", line):
            anchor = slugify(heading[1])
        found[anchor] = f"{found.get(anchor, '')}\n{line}"
    return found


def pieces(path: Path):
    if path.suffix == ".md":
        yield path.read_text()
        return
    for cell in nbformat.read(path, as_version=4).cells:
        # A comment in code is no heading.
        yield cell.source if cell.cell_type == "markdown" else cell.source.replace("#", "")
        for output in cell.get("outputs", []):
            yield output.get("text", "") or output.data.get("text/plain", "")


def words(term: str) -> set[str]:
    """What a section must contain: the beginnings of a term's words, without figures and filling words."""
    return {word[:5] for word in re.findall(r"[^\W\d_]{3,}", term.lower())} - FILLING


@pytest.mark.parametrize(("page", "place"), [(page, place) for page in INDEX for place in INDEX[page]])
def test_the_index_leads_to_sections_that_speak_of_the_entry(page, place):
    """A sub-entry's words must all be there, and one of those that it stands below."""
    assert place in sections(page), f"{page} has {', '.join(sections(page))}"
    text = sections(page)[place].lower()
    for term in INDEX[page][place]:
        above, _, below = term.rpartition("; ")
        assert not (absent := [word for word in words(below) if word not in text]), f"{term}: no {absent}"
        assert above == "symptom" or not words(above) or any(word in text for word in words(above)), term


def test_the_index_has_no_entry_twice_and_symptoms_among_them():
    assert len(ENTRIES) == len(set(ENTRIES)) >= 150
    assert sum(term.startswith("symptom; ") for *_, term in ENTRIES) >= 20


def test_the_index_on_the_site_has_every_entry(site):
    html = soup(site / "genindex.html")
    links = Counter(link["href"] for link in html.select(".indextable a"))
    expected = Counter(f"chapters/{page}.html#{place}" for page, place, _ in ENTRIES)
    assert not expected - links


@pytest.mark.parametrize("path", notebooks.numbered(), ids=lambda path: path.stem)
def test_no_section_of_a_chapter_is_missing_in_the_index(path):
    assert set(sections(path.stem)) - EVERYWHERE == set(INDEX[path.stem])


@pytest.mark.parametrize(("term", "meaning", "page", "place"), GLOSSARY, ids=[term for term, *_ in GLOSSARY])
def test_the_glossary_leads_to_sections_that_use_the_term(term, meaning, page, place):
    text = sections(page.partition(".")[0])
    assert place in text, f"{page} has {', '.join(text)}"
    assert not [word for word in words(re.sub(r"\(.*\)", "", term)) if word not in text[place].lower()]


def test_links_of_the_glossary_are_called_like_their_sections():
    """A section that gets another heading is also called so here; the top of a chapter is called its opening."""
    text = (FOLDER / "glossary.md").read_text()
    links = re.findall(r"See \[(?!the opening of chapter)([^]]+)\]\((\w+)\.\w+#([\w-]+)\)", text)
    assert len(links) >= 60
    assert not [link for link in links if not any(word in link[2] for word in words(link[0]))]


def test_each_term_of_the_glossary_has_one_entry_with_a_link():
    terms = re.findall(r"^(?![#`:]|What |\s)(\S.*)$", (FOLDER / "glossary.md").read_text(), flags=re.MULTILINE)
    assert [term for term, *_ in GLOSSARY] == terms == sorted(set(terms), key=str.casefold) and len(terms) >= 60


@pytest.mark.parametrize("path", notebooks.numbered(), ids=lambda path: path.stem)
def test_a_chapter_ends_with_papers_to_read_next(path):
    items = re.findall(r"^- .+$", sections(path.stem)["further-reading"], flags=re.MULTILINE)
    assert 2 <= len(items) <= 5
    assert all(re.search(r"\d{4}\. .{20,}\.$", item) for item in items), "venue, year and a sentence why"


def test_the_summaries_have_a_page_for_each_chapter():
    pages = [text for anchor, text in sections("summaries").items() if anchor.startswith("chapter-")]
    assert len(pages) == len(notebooks.numbered())
    for page, path in zip(pages, notebooks.numbered(), strict=True):
        assert f"**Question** of [chapter {int(path.stem[:2])}]({path.name})" in page
        assert all(f"**{part}" in page for part in ("Answer.", "The equation:", "Rule of thumb:"))
        # Of four hundred words and a dozen claims on a page of paper.
        assert len(page.split()) < 400


def test_every_place_that_the_pages_to_look_things_up_lead_to_is_there():
    """Also that of a page which is not built; equations and figures have anchors on the site alone."""
    for name in ("glossary.md", "intro.md", "status.md", "notation.md"):
        for page, place in re.findall(r"\((\w+)\.(?:ipynb|md)#([\w-]+)\)", (FOLDER / name).read_text()):
            assert place in sections(page) or re.match(r"(equation|figure)-\d", place), (name, page, place)
