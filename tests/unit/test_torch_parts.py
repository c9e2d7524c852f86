"""What parts of PyTorch do to the statistics of a batch norm: each row is measured again, and so is its remedy."""

import pytest

from bnlib import torch_parts
from bnlib.torch_parts.measuring import equal

COMMITTED = torch_parts.load()


def problems(title, measured):
    """Return what of a measurement is not as the table says."""
    part, committed = torch_parts.PARTS[title], COMMITTED[title]
    pairs = {name: (getattr(measured, name), getattr(committed, name)) for name in ("expected", "found", "remedied")}
    changed = [name for name, (new, old) in pairs.items() if not equal(new or {}, old or {}, part.tolerance)]
    right = torch_parts.outcome(title, measured) == "as expected"
    if right and measured.remedied is not None:
        changed.append("needs no remedy")
    if not right and not equal(measured.remedied or {}, measured.expected, part.tolerance):
        changed.append("the remedy fails")
    return changed


def test_every_part_does_again_what_was_measured_and_its_remedy_helps():
    """In one test, because the first compilation and the two processes take most of the time."""
    titles = [title for title in torch_parts.PARTS if not torch_parts.missing(title)]
    assert len(titles) > 55
    found = {title: problems(title, torch_parts.measure(title)) for title in titles}
    assert not {title: each for title, each in found.items() if each}


def test_the_committed_result_has_all_parts_and_the_exporters():
    assert list(COMMITTED) == list(torch_parts.PARTS)
    assert not {title: each for title in COMMITTED if (each := problems(title, COMMITTED[title]))}
    assert {"torch", "onnx", "onnxruntime", "onnxscript"} <= {row["package"] for row in torch_parts.versions()}


def test_the_rows_are_sentences_and_show_the_numbers():
    rows = {row["part"]: row for section in torch_parts.SECTIONS for row in torch_parts.rows(section)}
    assert list(rows) == list(torch_parts.PARTS)
    for row in rows.values():
        for name in ("what happens", "how to tell", "what to do"):
            assert row[name][-1] in ".)" and (row[name][0] == "`" or row[name][0].isupper()), row[name]
    assert rows["`torch.utils.checkpoint`: without compiling, `use_reentrant=False`"]["measured"].startswith(
        "batches 6 (expected 3), running mean 4.686 (expected 2.71), running variance 1.156 (expected 1.09)\nwith"
    )
    assert rows["`copy.deepcopy`: training a copy"]["measured"] == (
        "as expected: batches 3, running mean 2.71, running variance 1.09"
    )
    counted = torch_parts.summary_rows()
    assert sum(row["situations"] for row in counted) == len(rows)
    kinds = ("as expected", "other numbers", "an error")
    assert all(sum(row[kind] for kind in kinds) == row["situations"] for row in counted)


def test_a_remedy_that_fails_and_another_number_are_noticed():
    title = "`torch.utils.checkpoint`: without compiling, `use_reentrant=False`"
    good = COMMITTED[title]
    assert problems(title, good) == []
    worse = torch_parts.Measured(good.expected, good.found, good.found)
    assert problems(title, worse) == ["remedied", "the remedy fails"]
    other = torch_parts.Measured(good.expected, good.expected, good.remedied)
    assert problems(title, other) == ["found", "needs no remedy"]


def test_an_error_of_another_kind_is_another_number():
    assert equal({"error": "TypeError: one"}, {"error": "TypeError: two"}, 0)
    assert not equal({"error": "TypeError: one"}, {"error": "ValueError: one"}, 0)
    assert not equal({"mean": 1.0}, {"mean": 1.01}, 1e-3) and not equal({"mean": 1.0}, {"variance": 1.0}, 1)


def test_unknown_parts_are_refused():
    for function in (torch_parts.measure, torch_parts.missing):
        with pytest.raises(ValueError, match="title must be one of"):
            function("torch.nothing")
    with pytest.raises(ValueError, match="section must be one of"):
        torch_parts.rows("nothing")
