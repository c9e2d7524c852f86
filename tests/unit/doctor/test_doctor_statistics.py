"""``bnlib.diagnose`` finds planted faults of batches and running statistics, in the right layer."""

import re

import pytest
import torch
from doctor_examples import (
    FIRST,
    LAST,
    MAKE,
    MLP_SIZES,
    WHOLE,
    batches,
    diagnose_unchanged,
    digits,
    displaced,
    findings,
    negative,
    not_notes,
    settle,
    train,
    trained,
)
from torch import nn

from bnlib import BatchNorm, DomainBatchNorm, FullNorm, models, samplers, use_domain
from bnlib.doctor import diagnose


@pytest.mark.parametrize(("name", "layers"), [("mlp", "25"), ("ours", "25"), ("head", "5")])
def test_one_value_per_channel(name, layers):
    report = diagnose_unchanged(trained(name), batches(1))
    assert not_notes(report) == {("one-value-per-channel", layer) for layer in layers}
    said = "the output is beta" if name == "ours" else "PyTorch raises an error"
    assert said in report[0].evidence and "12 of 12 batches" in report[0].evidence
    assert not findings(trained(name).eval(), batches(1), inference=True)


def test_an_incomplete_last_batch_of_one_sample_is_found():
    few = [*batches(), *batches(1, 1)]
    assert findings(trained("mlp"), few) == {("one-value-per-channel", layer) for layer in "25"}


def test_full_norm_may_have_one_value_per_channel():
    assert not findings(trained("full"), batches(1))


@pytest.mark.parametrize("name", ["mlp", "cnn", "full"])
def test_train_mode_at_inference(name):
    model = trained(name)
    report = diagnose_unchanged(model, batches(), inference=True)
    assert not_notes(report) == {("train-mode-at-inference", "")}
    change = float(re.search(r"change by ([\d.]+)%", report[0].evidence)[1])
    assert (0.1 if name == "full" else 2) < change < 200
    assert not findings(model.eval(), batches(), inference=True)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_one_layer_stuck_in_train_mode(name):
    model = trained(name).eval()
    model.get_submodule(LAST[name]).train()
    assert findings(model, batches(), inference=True) == {("train-mode-at-inference", LAST[name])}


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_no_running_statistics(name):
    model = trained(name)
    layer = model.get_submodule(FIRST[name])
    layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
    layer.num_batches_tracked = None
    assert findings(model.eval(), batches(), inference=True) == {("no-running-statistics", FIRST[name])}
    (note,) = diagnose_unchanged(model.train(), batches())
    assert (note.code, note.severity) == ("no-running-statistics", "note")


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", ["mlp", "cnn", "full"])
def test_running_statistics_never_updated(name, inference):
    model = trained(name).eval()
    model.get_submodule(FIRST[name]).reset_running_stats()
    assert findings(model, batches(), inference=inference) == {
        WHOLE,
        ("running-statistics-never-updated", FIRST[name]),
    }


def test_initial_statistics_of_an_untrained_model_are_only_a_note():
    for name in ("mlp", "cnn"):
        report = diagnose_unchanged(MAKE[name](), batches())
        assert report.codes == ["running-statistics-never-updated"] and not not_notes(report)


@pytest.mark.parametrize("name", ["mlp", "cnn", "full", "head"])
def test_running_statistics_mismatch(name):
    report = diagnose_unchanged(displaced(name, FIRST[name]), batches())
    assert not_notes(report) == {WHOLE, ("running-statistics-mismatch", FIRST[name])}
    # The losses differ.
    used, precise = (
        float(value)
        for value in re.findall(r"(?:In eval mode, the loss is|and) ([\d.]+) \(error", str(report[0].evidence))
    )
    assert report[0].severity == "error" and used > precise + 0.3


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_running_statistics_mismatch_without_targets(name):
    model = trained(name)
    model.get_submodule(LAST[name]).running_var *= 25
    report = diagnose_unchanged(model, [x for x, _ in batches()])
    assert not_notes(report) == {WHOLE, ("running-statistics-mismatch", LAST[name])} and report[0].severity == "warning"


