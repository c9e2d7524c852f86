"""The ledger on the site: tables that a form filters, that are whole without JavaScript, and that can be downloaded."""

from urllib.parse import unquote

import pytest
from conftest import ROOT, soup

from bnlib.claims import CLAIMS, SOURCES

PAGE = "chapters/claims.html"
ROWS = "table.bnb-ledger tbody tr"
VISIBLE = f"[...document.querySelectorAll('{ROWS}')].filter(row => row.checkVisibility()).map(row => row.id)"


@pytest.fixture
def ledger(visit):
    return visit(PAGE).page


def having(**data):
    """The ids of the rows with these data attributes, to be looked for in the built page."""
    return lambda page: [row["id"] for row in page.select(ROWS) if all(row[f"data-{k}"] == v for k, v in data.items())]


def test_the_form_filters_by_verdict_source_chapter_and_words(ledger, site):
    rows = soup(site / PAGE)
    assert ledger.evaluate(VISIBLE) == [*CLAIMS] == having()(rows)
    source, hides_a_section = SOURCES["lian2019"], []
    for chosen in ({"verdict": "wrong"}, {"verdict": "wrong", "source": source}, {"chapter": "chapter 10"}):
        for name, value in chosen.items():
            ledger.get_by_label(name).select_option(value)
        found = having(**chosen)(rows)
        assert ledger.evaluate(VISIBLE) == found and 0 < len(found) < len(CLAIMS)
        assert ledger.locator(".bnb-filter output").inner_text() == f"{len(found)} of {len(CLAIMS)} claims"
        sections = ledger.locator("section:has(> * table.bnb-ledger)")
        shown = [each.is_visible() for each in sections.all()]
        assert shown == [bool(each.locator("tbody tr:not([hidden])").count()) for each in sections.all()]
        hides_a_section.append(not all(shown))
        ledger.get_by_role("button", name="Show all").click()
        ledger.wait_for_function(f"{VISIBLE}.length === {len(CLAIMS)}")
    assert any(hides_a_section)
    ledger.get_by_label("words").fill("Theorem REPAIRED nowhere")
    assert ledger.evaluate(VISIBLE) == []
    ledger.get_by_label("words").fill("misprint THEOREM")
    assert ledger.evaluate(VISIBLE) == ["lian-theorem-2"]


def test_a_choice_is_kept_in_the_address(ledger, visit):
    ledger.get_by_label("verdict").select_option("stand-in only")
    ledger.get_by_label("words").fill("CIFAR-10")
    found, (_, _, asked) = ledger.evaluate(VISIBLE), ledger.url.partition("?")
    assert found and unquote(asked) == "verdict=stand-in+only&words=CIFAR-10"
    assert visit(f"{PAGE}?{asked}").page.evaluate(VISIBLE) == found


def test_without_scripts_the_tables_are_whole_and_there_is_no_form(visit):
    page = visit(PAGE, java_script_enabled=False).page
    assert page.locator(f"{ROWS}:visible").count() == len(CLAIMS)
    assert page.locator(".bnb-filter").count() == 0


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_the_ledger_can_be_downloaded(site, kind):
    (link,) = [link["href"] for link in soup(site / PAGE).select("a[href]") if link["href"].endswith(f"/claims.{kind}")]
    assert (site / "chapters" / link).read_bytes() == (ROOT / "data" / f"claims.{kind}").read_bytes()
