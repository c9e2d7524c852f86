"""The trial of an optimiser: whether its steps are too large for the estimates of FullNorm."""

import copy

import pytest
import torch
from doctor_examples import everything
from planted_networks import ARCHITECTURES, few, untrained

import bnlib
from bnlib.doctor import diagnose


def full_norm(name):
    return bnlib.convert(untrained(name), to=bnlib.FullNorm).train()


def codes(model, optimiser):
    before, state = everything(model), copy.deepcopy(optimiser.state_dict())
    report = diagnose(model, few(), optimiser=optimiser)
    assert str(everything(model)) == str(before) and str(state) == str(optimiser.state_dict())
    return report


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_rate_that_is_too_large_for_full_norm_is_found(name):
    rates = {"fully connected": 2.0, "residual": 2.0, "depthwise": 2.0}
    model = full_norm(name)
    (found,) = codes(model, torch.optim.SGD(model.parameters(), lr=rates[name])).by_code("unstable-rate")
    assert found.severity == "warning" and "at the learning rate 2, the loss rises" in found.evidence
    assert "third of the learning rate" in found.remedy
    for optimiser in (torch.optim.SGD(model.parameters(), lr=0.03), torch.optim.Adam(model.parameters(), lr=0.001)):
        assert not codes(model, optimiser).by_code("unstable-rate")


def test_the_trial_is_for_full_norm_in_training_and_says_what_stopped_it():
    model = full_norm("fully connected")
    assert not codes(model.eval(), torch.optim.SGD(model.parameters(), lr=2.0)).by_code("unstable-rate")
    batch_norm = untrained("fully connected").train()
    assert not codes(batch_norm, torch.optim.SGD(batch_norm.parameters(), lr=2.0)).by_code("unstable-rate")
    report = codes(model.train(), torch.optim.LBFGS(model.parameters()))
    assert "whether FullNorm is stable at the learning rate, because" in str(report)
    with pytest.raises(ValueError, match="optimiser must be the optimiser of this model"):
        diagnose(model, few(), optimiser=torch.optim.SGD(batch_norm.parameters(), lr=2.0))
    with pytest.raises(TypeError, match="optimiser must be a torch"):
        diagnose(model, few(), optimiser=0.1)
