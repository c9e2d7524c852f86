"""convert: the layers and arguments that it refuses, and what it says."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

import bnlib
from bnlib.norm.batch_norm import BatchNorm
from bnlib.norm.batch_renorm import BatchRenorm
from bnlib.norm.convert import convert
from bnlib.norm.full_norm import FullNorm


class Activated(nn.BatchNorm1d):
    """A layer that does more than normalise."""

    def forward(self, x):
        return super().forward(x).relu()


class Whole(nn.BatchNorm1d):
    def forward(self, x):
        return (x - x.mean(0)) / x.std(0)


class Twice(nn.BatchNorm1d):
    def forward(self, x):
        return super().forward(super().forward(x))


class InTraining(nn.BatchNorm1d):
    def forward(self, x):
        return super().forward(x) if self.training else x


class Masked(nn.BatchNorm1d):
    def forward(self, x, mask):
        return super().forward(x * mask)


class Keeping(nn.BatchNorm1d):
    def forward(self, x):
        self.last = super().forward(x)
        return self.last


class Base(_BatchNorm):
    def _check_input_dim(self, x):
        pass


class HoldingBoth(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(3))
        self.register_buffer("running_var", torch.ones(3))


class OurBatchNormalisation(nn.Module):
    pass


class Normalize(nn.Module):
    """Not a layer that trains."""


class PreNorm(nn.Sequential):
    """Not a layer, but a container of one."""


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def parametrised():
    layer = nn.BatchNorm1d(3)
    parametrize.register_parametrization(layer, "weight", Doubled())
    return layer


def weight_normed():
    layer = nn.BatchNorm1d(3)
    layer.register_parameter("weight_g", nn.Parameter(torch.ones(1)))
    return layer


def hooked(register, kind=nn.BatchNorm1d):
    layer = kind(3)
    getattr(layer, register)(lambda *args: None)
    return layer


def changed(**attributes):
    layer = nn.BatchNorm1d(3)
    for name, value in attributes.items():
        setattr(layer, name, value)
    return layer


REFUSED = {
    "lazy": (lambda: nn.LazyBatchNorm1d(), "LazyBatchNorm1d): is lazy"),
    "no batch norm inside": (
        lambda: Whole(3),
        "Whole): has a forward that calls torch.nn.functional.batch_norm 0 times",
    ),
    "two inside": (
        lambda: Twice(3),
        "Twice): has a forward that calls torch.nn.functional.batch_norm 2 times in train",
    ),
    "in train mode only": (lambda: InTraining(3), "InTraining): has a forward that calls torch.nn.functional.batch_no"),
    "more arguments": (
        lambda: Masked(3),
        "Masked): has a forward that fails for an input of shape (4, 3): Masked.forw",
    ),
    "keeps its input": (lambda: Keeping(3), "Keeping): has a forward that sets the attributes last, which would be"),
    "subclass of its own": (lambda: Base(3), "Base): is of a class that convert does not know"),
    "holds statistics": (HoldingBoth, "HoldingBoth): is of a class"),
    "named so": (OurBatchNormalisation, "OurBatchNormalisation): is of a class"),
    "parametrised": (parametrised, "has parametrised tensors"),
    "more parameters": (weight_normed, "has the additional attributes weight_g"),
    "forward hook": (lambda: hooked("register_forward_hook"), "has hooks (_forward_hooks)"),
    "forward pre-hook": (lambda: hooked("register_forward_pre_hook"), "has hooks (_forward_pre_hooks)"),
    "backward hook": (lambda: hooked("register_full_backward_hook"), "has hooks (_backward_hooks)"),
    "state hook": (lambda: hooked("register_state_dict_post_hook"), "has hooks (_state_dict_hooks)"),
    "hook on ours": (lambda: hooked("register_forward_hook", BatchNorm), "(BatchNorm): has hooks"),
    "own forward": (lambda: changed(forward=torch.relu), "has the additional attributes forward"),
    "submodule": (lambda: changed(inside=nn.ReLU()), "has the additional attributes inside"),
    "tensor": (lambda: changed(noise=torch.ones(3)), "has the additional attributes noise"),
    "no statistics": (lambda: nn.BatchNorm1d(3, track_running_stats=False), "does not track the running statistics"),
    "statistics off": (lambda: changed(track_running_stats=False), "does not track the running statistics"),
    "no mean": (lambda: changed(running_mean=None), "does not track the running statistics"),
    "no count": (lambda: changed(num_batches_tracked=None), "does not track the running statistics"),
}


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_converted_is_named_and_nothing_changes(make, reason):
    odd = make()
    model = nn.Sequential(nn.BatchNorm1d(3), nn.ModuleDict({"inner": nn.Sequential(nn.ReLU(), odd)}))
    before, first = model.state_dict(), model[0]
    with pytest.raises(ValueError, match="cannot convert to FullNorm") as caught:
        convert(model)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and lines[1].startswith("  1.inner.1 (") and reason in lines[1]
    assert model[0] is first and type(first) is nn.BatchNorm1d and model[1]["inner"][1] is odd
    assert list(before) == list(model.state_dict())

    with pytest.warns(UserWarning, match="These layers were not converted") as warned:
        assert convert(model, strict=False) is model
    assert len(warned) == 1 and lines[1] in str(warned[0].message) and warned[0].filename == __file__
    assert type(model[0]) is FullNorm and model[1]["inner"][1] is odd


def test_all_that_cannot_be_converted_is_named_at_once():
    model = nn.Sequential(Base(3), nn.BatchNorm1d(3), nn.LazyBatchNorm1d(), HoldingBoth())
    with pytest.raises(ValueError, match=r"(?s)  0 \(Base\).*  2 \(Lazy.*  3 \(HoldingBoth\).*skip=\[\.\.\.\]"):
        convert(model, to=nn.BatchNorm1d)


def test_a_layer_that_the_new_class_refuses_is_named():
    model = nn.Sequential(nn.BatchNorm1d(3, momentum=None))
    with pytest.raises(ValueError, match=r"0 \(BatchNorm1d\): momentum must lie between 0 and 1, got None"):
        convert(model, to=BatchRenorm)
    assert convert(model, to=BatchRenorm, momentum=0.5)[0].momentum == 0.5


def test_part_of_a_fused_module_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.nn.intrinsic.qat import ConvBn2d
        from torch.ao.quantization import get_default_qat_qconfig

        fused = ConvBn2d(1, 2, 3, qconfig=get_default_qat_qconfig())
    with pytest.raises(ValueError, match=r"  bn \(BatchNorm2d\): is part of a torch.ao module"):
        convert(fused)


def test_lazy_layers_that_have_seen_data_are_layers_like_others():
    model = nn.Sequential(nn.LazyBatchNorm1d())
    model(torch.randn(4, 3))
    assert convert(model)[0].num_features == 3


def test_what_only_sounds_like_a_layer_is_let_pass():
    model = nn.Sequential(Normalize(), PreNorm(nn.BatchNorm1d(3)))
    model.append(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    convert(model)
    assert type(model[1][0]) is FullNorm


@pytest.mark.parametrize(
    ("to", "hint"),
    [
        (nn.LayerNorm, r"LayerNorm'>.*"),
        (Activated, r"Activated'>$"),
        (nn.LazyBatchNorm1d, r"; did you mean 'BatchNorm1d'\?$"),
        ("fullnorm", r"'fullnorm'; did you mean 'FullNorm'\?$"),
        ("BatchNormm2d", r"; did you mean 'BatchNorm2d'\?$"),
        ("nothing", r"'nothing'$"),
        (BatchNorm(3), r"BatchNorm\(3, .*; pass the class of the layer, and its arguments as options$"),
        (None, r"None$"),
    ],
)
def test_to_must_be_one_of_the_layers(to, hint):
    with pytest.raises(ValueError, match=rf"to must be one of BatchNorm, .*SyncBatchNorm, or 'original', got .*{hint}"):
        convert(nn.BatchNorm1d(3), to=to)


def test_the_name_of_a_class_stands_for_it():
    for to in (FullNorm, nn.BatchNorm2d):
        assert type(convert(BatchNorm(3), to=to.__name__)) is to
    assert type(convert(BatchNorm(3), to="SyncBatchNorm")) is bnlib.SyncBatchNorm
    for name in ("batch_norm", "batch_renorm", "full_norm", "ghost_batch_norm"):  # as in NORMS
        made = bnlib.NORMS[name].apply(nn.Linear(2, 3))[1]
        assert type(convert(nn.BatchNorm1d(3), to=name)) is type(made)


@pytest.mark.parametrize("model", [3, None, nn.BatchNorm1d, {"norm": nn.BatchNorm1d(3)}])
def test_only_a_model_can_be_converted(model):
    with pytest.raises(TypeError, match=r"model must be an nn.Module, got .*"):
        convert(model)


def test_an_option_that_is_nearly_right_is_answered_with_the_right_one():
    with pytest.raises(TypeError, match=r"options must be arguments of FullNorm, got 'alhpa'; did you mean 'alpha'\?$"):
        convert(nn.BatchNorm1d(3), alhpa=0.1)
    with pytest.raises(TypeError, match=r"got 'dryrun'; did you mean 'dry_run'\?$"):
        convert(nn.BatchNorm1d(3), dryrun=True)
    with pytest.raises(TypeError, match=r"options must be left out for to='original', got {'alpha': 0.1}"):
        convert(nn.BatchNorm1d(3), to="original", alpha=0.1)


@pytest.mark.parametrize("name", ["num_features", "affine", "bias", "track_running_stats", "device", "dtype"])
def test_options_leave_alone_what_is_kept(name):
    with pytest.raises(ValueError, match=f"options must not set {name}, which come from the old layers"):
        convert(nn.BatchNorm1d(3), to=BatchNorm, **{name: None})


def test_wrong_options_are_errors_even_if_not_strict():
    model = nn.Sequential(nn.BatchNorm1d(3))
    with pytest.raises(TypeError, match="'alpha'"):
        convert(model, to=BatchNorm, strict=False, alpha=0.5)
    with pytest.raises(ValueError, match="r_max must be at least 1"):
        convert(model, to=BatchRenorm, strict=False, r_max=0.5)
    assert type(model[0]) is nn.BatchNorm1d