def test_the_unit_of_a_distance_is_named():
    """A wrong scale is a factor, and only a wrong mean is a number of standard deviations."""
    model = trained("mlp")
    model[2].running_var *= 25
    (found,) = diagnose(model, batches()).by_code("running-statistics-mismatch")
    assert re.search(r"the means are 0\.\d+ standard deviations apart", found.evidence)
    assert 4.5 < float(re.search(r"differ by a factor of ([\d.]+) \(medians over channels\)", found.evidence)[1]) < 5.5
    (found,) = diagnose(displaced("mlp", "2"), batches()).by_code("running-statistics-mismatch")
    assert 2.5 < float(re.search(r"the means are ([\d.]+) standard deviations apart", found.evidence)[1]) < 3.5
    assert 1 <= float(re.search(r"by a factor of ([\d.]+) \(", found.evidence)[1]) < 1.2


class Towers(nn.Module):
    def __init__(self, tower):
        super().__init__()
        self.tower = tower

    def forward(self, input):
        # The second tower sees the negative image, brighter and with more contrast.
        return torch.cat([self.tower(input), self.tower(6 - 4 * input)], 1).unflatten(1, (2, -1))


def twice(x, y):
    return x, torch.stack([y, y], 1)


@pytest.mark.parametrize("name", ["mlp", "head"])
def test_shared_layer(name):
    model = train(Towers(MAKE[name]()), batches(count=60, change=twice), 60)
    report = diagnose_unchanged(model, batches(change=twice))
    assert ("shared-layer", f"tower.{FIRST[name]}") in not_notes(report)
    assert {code for code, _ in not_notes(report)} == {"shared-layer"}
    assert "calls this layer 2 times" in report[0].evidence


class Twins(Towers):
    def forward(self, input):
        return torch.stack([self.tower(input), self.tower(input.flip(0))], 1)


def test_a_layer_shared_by_inputs_of_one_kind_is_healthy():
    def both(x, y):
        return x, torch.stack([y, y.flip(0)], 1)

    for name in ("mlp", "head"):
        some = batches(count=60, change=both)
        model = settle(train(Twins(MAKE[name]()), some, 60), some)
        assert not diagnose_unchanged(model, batches(change=both))


class Recurrent(nn.Module):
    """A recurrent network with one norm for all time steps; its state grows from 0."""

    def __init__(self):
        super().__init__()
        self.inside, self.norm, self.out = nn.Linear(16 + 8, 16), BatchNorm(16), nn.Linear(16, 10)

    def forward(self, input):
        state, total = input.new_zeros(len(input), 16), 0
        for step in input.flatten(1).unflatten(1, (8, 8)).unbind(1):
            state = torch.relu(self.norm(self.inside(torch.cat([state, step], 1))))
            total = total + state
        return self.out(total)


def test_a_norm_shared_by_time_steps():
    torch.manual_seed(0)
    report = diagnose_unchanged(train(Recurrent(), batches(count=60), 60), batches())
    assert report.codes == ["shared-layer"] and report[0].layer == "norm" and "8 times" in report[0].evidence


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_domains_that_were_trained_separately(name):
    pairs = zip(batches(count=60), batches(count=60, seed=8, change=negative), strict=True)
    model = train(MAKE[name](), [each for pair in pairs for each in pair], 120)
    domains = {"paper": batches(), "negative": batches(change=negative)}
    mixed = [each for pair in zip(*domains.values(), strict=True) for each in pair]
    report = diagnose_unchanged(model, mixed, domains=domains)
    assert ("domain-statistics-differ", FIRST[name]) in not_notes(report)
    assert {code for code, _ in not_notes(report)} == {"domain-statistics-differ"}
    assert "the loss is" in report[0].evidence and "in eval mode" in report[0].evidence

    without = {key: [x for x, _ in each] for key, each in domains.items()}
    report = diagnose_unchanged(model, [x for x, _ in mixed], domains=without)
    assert {code for code, _ in not_notes(report)} == {"domain-statistics-differ"} and report[0].severity == "warning"
    # Without named domains, the finding is that the batches are not representative.
    report = diagnose_unchanged(model, mixed)
    assert not_notes(report) == {("batches-not-representative", "")} and report[0].severity == "error"


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_domains_that_were_mixed_are_healthy(name):
    def half(x, y):
        return torch.cat([x[::2], negative(x[1::2], y)[0]]), torch.cat([y[::2], y[1::2]])

    model = settle(train(MAKE[name](), batches(count=80, change=half), 80), batches(count=40, change=half))
    domains = {"paper": batches(), "negative": batches(change=negative)}
    assert not not_notes(diagnose_unchanged(model, batches(change=half), domains=domains))
    without = {key: [x for x, _ in each] for key, each in domains.items()}
    assert not not_notes(diagnose_unchanged(model, [x for x, _ in batches(change=half)], domains=without))


