"""``bnlib.diagnose`` finds planted faults of single layers and of gradients, in the right layer."""

import re

import pytest
import torch
from doctor_examples import FIRST, LAST, MAKE, batches, diagnose_unchanged, findings, not_notes, train, trained
from torch import nn

from bnlib import models
from bnlib.doctor import diagnose


@pytest.mark.parametrize(("name", "fault"), [("mlp", "5"), ("cnn", "5"), ("head", "1")])
def test_gamma_of_zero(name, fault):
    model = trained(name)
    layer = model.get_submodule(fault)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    report = diagnose_unchanged(model, batches())
    assert ("zero-gamma", fault) in not_notes(report) and report[0].severity == "error"
    assert {code for code, _ in not_notes(report)} == {"zero-gamma"}
    # The targets do not matter.
    assert ("zero-gamma", fault) in findings(model, [x for x, _ in batches()])


def test_some_gammas_of_zero():
    model = trained("mlp")
    for value in (model[2].weight, model[2].bias):
        value.data[:8] = 0
    report = diagnose_unchanged(model, batches())
    assert not_notes(report) == {("zero-gamma", "2")} and report[0].severity == "warning"
    assert "8 of 32 channels, and its gradient there is exactly 0" in report[0].evidence


def test_residual_branches_may_start_at_zero():
    model = models.resnet18(in_channels=1, width=4)
    for block in model:
        if isinstance(block, models.BasicBlock):
            nn.init.zeros_(block.residual[-1].weight)
    assert "zero-gamma" not in diagnose_unchanged(model, batches()).codes


@pytest.mark.parametrize("name", ["mlp", "cnn", "full"])
def test_variance_below_eps(name):
    def faint(x, y):
        return 0.003 * x, y

    model = train(MAKE[name](), batches(count=60, change=faint), 60)
    assert findings(model, batches(change=faint)) == {("variance-below-eps", FIRST[name])}


def deep_convolutions(depth=50):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)]
        for _ in range(depth):
            layers += [nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


DEEP = {
    "mlp": (lambda: models.deep_stack(60, 32, nn.BatchNorm1d, in_features=64, num_classes=10), "2"),
    "cnn": (deep_convolutions, "1"),
}


@pytest.mark.parametrize(("make", "layer"), DEEP.values(), ids=DEEP)
@pytest.mark.parametrize("targets", [True, False])
def test_gradient_explosion(make, layer, targets):
    few = batches(64, 4) if targets else [x for x, _ in batches(64, 4)]
    report = diagnose_unchanged(make(), few)
    assert not_notes(report) == {("gradient-explosion", layer)}
    assert 1.12 < float(re.search(r"factor of ([\d.]+)", report[0].evidence)[1]) < 1.35


@pytest.mark.parametrize(("name", "layers"), [("mlp", "25"), ("head", "5")])
def test_small_batches(name, layers):
    report = diagnose_unchanged(trained(name), batches(3, 20))
    assert not_notes(report) == {("small-batches", layer) for layer in layers}
    assert "58% of the standard deviation" in report[0].evidence
    # If only train mode looks worse, nothing needs to be done.
    for few in (batches(4, 20), [x for x, _ in batches(4, 20)]):
        report = diagnose_unchanged(trained(name), few)
        assert not not_notes(report) and [each.layer for each in report] == list(layers)
        assert report.codes == ["small-batches"] and report[0].evidence.endswith("judge it in eval mode.")


@pytest.mark.parametrize(("name", "until"), [("mlp", 4), ("cnn", 8)])
def test_frozen_layer_updates_statistics(name, until):
    model = trained(name)
    model[:until].requires_grad_(False)
    frozen = {
        ("frozen-layer-updates-statistics", key)
        for key, each in model[:until].named_modules()
        if hasattr(each, "momentum")
    }
    assert frozen and findings(model, batches()) == frozen
    model[:until].eval()
    assert not findings(model, batches())


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_statistics(name, kind):
    model = trained(name).to(kind)
    report = diagnose_unchanged(model, batches(change=lambda x, y: (x.to(kind), y)))
    layers = {key for key, each in model.named_modules() if hasattr(each, "momentum")}
    assert not_notes(report) == {("half-precision-statistics", layer) for layer in layers}


@pytest.mark.parametrize(("value", "said"), [(0.0, "never change"), (0.99, "mean of 1 batch")])
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_unusual_momentum(name, value, said):
    model = trained(name)
    model.get_submodule(LAST[name]).momentum = value
    report = diagnose_unchanged(model, batches())
    assert not_notes(report) == {("unusual-momentum", LAST[name])} and said in report[0].evidence


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_non_finite_values(name):
    model = trained(name)
    model.get_submodule(LAST[name]).running_var[3] = torch.nan
    report = diagnose_unchanged(model, batches())
    assert ("non-finite-values", LAST[name]) in not_notes(report)
    assert {layer for _, layer in not_notes(report)} == {LAST[name]}


def test_a_variance_somewhat_below_eps_is_a_note_and_a_small_gamma_its_cause():
    batch = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    for scale, severity in ((0.02, "note"), (0.005, "warning")):
        (found,) = diagnose(nn.BatchNorm1d(8, eps=1e-3), [scale * batch]).by_code("variance-below-eps")
        assert found.severity == severity
    model = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 8), nn.BatchNorm1d(8))
    nn.init.constant_(model[0].weight, 0.02)
    nn.init.orthogonal_(model[1].weight, 0.1)
    (found,) = diagnose(model, [batch]).by_code("variance-below-eps")
    assert found.layer == "2" and "In the norm layer below, 0, gamma is at most 0.02" in found.evidence
