"""Tables of cases in words."""

import xml.etree.ElementTree as ET

import pytest

from bnlib.tables import CaseTable

ROWS = [
    {"what you see": "a < b & c", "test": '`x["a"] < 2`\nNo.', "cure": "Do. [Chapter 1](01_the_formula.ipynb#forward)"},
    {"what you see": "`nan`", "test": "None.", "cure": "None."},
]  # fmt: skip


def test_each_case_is_a_row_with_a_list_of_what_belongs_to_it():
    table = ET.fromstring(CaseTable(ROWS, "What & why")._repr_html_())
    assert table.find("caption").text == "What & why"
    heads = table.findall("tbody/tr/th")
    assert heads[0].text == "a < b & c" and heads[1].find("code").text == "nan"
    assert {head.get("scope") for head in heads} == {"row"}
    first = table.find("tbody/tr/td/dl")
    assert [name.text for name in first.findall("dt")] == ["test", "cure"]
    assert first.find("dd/code").text == 'x["a"] < 2' and first.find("dd/br").tail == "No."
    link = first.find("dd/a")
    assert (link.get("href"), link.text) == ("01_the_formula.ipynb#forward", "Chapter 1")


def test_a_terminal_shows_the_words_without_marks():
    assert repr(CaseTable(ROWS, "What")).splitlines()[:4] == [
        "What", "a < b & c", '  test: x["a"] < 2 No.', "  cure: Do. Chapter 1",
    ]  # fmt: skip


def test_cases_without_rows_caption_or_with_other_names_are_refused():
    for rows, caption, message in (
        ([], "a", "rows must hold at least one row"),
        (ROWS, " ", "caption must say what"),
        ([{"a": "b"}, {"c": "d"}], "a", r"row 1 has the headers \['c'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            CaseTable(rows, caption)