def test_domain_batch_norm_is_healthy_and_uses_its_domain():
    model = models.mlp(MLP_SIZES, lambda width: DomainBatchNorm(width, 2))
    for domain, change in enumerate((lambda x, y: (x, y), negative)):
        with use_domain(model, domain):
            train(model, batches(count=60, change=change), 60)
    domains = {0: batches(), 1: batches(change=negative)}
    with use_domain(model, 1):
        report = diagnose_unchanged(model, domains[1], domains=domains)
    assert not not_notes(report) and "does not call" in report.remarks[0] and "2.domains.0" in report.remarks[0]


SKEWED = {"single label": samplers.single_label, "two labels": samplers.MaxLabelsPerBatch(2)}


@pytest.mark.parametrize("sampler", SKEWED.values(), ids=SKEWED)
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_batches_of_few_labels(name, sampler):
    report = diagnose_unchanged(trained(name), batches(count=20, sampler=sampler))
    assert report.codes == ["batches-not-representative"]
    assert "nats; random batches" in report[0].evidence
    assert report[0].severity == ("error" if sampler is samplers.single_label else "warning")


@pytest.mark.parametrize("make", [MAKE["full"], lambda: models.small_cnn(norm=FullNorm, width=8)], ids=["mlp", "cnn"])
def test_batches_of_few_labels_are_what_full_norm_is_for(make):
    steps = 120
    model = train(make(), batches(count=steps, sampler=samplers.single_label), steps, lr=0.02)
    (note,) = diagnose_unchanged(model, batches(count=20, sampler=samplers.single_label))
    assert note.code == "batches-not-representative" and note.severity == "note"
    assert note.evidence.endswith("FullNorm is designed for such batches.")
    # With one BN layer among them it is an error.
    model.insert(1, nn.BatchNorm1d(64) if isinstance(model[0], nn.Flatten) else nn.BatchNorm2d(8))
    report = diagnose_unchanged(model, batches(count=20, sampler=samplers.single_label))
    assert report.by_code("batches-not-representative")[0].severity == "error"


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_sorted_batches(name):
    data = digits()
    order = data.train_y.argsort(stable=True)
    some = list(zip(data.train_x[order].split(32), data.train_y[order].split(32), strict=True))
    assert findings(trained(name), some, max_batches=100) == {("batches-not-representative", "")}
    # The first batches hold a single label.
    report = diagnose_unchanged(trained(name), some[:3])
    assert not_notes(report) == {("batches-not-representative", "")} and "have label 0" in report[0].evidence


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_batches_of_one_kind_without_labels(name):
    single = [x for x, _ in batches(count=20, sampler=samplers.single_label)]
    report = diagnose_unchanged(trained(name), single)
    assert not_notes(report) == {("batches-not-representative", "")} and "between batches" in report[0].evidence


@pytest.mark.parametrize("size", [4, 16, 64])
def test_random_batches_of_all_sizes_are_representative(size):
    for seed in range(5):
        few = batches(size, 20, seed=seed)
        for each in (few, [x for x, _ in few]):
            assert "batches-not-representative" not in diagnose(trained("mlp"), each).codes
