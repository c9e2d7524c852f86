"""``bnlib.diagnose`` on TorchScript modules and exported programs says what can be told, and what cannot."""

import warnings

import pytest
import torch
from torch import nn

from bnlib.doctor import diagnose

X = list(torch.randn(4, 32, 8, generator=torch.Generator().manual_seed(0)).unbind())


def network():
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    for x in X * 20:
        model(x)
    return model


def exported(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(model, (X[0],))


def traced(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(model, X[0])


def scripted(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(model)


KINDS = {"traced": traced, "exported": exported, "module": lambda model: exported(model).module()}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("count", [1, 4])
def test_an_export_in_train_mode_is_an_error_at_inference(kind, count):
    report = diagnose(kind(network().train()), X[:count], inference=True)
    assert report.codes == ["train-mode-at-inference"] and report[0].severity == "error", str(report)
    assert "Not checked: losses in train mode" in report.remarks[0]
    report = diagnose(kind(network().eval()), X[:count], inference=True)
    assert not report and "not checked" in report.remarks[0].lower() and "checks that ran" in str(report)


def test_a_scripted_module_follows_its_mode_and_is_not_changed():
    model = scripted(network().train())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert not diagnose(model, [(x, torch.zeros(32, dtype=torch.long)) for x in X])
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", [*KINDS.values(), scripted], ids=[*KINDS, "scripted"])
def test_stored_statistics_are_read(kind):
    model = network().eval()
    model[1].running_var[3] = torch.inf
    assert "non-finite-values" in diagnose(kind(model), X, inference=True).codes
    model[1].reset_running_stats()
    assert diagnose(kind(model), X, inference=True).codes == ["running-statistics-never-updated"]


def test_a_traced_graph_of_modules_is_diagnosed_as_a_model():
    model = torch.fx.symbolic_trace(network().train())
    model.get_submodule("1").running_mean += 100
    report = diagnose(model.eval(), X)
    assert "running-statistics-mismatch" in report.codes and "cannot" not in " ".join(report.remarks)
