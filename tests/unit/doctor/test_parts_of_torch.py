"""What the table of PyTorch's parts says about the doctor: each finding is made, and each row has one or a reason."""

import re

import parts_of_torch
import pytest
from parts_of_torch import MADE
from planted_networks import few, trained

from bnlib import doctor, torch_parts
from bnlib.torch_parts.diagnosed import DIAGNOSED, diagnosed


def codes(text):
    return re.findall(r"`([a-z-]+)`", text)


def test_every_part_that_does_something_else_has_a_finding_or_a_reason():
    committed = torch_parts.load()
    unexpected = {title for title in torch_parts.PARTS if torch_parts.outcome(title, committed[title]) != "as expected"}
    assert {*DIAGNOSED} == unexpected
    for title, text in DIAGNOSED.items():
        assert text.startswith("No check, because") != bool(codes(text)), title
        assert all(code in doctor.ADVICE for code in codes(text)), title
    assert {*MADE} == {title for title, text in DIAGNOSED.items() if codes(text)}


@pytest.mark.parametrize("make", {*MADE.values()}, ids=lambda make: make.__name__)
def test_the_doctor_finds_it(make):
    some, model = few(), make()
    if make in (parts_of_torch.exported, parts_of_torch.traced):
        report = doctor.diagnose(model, [x for x, _ in some], inference=True)
    elif next(iter(model.parameters())).element_size() == 2:
        report = doctor.diagnose(model, parts_of_torch.in_half_precision(some))
    else:
        report = doctor.diagnose(model, some)
    for title in (title for title, other in MADE.items() if other is make):
        assert {*codes(DIAGNOSED[title])} <= {*report.codes}, (title, str(report))


def test_a_network_without_these_parts_has_none_of_the_findings():
    assert not {code for text in DIAGNOSED.values() for code in codes(text)} & {
        *doctor.diagnose(trained("fully connected"), few()).codes
    }


def test_the_table_shows_the_column():
    rows = {row["part"]: row for section in torch_parts.SECTIONS for row in torch_parts.rows(section)}
    title = "`torch.func.functional_call`: with other parameters, in train mode"
    assert rows[title]["the doctor"] == "`running-statistics-mismatch`."
    assert rows["`copy.deepcopy`: training a copy"]["the doctor"] == diagnosed("x") == "There is nothing to find."
