"""``bnlib.doctor``: each fault is planted and must be found at its place; healthy models must hear nothing."""

import copy
import functools
import random
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bnlib
from bnlib import NORMS, BatchNorm, DomainBatchNorm, FullNorm, datasets, models, samplers, use_domain
from bnlib.doctor import ADVICE, Finding, Report, diagnose, diagnose_file

MLP_SIZES = (64, 32, 32, 10)


@functools.cache
def digits():
    return datasets.load("digits")


def batches(size=32, count=12, sampler=samplers.shuffled, seed=7, change=lambda x, y: (x, y)):
    data = digits()
    index = sampler(data.train_y, size, seed)
    return [change(data.train_x[i], data.train_y[i]) for i, _ in zip(index, range(count), strict=False)]


def train(model, loader, steps, lr=0.1):
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)
    model.train()
    for _, (x, y) in zip(range(steps), loader, strict=False):
        optimiser.zero_grad()
        outputs = model(x)
        F.cross_entropy(outputs.flatten(0, -2), y.flatten()).backward()
        optimiser.step()
    return model


def head():
    """A convolution, and a norm behind the pooling, where a sample has one value a channel."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 10),
        )  # fmt: skip


MAKE = {
    "mlp": lambda: models.mlp(MLP_SIZES, nn.BatchNorm1d),
    "ours": lambda: models.mlp(MLP_SIZES, BatchNorm),
    "full": lambda: models.mlp(MLP_SIZES, FullNorm),
    "cnn": lambda: models.small_cnn(norm=nn.BatchNorm2d, width=8),
    "head": head,
}
FIRST = {"mlp": "2", "ours": "2", "full": "2", "cnn": "1", "head": "1"}
LAST = {"mlp": "5", "ours": "5", "full": "5", "cnn": "9", "head": "5"}


@functools.cache
def _trained(name):
    # Full Norm's averages are longer.
    steps = 120 if name == "full" else 60
    return train(MAKE[name](), batches(count=steps), steps)


def trained(name):
    return copy.deepcopy(_trained(name))


def serious(report):
    return {(each.code, each.layer) for each in report if each.severity != "note"}


def state(model):
    """All that must stay as it was."""
    tensors = [*model.parameters(), *model.buffers()]
    return (
        [(id(value), value.clone(), value.requires_grad) for value in tensors],
        [None if value.grad is None else value.grad.clone() for value in model.parameters()],
        [(module.training, id(module), sorted(vars(module))) for module in model.modules()],
        [len(value) for module in model.modules() for key, value in vars(module).items() if key.endswith("_hooks")],
        (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()),  # noqa: NPY002
    )


def same(before, after):
    if isinstance(before, torch.Tensor):
        return torch.equal(before.nan_to_num(9.25), after.nan_to_num(9.25))
    if isinstance(before, (list, tuple)):
        return len(before) == len(after) and all(map(same, before, after))
    return before == after


def examined(model, *args, **options):
    """The report, after a look that nothing was changed."""
    before = state(model)
    report = diagnose(model, *args, **options)
    assert same(before, state(model))
    return report


def found(model, *args, **options):
    return serious(examined(model, *args, **options))


@pytest.mark.parametrize(("name", "layers"), [("mlp", "25"), ("ours", "25"), ("head", "5")])
def test_one_value_per_channel(name, layers):
    report = examined(trained(name), batches(1))
    assert serious(report) == {("one-value-per-channel", layer) for layer in layers}
    said = "the output is beta" if name == "ours" else "PyTorch raises an error"
    assert said in report[0].evidence and "12 of 12 batches" in report[0].evidence
    assert not found(trained(name).eval(), batches(1), inference=True)


def test_an_incomplete_last_batch_of_one_is_found():
    few = [*batches(), *batches(1, 1)]
    assert found(trained("mlp"), few) == {("one-value-per-channel", layer) for layer in "25"}


def test_full_norm_may_have_one_value_per_channel():
    assert not found(trained("full"), batches(1))


@pytest.mark.parametrize("name", ["mlp", "cnn", "full"])
def test_train_mode_at_inference(name):
    model = trained(name)
    report = examined(model, batches(), inference=True)
    assert serious(report) == {("train-mode-at-inference", "")}
    change = float(re.search(r"change by ([\d.]+)%", report[0].evidence)[1])
    assert (0.1 if name == "full" else 2) < change < 200
    assert not found(model.eval(), batches(), inference=True)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_one_layer_stuck_in_train_mode(name):
    model = trained(name).eval()
    model.get_submodule(LAST[name]).train()
    assert found(model, batches(), inference=True) == {("train-mode-at-inference", LAST[name])}


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_no_running_statistics(name):
    model = trained(name)
    layer = model.get_submodule(FIRST[name])
    layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
    layer.num_batches_tracked = None
    assert found(model.eval(), batches(), inference=True) == {("no-running-statistics", FIRST[name])}
    (note,) = examined(model.train(), batches())
    assert (note.code, note.severity) == ("no-running-statistics", "note")


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", ["mlp", "cnn", "full"])
def test_statistics_never_updated(name, inference):
    model = trained(name).eval()
    model.get_submodule(FIRST[name]).reset_running_stats()
    assert found(model, batches(), inference=inference) == {("running-statistics-never-updated", FIRST[name])}


def test_a_fresh_model_has_statistics_yet_to_come():
    for name in ("mlp", "cnn"):
        report = examined(MAKE[name](), batches())
        assert report.codes == ["running-statistics-never-updated"] and not serious(report)


def displaced(name, layer):
    model = trained(name).eval()
    layer = model.get_submodule(layer)
    layer.running_mean += 3 * layer.running_var.sqrt()
    return model


@pytest.mark.parametrize("name", ["mlp", "cnn", "full", "head"])
def test_statistics_far_from_data(name):
    report = examined(displaced(name, FIRST[name]), batches())
    assert serious(report) == {("running-statistics-mismatch", FIRST[name])}
    # The gap in loss.
    used, precise = (
        float(value)
        for value in re.findall(r"(?:In eval mode, the loss is|and) ([\d.]+) \(error", str(report[0].evidence))
    )
    assert report[0].severity == "error" and used > precise + 0.3


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_statistics_far_from_data_without_targets(name):
    model = trained(name)
    model.get_submodule(LAST[name]).running_var *= 25
    report = examined(model, [x for x, _ in batches()])
    assert serious(report) == {("running-statistics-mismatch", LAST[name])} and report[0].severity == "warning"


class Towers(nn.Module):
    def __init__(self, tower):
        super().__init__()
        self.tower = tower

    def forward(self, input):
        # The second sees a photographic negative, brighter and stronger.
        return torch.cat([self.tower(input), self.tower(6 - 4 * input)], 1).unflatten(1, (2, -1))


def twice(x, y):
    return x, torch.stack([y, y], 1)


@pytest.mark.parametrize("name", ["mlp", "head"])
def test_shared_layer(name):
    model = train(Towers(MAKE[name]()), batches(count=60, change=twice), 60)
    report = examined(model, batches(change=twice))
    assert ("shared-layer", f"tower.{FIRST[name]}") in serious(report)
    assert {code for code, _ in serious(report)} == {"shared-layer"}
    assert "calls this layer 2 times" in report[0].evidence


class Twins(Towers):
    def forward(self, input):
        return torch.stack([self.tower(input), self.tower(input.flip(0))], 1)


def test_a_layer_shared_by_inputs_of_one_kind_is_healthy():
    def both(x, y):
        return x, torch.stack([y, y.flip(0)], 1)

    for name in ("mlp", "head"):
        model = train(Twins(MAKE[name]()), batches(count=60, change=both), 60)
        assert not examined(model, batches(change=both))


class Recurrent(nn.Module):
    """One norm for all steps of a recurrent network, whose state grows from 0."""

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
    report = examined(train(Recurrent(), batches(count=60), 60), batches())
    assert report.codes == ["shared-layer"] and report[0].layer == "norm" and "8 times" in report[0].evidence


def negative(x, y):
    return 2.5 - 2 * x, y


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_domains_that_were_trained_apart(name):
    pairs = zip(batches(count=60), batches(count=60, seed=8, change=negative), strict=True)
    model = train(MAKE[name](), [each for pair in pairs for each in pair], 120)
    domains = {"paper": batches(), "negative": batches(change=negative)}
    mixed = [each for pair in zip(*domains.values(), strict=True) for each in pair]
    report = examined(model, mixed, domains=domains)
    assert ("domain-statistics-differ", FIRST[name]) in serious(report)
    assert {code for code, _ in serious(report)} == {"domain-statistics-differ"}
    assert "the loss is" in report[0].evidence and "in eval mode" in report[0].evidence

    without = {key: [x for x, _ in each] for key, each in domains.items()}
    report = examined(model, [x for x, _ in mixed], domains=without)
    assert {code for code, _ in serious(report)} == {"domain-statistics-differ"} and report[0].severity == "warning"
    # Whoever does not name the domains hears that batches differ.
    report = examined(model, mixed)
    assert serious(report) == {("batches-not-representative", "")} and report[0].severity == "error"


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_domains_that_were_mixed_are_healthy(name):
    def half(x, y):
        return torch.cat([x[::2], negative(x[1::2], y)[0]]), torch.cat([y[::2], y[1::2]])

    model = train(MAKE[name](), batches(count=80, change=half), 80)
    domains = {"paper": batches(), "negative": batches(change=negative)}
    assert not serious(examined(model, batches(change=half), domains=domains))
    without = {key: [x for x, _ in each] for key, each in domains.items()}
    assert not serious(examined(model, [x for x, _ in batches(change=half)], domains=without))


def test_domain_batch_norm_is_healthy_and_told_its_domain():
    model = models.mlp(MLP_SIZES, lambda width: DomainBatchNorm(width, 2))
    for domain, change in enumerate((lambda x, y: (x, y), negative)):
        with use_domain(model, domain):
            train(model, batches(count=60, change=change), 60)
    domains = {0: batches(), 1: batches(change=negative)}
    with use_domain(model, 1):
        report = examined(model, domains[1], domains=domains)
    assert not serious(report) and "does not call" in report.remarks[0] and "2.domains.0" in report.remarks[0]


SKEWED = {"single label": samplers.single_label, "two labels": samplers.AtMostLabels(2)}


@pytest.mark.parametrize("sampler", SKEWED.values(), ids=SKEWED)
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_batches_of_few_labels(name, sampler):
    report = examined(trained(name), batches(count=20, sampler=sampler))
    assert report.codes == ["batches-not-representative"]
    assert "nats; random batches" in report[0].evidence
    assert report[0].severity == ("error" if sampler is samplers.single_label else "warning")


@pytest.mark.parametrize("make", [MAKE["full"], lambda: models.small_cnn(norm=FullNorm, width=8)], ids=["mlp", "cnn"])
def test_batches_of_few_labels_are_what_full_norm_is_for(make):
    steps = 120
    model = train(make(), batches(count=steps, sampler=samplers.single_label), steps, lr=0.02)
    (note,) = examined(model, batches(count=20, sampler=samplers.single_label))
    assert note.code == "batches-not-representative" and note.severity == "note"
    assert note.evidence.endswith("FullNorm is designed for such batches.")
    # One BN among them is another matter.
    model.insert(1, nn.BatchNorm1d(64) if isinstance(model[0], nn.Flatten) else nn.BatchNorm2d(8))
    report = examined(model, batches(count=20, sampler=samplers.single_label))
    assert report.by_code("batches-not-representative")[0].severity == "error"


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_sorted_batches(name):
    data = digits()
    order = data.train_y.argsort(stable=True)
    some = list(zip(data.train_x[order].split(32), data.train_y[order].split(32), strict=True))
    assert found(trained(name), some, max_batches=100) == {("batches-not-representative", "")}
    # The beginning holds a single label.
    report = examined(trained(name), some[:3])
    assert serious(report) == {("batches-not-representative", "")} and "have label 0" in report[0].evidence


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_batches_of_one_kind_without_labels(name):
    single = [x for x, _ in batches(count=20, sampler=samplers.single_label)]
    report = examined(trained(name), single)
    assert serious(report) == {("batches-not-representative", "")} and "between batches" in report[0].evidence


@pytest.mark.parametrize("size", [4, 16, 64])
def test_random_batches_of_all_sizes_are_representative(size):
    for seed in range(5):
        few = batches(size, 20, seed=seed)
        for each in (few, [x for x, _ in few]):
            assert "batches-not-representative" not in diagnose(trained("mlp"), each).codes


@pytest.mark.parametrize(("name", "fault"), [("mlp", "5"), ("cnn", "5"), ("head", "1")])
def test_gamma_of_zero(name, fault):
    model = trained(name)
    layer = model.get_submodule(fault)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    report = examined(model, batches())
    assert ("zero-gamma", fault) in serious(report) and report[0].severity == "error"
    assert {code for code, _ in serious(report)} == {"zero-gamma"}
    # Nor do targets matter.
    assert ("zero-gamma", fault) in found(model, [x for x, _ in batches()])


def test_some_gammas_of_zero():
    model = trained("mlp")
    for value in (model[2].weight, model[2].bias):
        value.data[:8] = 0
    report = examined(model, batches())
    assert serious(report) == {("zero-gamma", "2")} and report[0].severity == "warning"
    assert "8 of 32 channels, and its gradient there is exactly 0" in report[0].evidence


def test_residual_branches_may_start_at_zero():
    model = models.resnet18(in_channels=1, width=4)
    for block in model:
        if isinstance(block, models.BasicBlock):
            nn.init.zeros_(block.residual[-1].weight)
    assert "zero-gamma" not in examined(model, batches()).codes


@pytest.mark.parametrize("name", ["mlp", "cnn", "full"])
def test_variance_near_eps(name):
    def faint(x, y):
        return 0.003 * x, y

    model = train(MAKE[name](), batches(count=60, change=faint), 60)
    assert found(model, batches(change=faint)) == {("variance-below-eps", FIRST[name])}


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
    report = examined(make(), few)
    assert serious(report) == {("gradient-explosion", layer)}
    assert 1.12 < float(re.search(r"factor of ([\d.]+)", report[0].evidence)[1]) < 1.35


@pytest.mark.parametrize(("name", "layers"), [("mlp", "25"), ("head", "5")])
def test_tiny_batches(name, layers):
    report = examined(trained(name), batches(3, 20))
    assert serious(report) == {("small-batches", layer) for layer in layers}
    assert "58% of the standard deviation" in report[0].evidence
    # What looks worse in train mode alone needs no cure.
    for few in (batches(4, 20), [x for x, _ in batches(4, 20)]):
        report = examined(trained(name), few)
        assert not serious(report) and [each.layer for each in report] == list(layers)
        assert report.codes == ["small-batches"] and report[0].evidence.endswith("judge it in eval mode.")


@pytest.mark.parametrize(("name", "until"), [("mlp", 4), ("cnn", 8)])
def test_frozen_layers_that_go_on(name, until):
    model = trained(name)
    model[:until].requires_grad_(False)
    frozen = {
        ("frozen-layer-updates-statistics", key)
        for key, each in model[:until].named_modules()
        if hasattr(each, "momentum")
    }
    assert frozen and found(model, batches()) == frozen
    model[:until].eval()
    assert not found(model, batches())


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_statistics(name, kind):
    model = trained(name).to(kind)
    report = examined(model, batches(change=lambda x, y: (x.to(kind), y)))
    layers = {key for key, each in model.named_modules() if hasattr(each, "momentum")}
    assert serious(report) == {("half-precision-statistics", layer) for layer in layers}


@pytest.mark.parametrize(("value", "said"), [(0.0, "never change"), (0.99, "mean of 1 batches")])
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_odd_momentum(name, value, said):
    model = trained(name)
    model.get_submodule(LAST[name]).momentum = value
    report = examined(model, batches())
    assert serious(report) == {("unusual-momentum", LAST[name])} and said in report[0].evidence


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_not_finite(name):
    model = trained(name)
    model.get_submodule(LAST[name]).running_var[3] = torch.nan
    report = examined(model, batches())
    assert ("non-finite-values", LAST[name]) in serious(report)
    assert {layer for _, layer in serious(report)} == {LAST[name]}


def upsampled(x, y):
    return F.interpolate(x, scale_factor=4), y


def digit_rows(x, y):
    return x.flatten(1).unflatten(1, (8, 8)), y[:, None].expand(-1, 8)


ZOO = {
    "mlp": (lambda norm, seed: models.mlp(MLP_SIZES, norm, seed=seed), None),
    "after": (lambda norm, seed: models.mlp(MLP_SIZES, norm, placement="after", seed=seed), None),
    "logistic": (lambda norm, seed: models.logistic(64, 10, norm, seed=seed), None),
    "deep_stack": (lambda norm, seed: models.deep_stack(12, 32, norm, in_features=64, num_classes=10, seed=seed), None),
    "small_cnn": (lambda norm, seed: models.small_cnn(norm=norm, width=8, seed=seed), None),
    "figure6": (lambda norm, seed: models.figure6((1, 8, 8), norm=norm, channels=(6, 8), seed=seed), None),
    "resnet18": (lambda norm, seed: models.resnet18(in_channels=1, norm=norm, width=4, seed=seed), None),
    "vgg": (lambda norm, seed: models.vgg(in_channels=1, norm=norm, depth=11, width=4, seed=seed), upsampled),
    "lstm": (lambda norm, seed: models.lstm_stack(2, 16, norm, in_features=8, num_classes=10, seed=seed), digit_rows),
    "steps": (
        lambda norm, seed: models.lstm_stack(2, 16, norm, steps=8, in_features=8, num_classes=10, seed=seed),
        digit_rows,
    ),
}  # fmt: skip
BY_BATCH = {"batch_norm", "full_norm", "batch_renorm"}


def healthy(name, norm, seed):
    make, change = ZOO[name]
    options = {"change": change} if change else {}
    size = (32, 64)[seed % 2]
    # What LSTMs put out is so small at first that after 30 steps the initial variance of 1 is most of the average.
    steps = 120 if change is digit_rows else 30
    model = train(make(norm, seed), batches(size, steps, seed=seed, **options), steps)
    return model, batches(size, 5, seed=100 + seed, **options)


@pytest.mark.parametrize("norm", sorted(BY_BATCH))
@pytest.mark.parametrize("name", ZOO)
def test_healthy_models_hear_nothing(name, norm):
    for seed in range(1 if name in ("resnet18", "vgg", "steps") else 2):
        model, few = healthy(name, norm, seed)
        for inference in (False, True)[: 2 - seed]:
            report = diagnose(model.train(not inference), few, inference=inference)
            # Batch Renorm's momentum is 0.01: 30 batches are too few for its averages, and it hears that.
            allowed = (
                {"running-statistics-mismatch", "running-statistics-never-updated"} if norm == "batch_renorm" else set()
            )
            assert not {code for code, _ in serious(report)} - (allowed if inference else set()), str(report)
    assert not diagnose(model.train(), [x for x, _ in few]).by_code("batches-not-representative")


def test_norms_without_statistics_of_batches_have_nothing_to_check():
    for name in NORMS.keys() - BY_BATCH:
        make = ZOO["small_cnn" if name == "instance_norm" else "mlp"][0]
        report = examined(make(name, 0), batches(count=2))
        assert not report and "nothing to check" in report.remarks[0]


def test_a_compiled_model_is_looked_at():
    model = trained("mlp")
    model.get_submodule("2").running_mean += 3 * model.get_submodule("2").running_var.sqrt()
    assert found(torch.compile(model, backend="eager"), batches()) == {("running-statistics-mismatch", "_orig_mod.2")}


def test_sync_batch_norm_is_looked_at_without_a_process_group():
    model = nn.SyncBatchNorm.convert_sync_batchnorm(trained("cnn"))
    assert not examined(model, batches())
    assert found(model, batches(), inference=True) == {("train-mode-at-inference", "")}


def test_nothing_is_changed_by_an_error():
    model = trained("mlp")
    model[0].register_forward_hook(lambda *_: None)
    train(model, batches(), 1)
    odd = [torch.randn(4, 1, 8, 8), torch.randn(4, 1, 7, 7)]
    before = state(model)
    with pytest.raises(RuntimeError) as caught:
        diagnose(model, odd)
    assert "diagnose called it with batch 1" in caught.value.__notes__[0]

    def loss(outputs, targets):
        torch.rand(1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        diagnose(model, batches(), loss=loss)
    assert same(before, state(model))


def test_a_loader_that_shuffles_leaves_the_generators():
    class Loader:
        def __iter__(self):
            for _ in range(4):
                random.random()
                yield torch.from_numpy(np.random.rand(16, 64)).float(), torch.randint(10, (16,))  # noqa: NPY002

    examined(trained("mlp"), Loader())


def test_a_loss_of_ones_own_is_judged():
    def change(x, y):
        return x, F.one_hot(y, 10).float()

    def loss(outputs, targets):
        return F.mse_loss(outputs.softmax(1), targets)

    report = examined(displaced("mlp", "2"), batches(change=change), loss=loss)
    assert [each.severity for each in report] == ["error"] and "(error" not in report[0].evidence
    report = examined(displaced("mlp", "2"), batches(change=change))
    assert [each.severity for each in report] == ["warning"] and "pass loss=" in report.remarks[0]


WRONG = {
    "model": (lambda: diagnose("model", []), TypeError, "model must be a torch.nn.Module, got str"),
    "no batches": (lambda: diagnose(MAKE["mlp"](), []), ValueError, "batches must hold at least one batch"),
    "one tensor": (lambda: diagnose(MAKE["mlp"](), torch.rand(2, 64)), ValueError, "batches must be an iterable of"),
    "triples": (lambda: diagnose(MAKE["mlp"](), [(1, 2, 3)]), ValueError, "batches must yield .* got 3 parts"),
    "max_batches": (lambda: diagnose(MAKE["mlp"](), batches(), max_batches=0), ValueError, "max_batches must be at"),
    "domains": (lambda: diagnose(MAKE["mlp"](), batches(), domains=[1]), TypeError, "domains must be a mapping"),
    "domain": (
        lambda: diagnose(MAKE["mlp"](), batches(), domains={"a": []}), ValueError, r"domains\['a'\] must hold at least",
    ),
    "loss": (
        lambda: diagnose(MAKE["mlp"](), batches(), loss=lambda outputs, targets: outputs), ValueError,
        r"loss must return a tensor with a single number, got shape \(32, 10\)",
    ),
    "lazy": (lambda: diagnose(nn.Sequential(nn.LazyBatchNorm1d()), batches()), ValueError, "must have initialised"),
    "code": (lambda: Report().by_code("nothing"), ValueError, "code must be one of one-value.* got 'nothing'"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said(call, kind, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(kind, match=message):
            call()


def test_a_report_is_a_sequence_sorted_by_severity_and_can_be_read():
    each = {name: Finding("small-batches", name, name, f"Of {name}.", "Do.", "chapters/x.ipynb") for name in
            ("note", "error", "warning")}  # fmt: skip
    report = Report(each.values(), ["Not all was seen."])
    assert [finding.severity for finding in report] == ["error", "warning", "note"] and len(report) == 3
    assert report and not Report() and report[0] is each["error"] and report.codes == ["small-batches"]
    assert len(report.by_code("small-batches")) == 3 and report.by_code("shared-layer") == []
    text = str(report)
    assert text.startswith(
        "1 error, 1 warning, 1 note\n\nERROR small-batches in layer error\n  Of error.\n  Do.\n  See"
    )
    assert text.endswith("Not all was seen.") and str(Report()) == "No problems found."


def test_the_text_of_a_real_report_groups_layers_and_fits_a_terminal():
    text = str(diagnose(trained("mlp"), batches(3, 20)))
    assert (
        text.startswith("2 warnings\n") and "small-batches in layer 2" in text and "Also in 1 other layer: 5." in text
    )
    assert max(map(len, text.splitlines())) <= 100 and "See chapters/07_why_is_my_bn_failing.ipynb." in text


def test_each_advice_is_a_remedy_and_a_chapter():
    for code, advice in ADVICE.items():
        assert re.fullmatch("[a-z]+(-[a-z]+)*", code) and advice.remedy.endswith(".")
        assert re.fullmatch(r"chapters/\d\d_\w+\.ipynb", advice.chapter)


FILE = """
import torch
from torch import nn
from beside import batches

