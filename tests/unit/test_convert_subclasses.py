"""convert: subclasses of batch norm that do more than normalise keep their forward, and come back as they were."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bnlib
from bnlib.norm.convert import convert

X = torch.linspace(-2, 2, 72).view(2, 4, 3, 3) ** 3


class ReLUInside(nn.BatchNorm2d):
    """A layer that calls the forward of batch norm."""

    def forward(self, x):
        return super().forward(x).relu()


class WithActivation(nn.BatchNorm2d):
    """A layer with submodules whose forward contains what that of batch norm does, as timm's BatchNormAct2d."""

    def __init__(self, num_features, eps=1e-3, momentum=0.3):
        super().__init__(num_features, eps, momentum)
        self.drop, self.act, self.slope = nn.Dropout(0.5), nn.PReLU(), 0.5

    def forward(self, x):
        if self.training and self.track_running_stats:
            self.num_batches_tracked.add_(1)
        statistics = (self.running_mean, self.running_var)
        x = F.batch_norm(x, *statistics, self.weight, self.bias, self.training, self.momentum, self.eps)
        return self.slope * self.act(self.drop(x))


class OwnDefaults(nn.BatchNorm2d):
    """A layer whose constructor alone is its own."""

    def __init__(self, channels):
        super().__init__(channels, eps=1e-2, momentum=0.02)


class Scaled(bnlib.BatchNorm):
    """A layer with a parameter and a buffer of its own, and an argument."""

    def __init__(self, num_features):
        super().__init__(num_features)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("offset", torch.tensor(1.0))

    def forward(self, x, times=1):
        return times * self.scale * super().forward(input=x.float()) + self.offset


KINDS = (ReLUInside, WithActivation, OwnDefaults, Scaled, bnlib.NoisyBatchNorm)
DOES_MORE = (ReLUInside, WithActivation, Scaled)


def network(kind):
    torch.manual_seed(0)
    model = nn.Sequential(kind(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyBatchNorm1d())
    for _ in range(3):
        model(X)
    return model.eval()


@pytest.mark.parametrize("to", [bnlib.FullNorm, bnlib.BatchRenorm, bnlib.BatchNorm, nn.SyncBatchNorm])
@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_is_exact_in_classes_numbers_and_attributes(kind, to):
    model = network(kind)
    before, state, text = model(X), copy.deepcopy(model.state_dict()), str(model)
    attributes = [{k: v for k, v in vars(each).items() if k[0] != "_"} for each in model.modules()]
    convert(model, to=to)
    assert isinstance(model[0], to) and type(model[2]) is type(model[4]) is to
    torch.testing.assert_close(model(X), before)
    convert(model, to=nn.BatchNorm2d)
    convert(model, to="original")
    assert str(model) == text and type(model[0]) is kind and type(model[4]) is nn.BatchNorm1d
    assert [{k: v for k, v in vars(each).items() if k[0] != "_"} for each in model.modules()] == attributes
    assert list(model.state_dict()) == list(state)
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert torch.equal(model(X), before)


def test_one_of_torchs_classes_brings_back_one_and_two_dimensions():
    for to in (nn.BatchNorm1d, "BatchNorm2d", nn.BatchNorm3d):
        model = convert(convert(network(ReLUInside)), to=to)
        assert [type(model[i]) for i in (0, 2, 4)] == [ReLUInside, nn.BatchNorm2d, nn.BatchNorm1d]
    assert type(convert(nn.Sequential(bnlib.FullNorm(3)), to=nn.BatchNorm3d)[0]) is nn.BatchNorm3d


def test_in_train_mode_the_new_layer_normalises_and_counts_once():
    torch.manual_seed(0)
    layer, plain = WithActivation(4), bnlib.FullNorm(4, eps=1e-3)
    layer.drop.p = 0.0
    model = convert(nn.Sequential(layer))
    plain.weight = model[0].weight
    for _ in range(3):
        a, b = X.clone().requires_grad_(), X.clone().requires_grad_()
        y, z = model(a), 0.5 * layer.act(plain(b))
        torch.testing.assert_close(y, z)
        torch.testing.assert_close(torch.autograd.grad(y.sum(), a), torch.autograd.grad(z.sum(), b))
    assert model[0].num_batches_tracked == 3
    torch.testing.assert_close(model[0].running_var, plain.running_var)


def test_the_modules_and_arguments_inside_still_count():
    model = convert(nn.Sequential(WithActivation(4), Scaled(4)))
    assert [name for name, _ in model.named_modules()] == ["", "0", "0.drop", "0.act", "1"]
    assert (model.train()[0](X) == 0).any() and not (model.eval()[0](X) == 0).any()
    torch.testing.assert_close(model[1](X, times=3) - 1, 3 * (model[1](X) - 1))
    model[1].scale.data.zero_()
    assert torch.equal(model[1](X), torch.ones_like(X))


@pytest.mark.parametrize("kind", DOES_MORE)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_independent_and_comes_back_too(kind, copied):
    model = convert(network(kind))
    other = copied(model)
    assert type(other[0]) is type(model[0]) and torch.equal(other(X), model(X))
    other.train()(X)
    assert other[0].num_batches_tracked == 4 and model[0].num_batches_tracked == 3
    assert type(convert(other, to="original")[0]) is kind


# Of Dynamo, where a mode such as the one that takes over the call meets an autograd.Function.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_it_compiles_whole_and_exports():
    torch.compiler.reset()
    model = convert(network(WithActivation))
    before = model(X)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(X), before)
    torch.testing.assert_close(torch.export.export(model, (X,)).module()(X), before)
    model[0].drop.p = 0.0
    twin = copy.deepcopy(model).train()
    torch.testing.assert_close(torch.compile(model.train(), backend="aot_eager")(X), twin(X))
    assert model[0].num_batches_tracked == 4


