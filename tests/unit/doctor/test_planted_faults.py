"""The faults that people report in public threads, each planted in three architectures: the doctor names the layer."""

import pytest
from doctor_examples import digits, not_notes
from faults_of_batches import FAULTS_OF_BATCHES
from faults_of_buffers import FAULTS_OF_BUFFERS
from faults_of_statistics import FAULTS_OF_STATISTICS
from faults_of_values import FAULTS_OF_VALUES
from planted_networks import (
    ARCHITECTURES,
    few,
    trained,
)
from torch.utils.data import DataLoader, TensorDataset

from bnlib.doctor import diagnose

FAULTS = [*FAULTS_OF_BATCHES, *FAULTS_OF_BUFFERS, *FAULTS_OF_STATISTICS, *FAULTS_OF_VALUES]


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__qualname__.split(".")[0])
def test_the_fault_is_named_with_its_layer_and_remedy(fault, name):
    planted = fault(name)
    report = diagnose(planted.model, few() if planted.batches is None else planted.batches, **planted.options)
    found = report.by_code(planted.code)
    assert found, str(report)
    if planted.layers is not None:
        named = [each.layer for each in found]
        assert set(named[: len(planted.layers)] if planted.followed else named) == set(planted.layers), str(report)
    assert planted.severity in (None, found[0].severity), str(report)
    text = " ".join(f"{each.evidence} {each.remedy}" for each in found)
    assert [words for words in planted.says if words not in text] == [], str(report)
    assert {code for code, _ in not_notes(report)} <= {planted.code, *planted.beside}, str(report)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_networks_without_a_fault_get_no_finding(name):
    loader = DataLoader(TensorDataset(digits().train_x[:512], digits().train_y[:512]), 32, shuffle=True)
    for some in (few(), loader):
        assert not diagnose(trained(name), some)
        assert not diagnose(trained(name).eval(), some, inference=True)
