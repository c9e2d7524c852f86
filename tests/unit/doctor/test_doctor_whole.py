"""``bnlib.diagnose`` judges the model as a whole: small errors of many layers, and gaps that no layer explains."""

import copy
import re

import pytest
import torch
from doctor_examples import batches, digits, train, trained
from more_examples import behind_dropout
from torch import nn
from torch.nn import functional as F

from bnlib import models
from bnlib.doctor import diagnose
from bnlib.doctor.checks.whole_model import _shares
from bnlib.doctor.losses import BatchScore


def deep(depth=6, steps=150):
    shuffled = [batch for seed in range(12) for batch in batches(64, 25, seed=seed)]
    return train(models.mlp((64, *[32] * depth, 10), nn.BatchNorm1d), shuffled, steps)


def norms(model):
    return {name: each for name, each in model.named_modules() if isinstance(each, nn.BatchNorm1d)}


def test_small_errors_in_each_layer_that_ruin_the_model_are_an_error():
    model = deep(8)
    for layer in norms(model.eval()).values():
        layer.running_var *= 3.5  # a factor of 1.87 in the standard deviation, below the limit for a layer
    report = diagnose(model, batches())
    assert report.codes == ["eval-mode-distorted"] and report[0].severity == "error" and report[0].layer == ""
    assert sum(f"{name} " in report[0].evidence for name in norms(model)) >= 3
    (warning,) = diagnose(model, [x for x, _ in batches()])
    assert (warning.code, warning.severity) == ("eval-mode-distorted", "warning")
    assert "of their standard deviation" in warning.evidence


def test_averaged_clients_with_the_buffers_of_one_of_them_are_an_error():
    model, data = deep(steps=300), digits()
    clients = []
    for number in range(4):
        mine = data.train_y % 4 == number
        x, y = data.train_x[mine] * (0.6 + 0.3 * number), data.train_y[mine]
        clients.append(train(copy.deepcopy(model), list(zip(x.split(64), y.split(64), strict=True)) * 8, 30, 0.02))
    with torch.no_grad():
        for mine, *theirs in zip(model.parameters(), *(each.parameters() for each in clients), strict=True):
            mine.copy_(sum(theirs) / 4)
        for mine, first in zip(model.buffers(), clients[0].buffers(), strict=True):
            mine.copy_(first)
    assert diagnose(model.eval(), batches()).codes[0] == "eval-mode-distorted"


def test_the_layer_with_wrong_statistics_has_all_of_the_share():
    for name in norms(trained("mlp")):
        model = trained("mlp").eval()
        layer = model.get_submodule(name)
        layer.running_mean += 3 * layer.running_var.sqrt()
        assert re.search(rf"difference: {name} \((99|100)%\)\.", diagnose(model, batches())[0].evidence)


def test_shares_add_up_and_few_losses_find_the_layer():
    asked = []

    def loss(count):
        asked.append(count)
        return 2.0 - 0.75 * (count > 20) - 0.25 * (count > 50)

    for suspect, few in ((3, 16), (20, 13), (63, 16)):
        asked.clear()
        shares = _shares(loss, {0: 2.0, 64: 1.0}, suspect)
        assert shares[20] == pytest.approx(0.75) and shares[50] == pytest.approx(0.25)
        assert sum(shares) == pytest.approx(1) and len(asked) < few


def test_two_losses_show_that_one_layer_is_the_cause():
    asked = []

    def loss(count):
        asked.append(count)
        return 1.0 * (count <= 20)

    assert _shares(loss, {0: 1.0, 64: 0.0}, 20) == [0.0] * 20 + [1.0] + [0.0] * 43 and len(asked) == 2


@pytest.mark.parametrize("mode", [True, False])
def test_young_statistics_are_an_error_only_where_training_is_over(mode):
    model = models.mlp((64, 32, 32, 10), lambda width: nn.BatchNorm1d(width, momentum=0.005))
    train(model, batches(count=40), 60, lr=0.3)
    report = diagnose(model.train(mode), batches())
    (found,) = report.by_code("eval-mode-distorted")
    assert found.severity == ("note" if mode else "error") and "too few batches" in str(report)
    assert mode or {each.severity for each in report.by_code("running-statistics-mismatch")} == {"error"}


def test_a_model_that_was_never_trained_is_only_a_note():
    model = models.mlp((64, *[32] * 6, 10), nn.BatchNorm1d)
    for each in (batches(), [x for x, _ in batches()]):
        report = diagnose(model, each)
        assert {finding.severity for finding in report} <= {"note"}, str(report)


