"""``bnlib.diagnose`` runs the norm layers that the user wrote, and knows what they normalise."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bnlib
from bnlib.doctor import diagnose, losses_by_mode

GENERATOR = torch.Generator().manual_seed(0)
X = list((3 + 2 * torch.randn(8, 64, 4, generator=GENERATOR)).unbind())
BATCHES = [(x, (x[:, 0] > 3).long()) for x in X]


class Activated(nn.BatchNorm1d):
    """As timm's BatchNormAct2d: calls the function of BN itself, and has an activation inside."""

    def __init__(self, channels):
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.Tanh()

    def forward(self, x):
        use_batch = self.training or (self.running_mean is None and self.running_var is None)
        tracked = not self.training or self.track_running_stats
        statistics = (self.running_mean, self.running_var) if tracked else (None, None)
        x = F.batch_norm(x, *statistics, self.weight, self.bias, use_batch, self.momentum, self.eps)
        return self.act(self.drop(x))


class Masked(nn.BatchNorm1d):
    """Normalises what a mask leaves, as for sequences of different lengths."""

    def forward(self, x, mask=None):
        mask = x[:, 1] > 3 if mask is None else mask
        out = torch.zeros_like(x)
        out[mask] = super().forward(x[mask])
        return out


class Split(nn.BatchNorm1d):
    """As timm's SplitBatchNorm2d: the second half of a training batch has a layer of its own."""

    def __init__(self, channels):
        super().__init__(channels)
        self.second = nn.BatchNorm1d(channels)

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        first, second = x.chunk(2)
        return torch.cat([super().forward(first), self.second(second)])


class Conditional(nn.Module):
    """A gamma and a beta for each condition."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.BatchNorm1d(channels, affine=False)
        self.gamma = nn.Embedding.from_pretrained(torch.ones(2, channels), freeze=False)

    def forward(self, x):
        return self.norm(x) * self.gamma((x[:, 0] > 3).long())


class Own(nn.Module):
    """A batch norm written from scratch; ``updates=False`` forgets the running statistics."""

    def __init__(self, channels, updates=True, channels_last=False):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.updates, self.channels_last = updates, channels_last

    def forward(self, x):
        dims = tuple(range(x.dim() - 1)) if self.channels_last else 0
        mean, variance = (x.mean(dims), x.var(dims)) if self.training else (self.running_mean, self.running_var)
        if self.training and self.updates:
            self.running_mean.lerp_(mean.detach(), 0.1)
            self.running_var.lerp_(variance.detach(), 0.1)
        return (x - mean) / (variance + 1e-5).sqrt()


class Recent(Own):
    """Normalises by the mean over two batches, and has a buffer of its own for the last one."""

    def __init__(self, channels):
        super().__init__(channels)
        self.register_buffer("recent", torch.zeros(channels))

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        with torch.no_grad():
            mean, variance = (x.mean(0) + self.recent) / 2, x.var(0)
            self.recent = x.mean(0)
            self.running_mean.lerp_(x.mean(0), 0.1)
            self.running_var.lerp_(variance, 0.1)
        return (x - mean) / (variance + 1e-5).sqrt()


class Frozen(nn.Module):
    """As torchvision's FrozenBatchNorm2d: fixed statistics in both modes."""

    def __init__(self, channels):
        super().__init__()
        for name, value in {"weight": 1.0, "bias": 0.0, "running_mean": 3.0, "running_var": 4.0}.items():
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x):
        return (x - self.running_mean) / (self.running_var + 1e-5).sqrt() * self.weight + self.bias


def lazy():
    layer = nn.LazyBatchNorm1d()
    layer(X[0])
    return layer


LAYERS = {
    "activated": lambda: Activated(4),
    "masked": lambda: Masked(4),
    "split": lambda: Split(4),
    "conditional": lambda: Conditional(4),
    "own": lambda: Own(4),
    "own, channels last": lambda: Own(4, channels_last=True),
    "sync": lambda: nn.SyncBatchNorm(4),
    "lazy": lazy,
}


