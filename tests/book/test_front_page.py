"""The first page: what it says comes from the committed results, and it leads where it says."""

import json
import re

import citation
import digits_explorer
import numpy as np
import pytest
import yaml
from chapter_pictures import PICTURES, SIZE
from conftest import CHAPTERS, ROOT, SITE, soup
from pybtex.database import parse_string

from bnlib.figures import new_figure, style

FRONT = "index.html"


def misread(norm: str, batch_size: int, lr: float) -> int:
    """Per cent, in the median over the seeds of the committed file."""
    rows = json.loads((ROOT / "data" / "results" / "formula/training_curves_quick.json").read_text())["cells"]
    setting = {"norm": norm, "batch_size": batch_size, "lr": lr}
    (row,) = [row for row in rows if setting.items() <= row.items()]
    return round(100 * float(np.median([run[-1] for run in row["test_error"]])))


@pytest.fixture(scope="module")
def explorer(site):
    """The page's explorer: its element, and what its script is given."""
    element = soup(site / FRONT).select_one("#explorer-digits")
    return element, json.loads(element.select_one("script").string)


def test_the_surprising_sentence_is_true_of_the_committed_result(site):
    sentence = soup(site / FRONT).select_one(".bnb-surprise").get_text()
    many, one = re.findall(r"from (\d+) to (\d+)", sentence)
    assert re.search("batches of 256 images.* batches of one image", sentence)
    expected = [[misread(norm, size, 0.03) for norm in ("without normalisation", "batch norm")] for size in (256, 1)]
    assert [[*map(int, many)], [*map(int, one)]] == expected
    (without, with_bn), (without_1, with_bn_1) = expected
    assert with_bn < without / 5 and with_bn_1 > 5 * without_1, "the sentence says that batch norm helps, and hurts"


def test_the_explorer_shows_what_the_sentence_says_when_its_first_slider_moves(explorer):
    """It starts with the first half, and says the numbers of the second at the other end of that slider."""
    _, payload = explorer
    made = digits_explorer.explorer()
    assert tuple(made.defaults.values()) == (256, 0.03)
    notes = dict(zip([tuple(setting.values()) for setting in made.settings()], payload["notes"], strict=True))
    for size in (256, 1):
        told = re.search(r"with batch norm (\d+) in 100, without batch norm (\d+) in 100", notes[size, 0.03])
        assert [int(told[1]), int(told[2])] == [
            misread(norm, size, 0.03) for norm in ("batch norm", "without normalisation")
        ]


def test_the_explorer_of_the_page_has_the_drawings_of_the_committed_result(explorer):
    _, payload = explorer
    made = digits_explorer.explorer()
    for setting in ({"batch_size": 256, "lr": 0.03}, {"batch_size": 1, "lr": 0.03}):
        drawn, note = made.picture(digits_explorer.training_curves.lookup(**setting), setting)
        assert set(drawn.split("\n")) <= {*payload["lines"], ""}
        assert note in payload["notes"]


def test_the_buttons_lead_to_the_formula_and_to_the_table_of_symptoms(site):
    links = soup(site / FRONT).select(".bnb-start a")
    assert {link.get_text(): link["href"] for link in links} == {
        "Start with the formula": "chapters/01_the_formula.html",
        "My batch norm is broken": "chapters/07_why_is_my_bn_failing.html#from-symptom-to-cure",
    }
    assert "chapters/intro.html" in (hrefs := [link["href"] for link in soup(site / FRONT).select("article a")])
    assert "CHANGELOG.html" in hrefs


def test_there_is_a_card_for_each_chapter_with_its_picture_and_a_sentence(site):
    cards = soup(site / FRONT).select(".bnb-card")
    assert sorted(card.select_one("a")["href"] for card in cards) == CHAPTERS
    assert len(soup(site / FRONT).select(".bnb-lead .bnb-card")) == 3
    for card in cards:
        number = CHAPTERS.index(card.select_one("a")["href"]) + 1
        assert card.p.get_text().startswith(f"{number}. ")
        sentence = card.select_one(".bnb-finding").get_text()
        assert len(sentence.split()) > 12 and re.search(r"\d", sentence) and "{" not in sentence


@pytest.mark.parametrize("name", PICTURES)
def test_a_card_says_what_the_results_are(site, name):
    """Its picture is described with the numbers that the results have now."""
    card = soup(SITE / FRONT).select_one(f'.bnb-card:has(a[href="chapters/{name}.html"])')
    with style():
        described = PICTURES[name](new_figure(*SIZE))["alt"]
    assert card.svg["aria-label"] == f"Chapter {int(name[:2])}. {described}"


def test_the_entry_for_bibtex_says_what_the_citation_file_says(site):
    written = yaml.safe_load((ROOT / citation.FILE).read_text())
    text = soup(site / FRONT).select_one("div.highlight-bibtex pre").get_text()
    (entry,) = parse_string(text, "bibtex").entries.values()
    assert entry.fields["title"].strip("{}") == written["title"]
    assert entry.fields["year"] == str(written["date-released"])[:4]
    assert written["version"] in entry.fields["note"]
    names = [str(person).strip("{}") for person in entry.persons["author"]]
    assert names == [author["name"] for author in written["authors"]]


def test_the_entry_can_be_copied(visit):
    opened = visit(FRONT, permissions=["clipboard-read", "clipboard-write"]).page
    opened.locator("div.highlight-bibtex").hover()
    opened.locator("div.highlight-bibtex .copybtn").click()
    copied = opened.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == citation.bibtex(yaml.safe_load((ROOT / citation.FILE).read_text()))


@pytest.mark.parametrize(("width", "height", "lowest"), [(1280, 800, 800), (390, 844, 844)])
def test_the_explorer_is_on_the_first_screen(visit, width, height, lowest):
    opened = visit(FRONT, viewport={"width": width, "height": height}).page
    box = opened.locator("#explorer-digits").bounding_box()
    assert box["y"] + box["height"] <= lowest
    assert opened.locator("#explorer-digits svg").first.bounding_box()["width"] <= box["width"]


def test_the_summaries_show_the_picture_of_each_chapter_with_its_description(site):
    sections = soup(site / "chapters" / "summaries.html").select("section:has(> h2)")
    shown = [section.select_one("figure.bnb-chapter-picture") for section in sections[:12]]
    assert all(str(int(name[:2])) in section.h2.get_text() for name, section in zip(PICTURES, sections, strict=False))
    for figure in shown:
        assert figure.svg["aria-label"].split(". ", 1)[1].split() == figure.figcaption.get_text().split()
