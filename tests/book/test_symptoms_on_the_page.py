"""The symptom table of chapter 7: a row for each advice of the doctor, links that lead to sections, and a phone."""

import re

import pytest
from conftest import PHONE, SCREEN, soup
from test_words import sections

from bnlib.doctor import SYMPTOM_GROUPS, TEST_SETUP, all_advice
from bnlib.doctor.headings import heading
from chapters import code_cells
from tools import notebooks

STEM = "07_why_is_my_bn_failing"
PAGE = f"chapters/{STEM}.html"


@pytest.mark.parametrize("name", all_advice())
def test_a_row_leads_to_a_section_of_the_book(name):
    page, _, anchor = all_advice()[name].section.removeprefix("chapters/").partition(".ipynb#")
    assert (notebooks.CHAPTERS / f"{page}.ipynb").exists() and anchor in sections(page)
    assert re.search(f"^#+ {re.escape(heading(all_advice()[name].section))}$", sections(page)[anchor], re.MULTILINE)


def test_the_chapter_defines_the_names_in_the_tests():
    (cell,) = (cell for cell in code_cells(notebooks.CHAPTERS / f"{STEM}.ipynb") if "bns = " in cell.source)
    assert TEST_SETUP in cell.source


def test_the_page_has_a_row_for_each_advice_and_the_links_lead_to_pages(site):
    tables = soup(site / PAGE).select("table.bnb-cases")
    assert [table.caption.get_text() for table in tables] == [*SYMPTOM_GROUPS.values()]
    rows = [row for table in tables for row in table.select("tr")]
    assert {row.th.get_text() for row in rows} == {each.symptom.replace("`", "") for each in all_advice().values()}
    places = {each.section.removeprefix("chapters/").replace(".ipynb", ".html") for each in all_advice().values()}
    assert {row.a["href"] for row in rows} == places


def test_each_table_is_folded_so_that_the_headings_of_all_fit_on_a_screen_or_two(site):
    folds = soup(site / PAGE).select("details:has(table.bnb-cases)")
    assert [fold.select_one("summary .collapsed").text for fold in folds] == ["Show the table"] * len(SYMPTOM_GROUPS)
    assert not any(fold.has_attr("open") for fold in folds)


@pytest.mark.parametrize(("screen", "below"), [(SCREEN, False), (PHONE, True)])
def test_what_belongs_to_a_symptom_stands_beside_it_and_on_a_phone_below(visit, screen, below):
    page = visit(PAGE, viewport=screen).page
    page.locator("details:has(table.bnb-cases) > summary").first.click()
    row = page.locator("table.bnb-cases tr").nth(5)
    head, cell = row.locator("th").bounding_box(), row.locator("td").bounding_box()
    assert (cell["y"] >= head["y"] + head["height"] - 1) == below
    assert (cell["x"] >= head["x"] + head["width"] - 1) == (not below)
    assert head["x"] >= 0 and cell["x"] + cell["width"] <= screen["width"]