def trained(layer, steps=80):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(layer, nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    for x, y in BATCHES * (steps // len(BATCHES)):
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()
    return model


def layer_with_statistics(model):
    return next(name for name, each in model.named_modules() if getattr(each, "running_mean", None) is not None)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_the_losses_are_those_of_the_users_layer(make):
    model = trained(make())
    scores = losses_by_mode(model, BATCHES)
    for mode, name in ((True, "train"), (False, "eval")):
        with torch.no_grad():
            by_hand = [float(F.cross_entropy(copy.deepcopy(model).train(mode)(x), y)) for x, y in BATCHES]
        assert scores[name].losses.tolist() == pytest.approx(by_hand, rel=1e-4)
    report = diagnose(model, BATCHES)
    assert not [each for each in report if each.severity != "note"], str(report)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_wrong_statistics_of_the_users_layer_are_found(make):
    model = trained(make()).eval()
    name = layer_with_statistics(model)
    model.get_submodule(name).running_mean += 8
    report = diagnose(model, BATCHES)
    assert report.codes[0] == "eval-mode-distorted" and f"{name} " in report[0].evidence
    assert [each.layer for each in report.by_code("running-statistics-mismatch")] == [name]


def test_an_activation_inside_a_norm_is_kept():
    """The layer alone would give a mean of 0; its tanh stays in front of the loss."""
    model = nn.Sequential(Activated(4))
    loss = losses_by_mode(model, X, loss=lambda outputs, _: outputs.abs().max())["train"]
    assert float(loss.losses.max()) < 1


def test_one_value_per_channel_in_the_users_layer_is_found():
    report = diagnose(trained(Activated(4)), [(x[:1], y[:1]) for x, y in BATCHES])
    assert [each.layer for each in report.by_code("one-value-per-channel")] == ["0", "2"]


def test_own_statistics_that_are_never_updated_are_found_beside_others():
    for layers in ([Own(4, updates=False)], [Own(4, updates=False), nn.BatchNorm1d(4)]):
        model = nn.Sequential(*layers, nn.Linear(4, 2))
        for x in X * 20:
            model(x)
        report = diagnose(model.eval(), BATCHES)
        (found,) = report.by_code("running-statistics-never-updated")
        assert found.layer == "0" and "the forward of Own has to" in found.evidence


def test_a_frozen_norm_is_no_fault_and_its_statistics_stay():
    model = trained(Frozen(4))
    for mode in (True, False):
        report = diagnose(model.train(mode), BATCHES)
        assert not [each for each in report if each.severity != "note"], str(report)
    # Training went around other statistics, so they are right for this network.
    model[0].running_mean += 8
    with torch.no_grad():
        model[1].bias += model[1].weight @ torch.full((4,), 4.0)
    assert "eval-mode-distorted" not in diagnose(model, BATCHES).codes


def test_a_frozen_layer_that_does_not_track_is_not_said_to_move():
    model = trained(nn.BatchNorm1d(4))
    model[0].requires_grad_(False)
    assert [each.layer for each in diagnose(model, BATCHES).by_code("frozen-layer-updates-statistics")] == ["0"]
    model[0].track_running_stats = False
    assert not diagnose(model, BATCHES).by_code("frozen-layer-updates-statistics")


def test_the_layers_of_timm_keep_their_activation():
    timm_layers = pytest.importorskip("timm.layers")
    model = nn.Sequential(timm_layers.BatchNormAct2d(4, act_layer=nn.Sigmoid))
    images = [x.view(64, 4, 1, 1) for x in X]
    loss = losses_by_mode(model, images, loss=lambda outputs, _: outputs.min())["train"]
    assert float(loss.losses.min()) > 0


def test_a_pass_leaves_nothing_behind_in_the_next():
    model = trained(Activated(4))
    scores = [losses_by_mode(model, BATCHES[:count]) for count in (4, 8)]
    for name in ("train", "eval"):
        assert torch.equal(scores[0][name].losses, scores[1][name].losses[:4])
    with torch.no_grad():
        by_hand = [float(F.cross_entropy(copy.deepcopy(model).eval()(x), y)) for x, y in BATCHES]
    assert scores[1]["eval"].losses.tolist() == pytest.approx(by_hand, rel=1e-5)


def test_a_layer_that_keeps_recent_batches_is_not_taken_for_a_frozen_one():
    model = nn.Sequential(Recent(4), nn.Linear(4, 2))
    model[0].running_mean.fill_(30.0)
    assert "frozen-statistics-mismatch" not in diagnose(model, BATCHES).codes


def square(norm):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(norm(), nn.ReLU(), nn.Linear(4, 2))


@pytest.mark.parametrize(
    "norm",
    [
        lambda: bnlib.CrossIterationBatchNorm(nn.Linear(4, 4)),
        lambda: nn.Sequential(nn.Linear(4, 4), bnlib.MovingAverageBatchNorm(4)),
    ],
)
@pytest.mark.parametrize("beside_bn", [False, True])
def test_norms_whose_statistics_are_unknown_are_named_and_not_judged(norm, beside_bn):
    model = square(norm)
    if beside_bn:
        model.insert(1, nn.BatchNorm1d(4))
    for x in X:
        model(x)
    report = diagnose(model, BATCHES)
    kind = next(each for each in model.modules() if type(each).__module__.startswith("bnlib"))
    assert report.remarks[0].startswith("Not checked, because diagnose does not know the statistics of")
    assert type(kind).__name__ in report.remarks[0]
    assert not any("no layer with batch statistics" in each or "does not call" in each for each in report.remarks)
    assert report.checked is beside_bn and all(each.layer != "0" for each in report)
    if not beside_bn:
        with pytest.raises(ValueError, match="model must have a layer with batch statistics"):
            bnlib.Monitor(model)


def test_running_statistics_of_instance_norm_are_named_as_not_checked():
    tracked = nn.Sequential(nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True))
    report = diagnose(tracked, [torch.randn(8, 1, 5, 5)])
    assert report.remarks == ("Not checked, because diagnose does not know the statistics of InstanceNorm2d: 1.",)
    assert "nothing to check" in diagnose(nn.InstanceNorm2d(4), [torch.randn(8, 4, 5, 5)]).remarks[0]