def test_its_forward_can_be_replaced_as_tools_do_that_watch_a_model():
    model, seen = convert(network(ReLUInside)), []
    before, forward = model(X), model[0].forward
    model[0].forward = lambda x: seen.append(x.shape) or forward(x)
    assert torch.equal(model(X), before) and seen == [X.shape]
    assert bnlib.diagnose(convert(network(ReLUInside)), [(X, torch.zeros(2, 4))] * 2) is not None


def test_random_numbers_are_not_used_up():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    convert(network_without_seed())
    assert torch.equal(torch.rand(2), expected)


def network_without_seed():
    return nn.Sequential(WithActivation(4))


def test_a_forward_that_does_not_normalise_once_is_an_error_when_it_runs():
    class Choosing(nn.BatchNorm2d):
        skipping = False

        def forward(self, x):
            return x if self.skipping else super().forward(x)

    layer = convert(nn.Sequential(Choosing(4)))[0]
    layer.skipping = True
    with pytest.raises(RuntimeError, match=r"Choosing must call torch\.nn\.functional\.batch_norm once, so that Full"):
        layer(X)


def test_the_layers_of_timm():
    layers = pytest.importorskip("timm.layers")
    model = nn.Sequential(layers.BatchNormAct2d(4, act_layer=nn.SiLU), layers.GroupNormAct(4, 2)).eval()
    model[0].running_var.uniform_()
    before = model(X)
    convert(model)
    assert isinstance(model[0], bnlib.FullNorm) and type(model[1]) is layers.GroupNormAct
    torch.testing.assert_close(model(X), before)
    assert type(convert(model, to="original")[0]) is layers.BatchNormAct2d and torch.equal(model(X), before)


@pytest.mark.parametrize("family", ["efficientnet_lite0", "levit_128s", "mobilenetv3_small_050"])
def test_a_network_of_timm(family):
    timm = pytest.importorskip("timm")
    model, x = timm.create_model(family).eval(), torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        before, text = model(x), str(model)
        convert(model)
        torch.testing.assert_close(model(x), before, rtol=1e-3, atol=1e-3)
        convert(model, to=nn.BatchNorm2d)
        assert str(model) == text and torch.equal(model(x), before)
