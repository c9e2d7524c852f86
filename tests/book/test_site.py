"""The files of the built site: links, descriptions, downloads, nothing from elsewhere."""

import json
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import CHAPTERS, PAGES, REFERENCE, ROOT, SITE, soup

from tools import notebooks

WRITTEN = [*PAGES, *REFERENCE, "index.html", "CHANGELOG.html"]
EVERY_PAGE = pytest.mark.parametrize("page", [*WRITTEN, "search.html", "genindex.html", "404.html"])


@cache
def anchors(path: Path) -> set[str]:
    """The places of a page that a link can lead to; a page of source code is large, regular and not parsed."""
    if "_modules" in path.parts:
        return {*re.findall(r'<[a-z][^<>]*\sid="([^"]*)"', path.read_text())} | {""}
    return {tag["id"] for tag in soup(path).find_all(id=True)} | {""}


def test_every_chapter_was_built(site):
    sources = {path for path in (ROOT / "chapters").rglob("*.*") if path.suffix in (".md", ".ipynb")}
    pages = {str(path.relative_to(ROOT).with_suffix(".html")) for path in sources if "checkpoints" not in str(path)}
    assert pages and pages == {*PAGES, *REFERENCE}


@EVERY_PAGE
def test_internal_links_and_anchors_resolve(site, page):
    links = {link["href"] for link in soup(site / page).find_all("a", href=True)}
    assert links
    for target in map(urlsplit, links):
        if target.scheme or target.netloc or not (target.path or target.fragment):
            continue
        file = (site / page).parent / unquote(target.path) if target.path else site / page
        assert file.exists(), target.geturl()
        if file.suffix == ".html":
            assert unquote(target.fragment) in anchors(file.resolve()), target.geturl()


def test_links_of_the_pages_of_source_code_resolve(site):
    sources = sorted((site / "_modules").rglob("*.html"))
    found = 0
    for source in sources:
        # Large pages, not parsed; the bar at the side is that of every page.
        _, _, article = source.read_text().partition("<article")
        links = re.findall(r'<a\b[^>]* href="([^"]*)"', article.partition("</article>")[0])
        found += len(links)
        for path, _, anchor in (link.partition("#") for link in links):
            file = (source.parent / path).resolve()
            assert file.exists() and (not anchor or unquote(anchor) in anchors(file)), (source, path, anchor)
    assert found > 200


@EVERY_PAGE
def test_nothing_is_loaded_from_another_host(site, page):
    html = soup(site / page)
    loaded = [tag.get("src") for tag in html.find_all(src=True)]
    loaded += [tag.get("href") for tag in html.find_all("link", href=True)]
    assert not [url for url in loaded if urlsplit(url).netloc]


def test_no_style_loads_from_another_host(site):
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", style.read_text(errors="ignore")), style


@EVERY_PAGE
def test_every_image_is_described(site, page):
    html = soup(site / page)
    assert all(image.get("alt", "").strip() for image in html.find_all("img"))
    for figure in (svg for svg in html.find_all("svg") if {"bnb-figure", "bnb-stage"} & {*svg.parent.get("class", ())}):
        assert figure["role"] == "img" and len(figure["aria-label"]) > 20


def test_no_number_of_a_chapter_is_left_in_the_notation_of_python(site):
    """Neither in the prose nor in a figure, its description, or a control or a note of an explorer."""
    number = re.compile(r"(?<![\w.])\d(\.\d+)?e[-+]\d\d")
    for page in CHAPTERS:
        html = soup(site / page)
        texts = [text for text in html.find_all(string=number) if not text.find_parent(["code", "pre", "script"])]
        texts += [tag["aria-label"] for tag in html.find_all(attrs={"aria-label": number})]
        for script in html.find_all("script", type="application/json"):
            texts += [match[0] for match in re.finditer(r".{20}" + number.pattern, script.string)]
        assert texts == [], page