def make():
    return nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4)), batches()

def stuck():
    return {"model": make()[0], "batches": batches(), "inference": True}

def odd():
    return {"model": make()[0], "betches": []}

def nothing():
    pass

def sized(size, *, kind="a"):
    return make()

def usual(size=3):
    return make()

constant = 3
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "beside.py").write_text("import torch\n\ndef batches():\n    return [torch.randn(1, 8)]\n")
    (tmp_path / "broken_model.py").write_text(FILE)
    return tmp_path / "broken_model.py"


def test_a_function_of_a_file_is_called(file):
    for name in ("make", "usual"):
        assert diagnose_file(f"{file}:{name}").codes[0] == "one-value-per-channel"
    assert diagnose_file(f"{file}:stuck").codes[0] == "train-mode-at-inference"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("file.py", "target must be FILE:FUNCTION, such as train.py:make, got 'file.py'"),
        ("nowhere.py:make", "target must name a Python file, got 'nowhere.py', which does not exist"),
        ("{}:missing", "which defines make, stuck, odd, nothing, sized, usual; got 'missing'"),
        ("{}:constant", "got 'constant'"),
        (
            "{}:sized",
            "must name a function without required arguments, but sized has some: missing a required argument: 'size'",
        ),
        ("{}:nothing", "must return .model, batches., or a mapping of arguments of bnlib.diagnose, got NoneType"),
        ("{}:odd", "wrong or missing: batches, betches"),
    ],
)
def test_a_wrong_target_is_explained(target, message, file):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        diagnose_file(target.format(file))


def test_each_advice_names_a_chapter_that_exists():
    root = Path(bnlib.__file__).parents[1]
    assert all((root / advice.chapter).is_file() for advice in ADVICE.values())
