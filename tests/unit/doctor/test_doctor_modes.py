"""``bnlib.diagnose`` on models that use batch statistics after ``eval()`` or have memorised their batches."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bnlib
from bnlib import datasets, models, samplers, training
from bnlib.doctor import diagnose, losses_by_mode


def batches(size=32, count=8, sampler=samplers.shuffled, seed=0):
    data = datasets.load("digits")
    index = sampler(data.train_y, size, seed)
    return [(data.train_x[i].flatten(1), data.train_y[i]) for i, _ in zip(index, range(count), strict=False)]


class Functional(nn.Module):
    """BN as a function whose mode is hard-coded, or self.training if ``training`` is None."""

    def __init__(self, training):
        super().__init__()
        self.first, self.last, self.mode = nn.Linear(64, 16), nn.Linear(16, 10), training
        self.register_buffer("mean", torch.zeros(16))
        self.register_buffer("var", torch.ones(16))

    def forward(self, x):
        on = self.training if self.mode is None else self.mode
        return self.last(torch.relu(F.batch_norm(self.first(x), self.mean, self.var, training=on)))


class LayersInList(nn.Module):
    """Blocks in a plain list, which PyTorch does not register, or in an nn.ModuleList."""

    def __init__(self, holder):
        super().__init__()
        self.first, self.last = nn.Linear(64, 16), nn.Linear(16, 10)
        self.blocks = holder([nn.BatchNorm1d(16), nn.ReLU()])

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x)


class TrainCalled(nn.Module):
    """A network that puts its norm back into train mode, in forward() or in train()."""

    def __init__(self, where):
        super().__init__()
        self.first, self.norm, self.last, self.where = nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 10), where

    def train(self, mode=True):
        super().train(mode)
        if self.where == "train":
            self.norm.train()
        return self

    def forward(self, x):
        if self.where == "forward":
            self.norm.train()
        return self.last(torch.relu(self.norm(self.first(x))))


def eval_findings(report):
    return report.by_code("eval-depends-on-batch")


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize(
    ("bad", "good", "expected"),
    [
        (lambda: Functional(True), lambda: Functional(None), "F.batch_norm"),
        (lambda: LayersInList(list), lambda: LayersInList(nn.ModuleList), "blocks"),
        (lambda: TrainCalled("forward"), lambda: TrainCalled(None), "norm"),
        (lambda: TrainCalled("train"), lambda: TrainCalled(None), "norm"),
    ],
    ids=["functional", "list", "forward", "train"],
)
def test_batch_statistics_after_eval_are_found(bad, good, expected, inference):
    model = bad()
    before = copy.deepcopy(model.state_dict())
    (finding,) = eval_findings(diagnose(model.train(not inference), batches(), inference=inference))
    assert expected in finding.evidence and "other samples in the batch" in finding.evidence
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not eval_findings(diagnose(good().train(not inference), batches(), inference=inference))


def test_rounding_in_half_precision_is_no_dependence_on_the_batch():
    model = models.mlp((64, 32, 10), nn.BatchNorm1d).to(torch.bfloat16)
    few = [(x.to(torch.bfloat16), y) for x, y in batches()]
    assert not eval_findings(diagnose(model, few))


def fitted(norm, sampler):
    """Train on 256 samples with random labels, which can only be memorised."""
    data = datasets.load("digits")
    labels = torch.randint(10, (256,), generator=torch.Generator().manual_seed(0))
    x = data.train_x[:256].flatten(1)
    small = datasets.Dataset("small", x, labels, x, labels, 10)
    model = models.mlp((64, 64, 64, 10), norm)
    training.fit(model, small, batch_size=16, lr=0.1, epochs=60, batches=sampler, progress=False)
    index = samplers.FixedBatches()(labels, 16, 0)
    return model.train(), [(x[i], labels[i]) for i, _ in zip(index, range(16), strict=False)]


@pytest.mark.parametrize(
    ("norm", "sampler", "memorised"),
    [(bnlib.BatchNorm, samplers.FixedBatches(), True), (bnlib.BatchNorm, samplers.shuffled, False)],
)
def test_memorised_batches_are_distinguished_from_memorised_samples(norm, sampler, memorised):
    model, few = fitted(norm, sampler)
    report = diagnose(model, few)
    assert ("batch-composition-memorised" in report.codes) == memorised, str(report)
    assert "batch-composition-memorised" not in diagnose(model.eval(), few, inference=True).codes
    numbers = {name: float(score.losses.mean()) for name, score in losses_by_mode(model, few).items()}
    assert (numbers["train_reshuffled"] > 3 * numbers["train"]) == memorised
    with torch.no_grad():
        by_hand = torch.stack([F.cross_entropy(model.train()(x), y) for x, y in few]).mean()
    assert numbers["train"] == pytest.approx(float(by_hand), rel=1e-3)


NORMS = {
    "BN": bnlib.BatchNorm,
    "Batch Renorm": lambda width: bnlib.BatchRenorm(width, r_max=3.0, d_max=5.0),
    "Full Norm": bnlib.FullNorm,
    "leave one out": lambda width: bnlib.FullNorm(width, oracle="leave_one_out"),
}


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_the_train_loss_is_that_of_train_mode_for_each_norm(norm):
    data = datasets.load("digits")
    model = models.mlp((64, 32, 32, 10), norm)
    training.fit(model, data, batch_size=32, lr=0.1, epochs=2, progress=False)
    single = batches(sampler=samplers.single_label)
    own = losses_by_mode(model.train(), single)["train"]
    with torch.no_grad():
        by_hand = [F.cross_entropy(copy.deepcopy(model).train()(x), y) for x, y in single]
    assert own.losses.tolist() == pytest.approx([float(loss) for loss in by_hand], rel=1e-3)
    assert diagnose(model.eval(), [(x[:1], y[:1]) for x, y in single], inference=True).remarks == ()


def test_batches_that_cannot_be_reshuffled_are_not_judged():
    model = models.mlp((64, 32, 10), nn.BatchNorm1d)
    assert "batch-composition-memorised" not in diagnose(model, batches(count=1)).codes
    assert "batch-composition-memorised" not in diagnose(model, [x for x, _ in batches()]).codes


@pytest.mark.parametrize(("dims", "side"), [(1, 64), (1, 8), (2, 8)])
@pytest.mark.parametrize("size", [1, 32])
def test_a_model_that_needs_the_statistics_of_its_batch_is_found(dims, side, size):
    """Classify each pixel: is it brighter than the mean of its image?

    Each image has a random exposure, which the statistics of a batch reveal only if the batch is a single image.
    """
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(256, 1, *[side] * dims, generator=generator)
    x = plain + 5 * torch.randn(256, 1, *[1] * dims, generator=generator)
    y = (plain[:, 0] > plain[:, 0].flatten(1).mean(1).view(-1, *[1] * dims)).long()
    few = list(zip(x.split(size), y.split(size), strict=True))
    conv, norm = ((nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d))[dims - 1]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(conv(1, 8, 1), norm(8), nn.ReLU(), conv(8, 2, 1))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for inputs, targets in few * max(1, size // 4):
        optimiser.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimiser.step()
    report = diagnose(model, few)
    assert ("relies-on-batch-statistics" in report.codes) == (size == 1), str(report)
    tiny = report.by_code("small-batches")
    assert [each.severity for each in tiny] == ["warning"] * (size == 1 and side**dims == 8)
    assert "relies-on-batch-statistics" not in diagnose(model.eval(), few, inference=True).codes


def test_unrepresentative_batches_are_reported_with_the_losses_by_mode():
    data = datasets.load("digits")
    model = models.mlp((64, 64, 10), bnlib.BatchNorm)
    training.fit(model, data, batch_size=32, lr=0.1, epochs=2, batches=samplers.single_label, progress=False)
    x, y = data.train_x.flatten(1), data.train_y
    index = list(itertools.islice(samplers.single_label(y, 32, 0), 16))
    single = [(x[i], y[i]) for i in index]
    (found,) = diagnose(model.train(), single).by_code("batches-not-representative")
    for score in losses_by_mode(model, single).values():
        assert str(score) in found.evidence
    (found,) = diagnose(model, single, loss=lambda outputs, targets: None).by_code("batches-not-representative")
    assert "loss" not in found.evidence


def test_losses_by_mode_are_equal_without_a_norm_and_need_a_loss():
    scores = losses_by_mode(models.mlp((64, 32, 10)), batches())
    values = [float(score.losses.mean()) for score in scores.values()]
    assert list(scores) == ["train", "train_reshuffled", "eval_recomputed", "eval"]
    assert values == pytest.approx([values[0]] * 4, rel=1e-4)
    with pytest.raises(ValueError, match="loss must be given"):
        losses_by_mode(models.mlp((64, 32, 10)), [x for x, _ in batches()])
    with pytest.raises(ValueError, match="max_batches must be an integer, at least 1, got 0"):
        losses_by_mode(models.mlp((64, 32, 10)), batches(), max_batches=0)


def test_statistics_of_too_few_batches_raise_the_eval_loss_only():
    model = models.mlp((64, 32, 10), lambda channels: bnlib.BatchNorm(channels, momentum=0.01))
    training.fit(model, datasets.load("digits"), batch_size=32, lr=0.1, epochs=1, progress=False)
    numbers = {name: float(score.losses.mean()) for name, score in losses_by_mode(model, batches()).items()}
    assert numbers["eval"] > 1.5 * max(value for name, value in numbers.items() if name != "eval")