@EVERY_PAGE
def test_each_part_of_a_formula_has_its_parts(site, page):
    """A fraction has two, for example; Firefox shows the source of one that has not."""
    parts = {"mfrac": 2, "mover": 2, "mroot": 2, "msub": 2, "msubsup": 3, "msup": 2, "munder": 2, "munderover": 3}
    found = soup(site / page).find_all(list(parts))
    assert [str(each) for each in found if len(each.find_all(True, recursive=False)) != parts[each.name]] == []


@EVERY_PAGE
def test_no_formula_is_left_as_it_was_written(site, page):
    """What a page holds before any script runs, with titles and the contents at its sides."""
    texts = soup(site / page).find_all(string=re.compile(r"\\[a-zA-Z(\[{|]|\$[^$]+\$"))
    assert [text for text in texts if not text.find_parent(["code", "pre", "script", "style", "svg"])] == []


@pytest.mark.parametrize("page", WRITTEN)
def test_the_download_is_the_committed_source(site, page):
    link = soup(site / page).select_one("a.btn-download-source-button[href]")
    assert (SITE / page).parent.joinpath(link["href"]).read_bytes() == (
        ROOT / Path(page).parent / Path(link["href"]).name
    ).read_bytes()


@EVERY_PAGE
def test_there_is_no_button_that_leads_nowhere(site, page):
    """While no repository is named nothing may offer to launch, edit or report; later, only that repository."""
    html = soup(site / page)
    assert "executablebooks/jupyter-book" not in (site / page).read_text()
    buttons = html.find_all(class_=["btn-source-repository-button", "thebe-launch-button"])
    buttons += [link for menu in html.find_all(class_="dropdown-launch-buttons") for link in menu.find_all("a")]
    repository = notebooks.address().removeprefix("https://github.com/")
    assert all(repository and repository in link["href"] for link in buttons)


def test_a_chapters_page_has_two_sliders_or_more(site):
    for page in PAGES:
        if re.match(r"chapters/\d", page):
            assert len(soup(site / page).select(".bnb-explorer input[type=range]")) >= 2


def test_a_fold_says_whether_it_holds_a_check_or_code(site):
    for page in PAGES:
        if re.match(r"chapters/\d", page):
            cells = soup(site / page).select("div.cell:not(.tag_solution)")
            for tag, words in (("cell", "Show the check"), ("input", "Show the code")):
                folds = [cell.select("summary") for cell in cells if f"tag_hide-{tag}" in cell["class"]]
                assert folds and all(len(each) == 1 for each in folds)
                assert {each.select_one(".collapsed").text for (each,) in folds} == {words}
                assert not any(each.has_attr("aria-label") for (each,) in folds), "it hides the words"


def test_an_exercise_has_one_fold_with_the_text_the_code_and_the_output_of_its_solution(site):
    for page in PAGES:
        if re.match(r"chapters/\d", page):
            sections = [each for each in soup(site / page).select("section") if each["id"].startswith("exercise-")]
            assert len(sections) >= 2
            for section in sections:
                (fold,) = section.select("details")
                assert not fold.has_attr("open") and fold.summary.text == "Solution"
                assert (
                    fold.find("p", recursive=False) and fold.select(".cell_input pre") and fold.select(".cell_output")
                )


def test_each_proof_is_a_closed_fold_with_its_name(site):
    for path in notebooks.numbered():
        texts = [cell["source"] for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "markdown"]
        names = [name for text in texts for name in re.findall(r"^#### (Proof.*)\n", "".join(text), flags=re.M)]
        folds = soup(site / "chapters" / f"{path.stem}.html").select("details.bnb-proof")
        assert [fold.summary.text for fold in folds] == names
        assert not any(fold.has_attr("open") or fold.select("div.cell") for fold in folds)


def test_details_are_a_closed_fold_with_the_tables_and_figures_below_their_heading(site):
    path = notebooks.CHAPTERS / "05_full_normalization.ipynb"
    texts = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]
    names = [name for text in texts for name in re.findall(r"^#### (Details .*)\n", text, flags=re.M)]
    folds = soup(site / "chapters" / f"{path.stem}.html").select("details.bnb-details")
    assert [fold.summary.text for fold in folds] == names != []
    for fold in folds:
        assert not fold.has_attr("open") and fold.select(".cell_output table") and fold.select("figure, img, svg")
