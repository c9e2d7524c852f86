"""The symptoms of chapter 7: a fold for each advice of the doctor, links that lead to sections, and a phone."""

import re

import pytest
from conftest import PHONE, SCREEN, soup
from test_words import sections

from bnlib.doctor import SYMPTOM_GROUPS, SYMPTOM_PARTS, TEST_SETUP, all_advice, symptom_anchor
from bnlib.doctor.headings import heading
from chapters import code_cells
from tools import notebooks

STEM = "07_why_is_my_bn_failing"
PAGE = f"chapters/{STEM}.html"


@pytest.mark.parametrize("name", all_advice())
def test_a_fold_leads_to_a_section_of_the_book(name):
    page, _, anchor = all_advice()[name].section.removeprefix("chapters/").partition(".ipynb#")
    assert (notebooks.CHAPTERS / f"{page}.ipynb").exists() and anchor in sections(page)
    assert re.search(f"^#+ {re.escape(heading(all_advice()[name].section))}$", sections(page)[anchor], re.MULTILINE)


def test_the_chapter_defines_the_names_in_the_tests():
    (cell,) = (cell for cell in code_cells(notebooks.CHAPTERS / f"{STEM}.ipynb") if "bns = " in cell.source)
    assert TEST_SETUP in cell.source


def test_the_page_has_a_fold_for_each_advice_and_the_links_lead_to_pages(site):
    lists = soup(site / PAGE).select("div.bnb-cases")
    assert [each["aria-label"] for each in lists] == [*SYMPTOM_GROUPS.values()]
    folds = [fold for each in lists for fold in each.select("details")]
    assert {fold.summary.text for fold in folds} == {each.symptom.replace("`", "") for each in all_advice().values()}
    places = {each.section.removeprefix("chapters/").replace(".ipynb", ".html") for each in all_advice().values()}
    assert {fold.a["href"] for fold in folds} == places
    assert not any(fold.has_attr("open") or fold.find_parent("details") for fold in folds)


@pytest.mark.parametrize("screen", [SCREEN, PHONE])
def test_each_symptom_is_a_line_that_a_finger_hits_and_that_opens_without_scripts(visit, screen):
    page = visit(PAGE, viewport=screen, java_script_enabled=False).page
    folds = page.locator(".bnb-cases details")
    for summary in folds.locator("summary").all():
        box = summary.bounding_box()
        assert box["height"] >= 44 and box["x"] >= 0 and box["x"] + box["width"] <= screen["width"]
    assert not page.locator(".bnb-cases dl:visible").count()
    folds.nth(5).locator("summary").focus()
    page.keyboard.press("Enter")
    (opened,) = [each.bounding_box() for each in page.locator(".bnb-cases dl:visible").all()]
    assert opened["x"] >= 0 and opened["x"] + opened["width"] <= screen["width"]


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("screen", [SCREEN, PHONE])
def test_the_address_of_a_case_opens_it_and_shows_its_first_line(visit, screen, scripts):
    page = visit(f"{PAGE}#{symptom_anchor('q-network')}", viewport=screen, java_script_enabled=scripts).page
    (opened,) = page.locator(".bnb-cases details[open]").all()
    places = [0, 1]
    for _ in range(100):  # the browser may scroll some time after the page has loaded
        places.append(opened.locator("summary").bounding_box()["y"])
        if places[-1] == places[-2] < screen["height"] / 2:
            break
        page.wait_for_timeout(100)
    summary, text = (opened.locator(each).bounding_box() for each in ("summary", "dl"))
    assert "Q-learning" in opened.locator("summary").inner_text()
    bar = page.locator(".bd-header-article").first.bounding_box()
    assert bar["y"] + bar["height"] <= summary["y"] < screen["height"] / 2 and text["y"] > summary["y"]


def test_the_cases_of_a_part_stand_below_its_name(site):
    for group, each in zip(SYMPTOM_PARTS.values(), soup(site / PAGE).select("div.bnb-cases"), strict=True):
        found, part = {}, ""
        for child in each.find_all(["p", "details"], recursive=False):
            if child.name == "p":
                part = child.text
            else:
                found.setdefault(part, []).append(child.dl["id"])
        assert found == {part: [symptom_anchor(name) for name in names.split()] for part, names in group.items()}


@pytest.mark.parametrize(("screen", "below"), [(SCREEN, False), (PHONE, True)])
def test_what_belongs_to_a_case_of_a_table_stands_beside_it_and_on_a_phone_below(visit, screen, below):
    page = visit("chapters/torch_parts.html", viewport=screen).page
    row = page.locator("table.bnb-cases tr").nth(5)
    head, cell = row.locator("th").bounding_box(), row.locator("td").bounding_box()
    assert (cell["y"] >= head["y"] + head["height"] - 1) == below
    assert (cell["x"] >= head["x"] + head["width"] - 1) == (not below)
    assert head["x"] >= 0 and cell["x"] + cell["width"] <= screen["width"]