def test_a_gap_that_nothing_else_explains_is_named():
    """One batch cannot be shuffled, so it cannot be known what the network reads from its statistics."""
    torch.manual_seed(0)
    plain = torch.randn(64, 1, 64)
    x = plain + 5 * torch.randn(64, 1, 1)
    y = (plain[:, 0] > plain[:, 0].mean(1, keepdim=True)).long()
    pairs = list(zip(x.split(1), y.split(1), strict=True))
    model = nn.Sequential(nn.Conv1d(1, 8, 1), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 2, 1))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for inputs, targets in pairs * 10:
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimiser.step()
    pairs = [(a if number else a[:, :, :60], b if number else b[:, :60]) for number, (a, b) in enumerate(pairs)]
    report = diagnose(model, pairs)
    assert "eval-worse-than-train" in report.codes, str(report)
    assert any("the samples have different shapes" in each for each in report.remarks)


def test_no_problems_means_that_every_check_ran():
    assert str(diagnose(trained("mlp"), batches())) == "No problems found."
    text = str(diagnose(trained("mlp"), [x for x, _ in batches()]))
    assert text.startswith("No problems found by the checks that ran.\n\nThe batches have no targets")


class WithLoss(nn.Module):
    """A classifier that computes its loss itself, as those of Hugging Face do."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, pixels, labels):
        logits = self.network(pixels)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


@pytest.mark.parametrize("fault", ["none", "small", "reset"])
def test_the_loss_that_a_classifier_computes_itself_is_judged_as_any_other(fault):
    model = deep(2)
    for layer in norms(model).values():
        if fault == "small":
            layer.running_var *= 1.5
        elif fault == "reset":
            layer.reset_running_stats()
    pairs = batches()
    named = [{"pixels": x, "labels": y} for x, y in pairs]
    for inference in (False, True):
        expected = diagnose(model.train(not inference), pairs, inference=inference)
        assert bool(expected.at_least("warning")) == (fault == "reset"), str(expected)
        inside = WithLoss(model).train(not inference)
        by_logits = {"loss": lambda outputs, y: F.cross_entropy(outputs["logits"], y)}
        for options in ({}, {"forward": lambda model, batch: model(*batch), **by_logits}):
            found = diagnose(inside, pairs if options else named, inference=inference, **options)
            assert [(each.code, each.severity) for each in found] == [(each.code, each.severity) for each in expected]


@pytest.mark.parametrize("inference", [False, True])
def test_what_follows_from_a_dead_layer_is_not_reported(inference):
    model = deep(12, 100)
    name = list(norms(model))[5]
    with torch.no_grad():
        for value in model.get_submodule(name).parameters():
            value.zero_()
    report = diagnose(model.train(not inference), batches(), inference=inference)
    assert [(each.code, each.layer) for each in report.at_least("warning")] == [("zero-gamma", name)], str(report)


@pytest.mark.parametrize("rate", [0.0, 0.7])
def test_dropout_in_front_of_norm_layers_is_named_as_the_cause(rate):
    model = behind_dropout(rate)
    for inference in (False, True):
        report = diagnose(model.train(not inference), batches(64, 8), inference=inference)
        assert report.codes == (["eval-mode-distorted"] if rate else []), str(report)
        if rate:
            assert report[0].severity == "warning" and "the cause is dropout" in report[0].evidence
            assert "dropout in eval mode" in report[0].remedy
    # Other wrong statistics remain an error.
    for layer in norms(model).values():
        layer.running_mean += 2 * layer.running_var.sqrt()
    report = diagnose(model.eval(), batches(64, 8), inference=True)
    assert report[0].code == "eval-mode-distorted" and report[0].severity == "error"
    assert "dropout" not in report[0].evidence


@pytest.mark.parametrize("factor", [1, 1e3])
def test_single_samples_without_targets_are_compared_with_each_other(factor):
    layer = nn.BatchNorm1d(4).eval()
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    layer.running_mean, layer.running_var = x.mean(0), factor * x.var(0)
    report = diagnose(nn.Sequential(layer, nn.Tanh(), nn.Linear(4, 3)).eval(), list(x[:32].split(1)), inference=True)
    found = [each for each in report if each.code == "eval-mode-distorted"]
    assert len(found) == (factor > 1)
    assert all(50 < float(re.search(r"differ by (\d+)%", each.evidence)[1]) < 200 for each in found)
    one = diagnose(nn.Sequential(layer, nn.Tanh(), nn.Linear(4, 3)).eval(), [x[:1]], inference=True)
    assert "eval-mode-distorted" not in one.codes


def test_outputs_that_are_nan_are_wrong_classes():
    scored = BatchScore(float("nan"), torch.full((3, 2), torch.nan), torch.tensor([0, 0, 1]))
    assert scored.wrong == 3
