"""Tables of cases in words, and tables that a page can filter."""

import xml.etree.ElementTree as ET

import pytest

from bnlib.tables import CaseTable, FilterTable

ROWS = [
    {"what you see": "a < b & c", "test": '`x["a"] < 2`\nNo.', "cure": "Do. [Chapter 1](01_the_formula.ipynb#forward)"},
    {"what you see": "`nan`", "test": "None.", "cure": "None."},
]  # fmt: skip


def test_folded_cases_stand_below_the_name_of_their_part_and_have_an_address_inside_of_the_fold():
    rows = [
        row | {"part": part, "anchor": part[:1] or "z"} for row, part in zip(ROWS * 2, ["", "A", "A", "B"], strict=True)
    ]
    table = CaseTable(rows, "What", folded=True)
    group = ET.fromstring(table._repr_html_())
    assert [each.text if each.tag == "p" else each.tag for each in group] == [
        "details", "A", "details", "details", "B", "details"
    ]  # fmt: skip
    assert [each.get("id") for each in group.iter("dl")] == ["z", "A", "A", "B"]
    assert {each.text for each in group.iter("dt")} == {"test", "cure"} and "anchor" not in repr(table)


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


def test_a_folded_case_shows_what_heads_it_and_hides_its_list():
    group = ET.fromstring(CaseTable(ROWS, "What & why", folded=True)._repr_html_())
    assert (group.tag, group.get("role"), group.get("aria-label")) == ("div", "group", "What & why")
    folds = group.findall("details")
    assert [fold.find("summary").text for fold in folds] == ["a < b & c", None]
    assert folds[1].find("summary/code").text == "nan" and folds[0].get("open") is None
    in_table = ET.fromstring(CaseTable(ROWS, "What & why")._repr_html_()).findall("tbody/tr/td/dl")
    assert [ET.tostring(fold.find("dl")) for fold in folds] == [ET.tostring(each) for each in in_table]


def test_a_terminal_shows_the_words_without_marks():
    assert repr(CaseTable(ROWS, "What")) == repr(CaseTable(ROWS, "What", folded=True))
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


ANSWERS = [
    {"framework": "A & B", "property": "eps", "answer": "1e-05"},
    {"framework": "C", "property": "eps", "answer": "`eps`\nNo."},
]


def test_a_table_with_filters_names_its_lists_by_columns():
    made = FilterTable(ANSWERS, "All <answers>", filters=["framework", "property"], noun="answers")
    box = ET.fromstring(made._repr_html_())
    table = box.find("table")
    assert (table.get("data-filters"), table.get("data-noun")) == ("framework property", "answers")
    assert box.get("tabindex") == "0" and box.get("aria-label") == table.find("caption").text == "All <answers>"
    assert [each.text for each in table.findall("thead/tr/th")] == ["framework", "property", "answer"]
    rows = table.findall("tbody/tr")
    assert [row.find("th").text for row in rows] == ["A & B", "C"]
    assert {row.find("td").text for row in rows} == {"eps"} and not rows[0].attrib
    assert rows[0].find("th").get("scope") == "row" and rows[0].findall("td")[1].text == "10⁻⁵"
    assert rows[1].find("td/code").text == "eps"
    assert repr(made).splitlines()[:3] == ["All <answers>", "A & B", "  property: eps"]


def test_a_long_table_is_not_all_there_as_text():
    rows = [{"framework": f"F{i}", "eps": "10⁻⁵"} for i in range(23)]
    lines = repr(FilterTable(rows, "All", filters=["eps"], noun="answers")).splitlines()
    assert lines[-1] == "and 3 more answers" and "F19" in lines and "F20" not in lines


def test_a_filter_that_is_no_column_is_refused():
    with pytest.raises(ValueError, match="filters must be one of 'framework', 'property', 'answer', got 'version'"):
        FilterTable(ANSWERS, "Answers", filters=["version"], noun="answers")
