"""Tables of results."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch

from bnlib.tables import Table, powers_of_ten, significant, spread

ROWS = [
    {"norm": "BN & <co>", "error (%)": [3.0, 1.0, 2.0], "steps": 7185, "note": "best", "learns": True},
    {"norm": "none", "error (%)": [90.04, 95, 91], "steps": 25, "note": "chance", "learns": False},
]


def html(table):
    return ET.fromstring(table._repr_html_())


def texts(table, path):
    return [[cell.text or "" for cell in row] for row in html(table).iterfind(path)]


def test_the_table_has_a_caption_headers_with_a_scope_and_the_cells_of_the_rows():
    table = Table(ROWS, "Test error < 100 %")
    root = html(table)
    assert root.find("table/caption").text == "Test error < 100 %" == root.get("aria-label")
    assert texts(table, "table/thead/tr") == [["norm", "error (%)", "steps", "note", "learns"]]
    assert texts(table, "table/tbody/tr") == [
        ["BN & <co>", "2.0 (1.0–3.0)", "7,185", "best", "yes"],
        ["none", "91.0 (90.0–95.0)", "25", "chance", "no"],
    ]
    assert {cell.get("scope") for cell in root.iterfind("table/thead/tr/th")} == {"col"}
    assert [cell.get("scope") for cell in root.iterfind("table/tbody/tr/th")] == ["row", "row"]


def test_numbers_stand_at_the_right_and_text_at_the_left():
    root = html(Table(ROWS, "Errors"))
    styles = [cell.get("style", "") for cell in root.find("table/tbody/tr")]
    assert ["left" in style for style in styles] == [True, False, False, True, False]
    heads = [cell.get("style") for cell in root.find("table/thead/tr")]
    assert ["left" in style for style in heads] == [True, False, False, True, False]


def test_columns_share_a_header():
    row = {"norm": "BN", "rate": 0.1, ("shuffled", "b = 1"): 1.0, ("shuffled", "b = 4"): 2.0, ("sorted", "b = 4"): 3.0}
    table = Table([row], "Errors", decimals={"rate": 2})
    above, below = html(table).iterfind("table/thead/tr")
    assert [(cell.tag, cell.text, cell.get("colspan"), cell.get("scope")) for cell in above] == [
        ("td", None, None, None),
        ("td", None, None, None),
        ("th", "shuffled", "2", "colgroup"),
        ("th", "sorted", None, "col"),
    ]
    assert [cell.text for cell in below] == ["norm", "rate", "b\xa0=\xa01", "b\xa0=\xa04", "b\xa0=\xa04"]
    assert texts(table, "table/tbody/tr") == [["BN", "0.10", "1.0", "2.0", "3.0"]]


def test_a_viewer_that_removes_styles_still_has_a_table_and_the_same_rows_give_the_same_html():
    assert Table(ROWS, "Errors")._repr_html_() == Table(ROWS, "Errors")._repr_html_()
    assert " id=" not in Table(ROWS, "Errors")._repr_html_() and "<style" not in Table(ROWS, "Errors")._repr_html_()


def test_nothing_is_cut_off():
    long = "more than fifty letters" + " and more" * 20
    table = Table([{"number": n, "question": long} for n in range(100)], "Questions")
    assert repr(table).count(long) == table._repr_html_().count(long) == 100


def test_the_text_has_the_caption_and_a_line_per_row():
    assert repr(Table(ROWS, "Errors")).split("\n") == [
        "Errors",
        "norm              error (%)  steps    note learns",
        "BN & <co>     2.0 (1.0–3.0)  7,185    best    yes",
        "none       91.0 (90.0–95.0)     25  chance     no",
    ]


@pytest.mark.parametrize(
    "value, text",
    [
        (0.25, "0.2"),
        (1234.56, "1,234.6"),
        (np.float32(2.5), "2.5"),
        (np.int64(1437), "1,437"),
        (np.True_, "yes"),
        (None, "–"),
        (float("nan"), "–"),
        (float("-inf"), "−∞"),
        (torch.tensor([2.0, 1.0]), "1.5 (1.0–2.0)"),
        ([1.0, float("nan"), float("nan")], "∞ (1.0–∞)"),
        ([1.0, 2.0, float("nan"), float("nan")], "∞ (1.0–∞)"),
    ],
)
def test_a_cell_is_written_by_what_it_holds(value, text):
    assert Table([{"x": "a", "y": value}], "Values").frame.iloc[0, 0] == text


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], 3.0])
def test_a_spread_of_anything_but_seeds_is_refused(values):
    with pytest.raises(ValueError, match="one number per seed, got the shape"):
        spread(values)


def test_rows_that_make_no_table_are_refused():
    with pytest.raises(ValueError, match="at least one row"):
        Table([], "Errors")
    with pytest.raises(ValueError, match="caption must say"):
        Table(ROWS, " ")
    with pytest.raises(ValueError, match=r"row 1 has the headers \['a', 'c'\], row 0 has \['a', 'b'\]"):
        Table([{"a": 1, "b": 2}, {"a": 1, "c": 2}], "Errors")
    with pytest.raises(ValueError, match="a cell must be text"):
        Table([{"a": "x", "b": {"y": 1}}], "Errors")


@pytest.mark.parametrize(
    "value, digits, text",
    [
        (0.0004, 1, "4 × 10⁻⁴"),
        (0.001, 1, "0.001"),
        (99_999, 1, "1 × 10⁵"),
        (12_345, 2, "12,000"),
        (0, 1, "0"),
        (np.inf, 2, "∞"),
        (np.nan, 2, "–"),
    ],
)
def test_significant_digits(value, digits, text):
    assert significant(value, digits) == text


def test_numbers_with_an_exponent_are_powers_of_ten_in_every_part_of_a_table():
    rows = [{"eps": eps, ("loss", f"at {1e-30:g}"): 1.0} for eps in (f"{1e-5:g}", "code: x-1e-5")]
    shown = repr(Table(rows, f"Rates up to {2.5e6:g}"))
    assert "Rates up to 2.5 × 10⁶" in shown and "at 10⁻³⁰" in shown and "\n10⁻⁵ " in shown
    assert "x-1e-5" in shown  # as someone wrote it, not Python
    assert powers_of_ten("v1.5e-05 a1e-05 1e5 0x1e-05") == "v1.5e-05 a1e-05 1e5 0x1e-05"
