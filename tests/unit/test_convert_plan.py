"""convert: which layers it selects, what it leaves alone, and the plan that a dry run prints."""

import copy

import pytest
import torch
from torch import nn

from bnlib.norm.convert import convert
from bnlib.norm.full_norm import FullNorm


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn1, self.bn2, self.ln = nn.BatchNorm2d(4), nn.BatchNorm1d(4), nn.LayerNorm(4)


class Frozen(nn.Module):
    """As torchvision's FrozenBatchNorm2d."""

    def __init__(self):
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(4))


class Whitening(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(3))


class SplitAttention(nn.BatchNorm2d):
    pass


def network():
    return nn.ModuleDict({"stem": nn.BatchNorm2d(3), "layer1": Block(), "layer10": Block(), "head": nn.Linear(4, 2)})


def converted(**selection):
    model = convert(network(), **selection)
    return [name for name, layer in model.named_modules() if isinstance(layer, FullNorm)]


ALL = ["stem", "layer1.bn1", "layer1.bn2", "layer10.bn1", "layer10.bn2"]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({}, ALL),
        ({"only": "stem"}, ["stem"]),
        ({"only": "layer1"}, ["layer1.bn1", "layer1.bn2"]),
        ({"only": ["layer1.bn1", "layer10"]}, ["layer1.bn1", "layer10.bn1", "layer10.bn2"]),
        ({"only": "layer*.bn2"}, ["layer1.bn2", "layer10.bn2"]),
        ({"only": nn.BatchNorm1d}, ["layer1.bn2", "layer10.bn2"]),
        ({"only": ("BatchNorm1d", "stem")}, ["stem", "layer1.bn2", "layer10.bn2"]),
        ({"skip": "stem"}, ALL[1:]),
        ({"skip": [nn.BatchNorm1d, "layer10"]}, ["stem", "layer1.bn1"]),
        ({"skip": "head"}, ALL),
        ({"skip": []}, ALL),
        ({"only": "layer1", "skip": nn.BatchNorm2d}, ["layer1.bn2"]),
    ],
    ids=str,
)
def test_only_and_skip_go_by_name_and_by_class(selection, expected):
    assert converted(**selection) == expected


def test_subclasses_go_with_their_class_and_shared_layers_by_any_of_their_names():
    model = nn.ModuleDict({"a": SplitAttention(3), "b": nn.BatchNorm2d(3)})
    model["again"] = model["a"]
    assert type(convert(copy.deepcopy(model), only=nn.BatchNorm2d)["a"]) is FullNorm
    assert type(convert(copy.deepcopy(model), only="SplitAttention")["b"]) is nn.BatchNorm2d
    twice = convert(copy.deepcopy(model), only="again")
    assert twice["a"] is twice["again"] and type(twice["a"]) is FullNorm and type(twice["b"]) is nn.BatchNorm2d
    assert type(convert(copy.deepcopy(model), skip="again")["a"]) is SplitAttention


@pytest.mark.parametrize(
    ("selection", "error", "message"),
    [
        (
            {"only": "layr1"},
            ValueError,
            r"only must name a part of the model .*, got 'layr1'; did you mean 'layer1'\?$",
        ),
        ({"skip": ["stem", "BatchNorm1"]}, ValueError, r"skip must name .*, got 'BatchNorm1'; did you mean 'BatchNo"),
        ({"only": "head"}, ValueError, "only must select at least one normalisation layer, got 'head'"),
        ({"only": nn.Conv2d}, ValueError, "only must select at least one normalisation layer, got <class"),
        ({"only": []}, ValueError, r"only must select at least one normalisation layer, got \[\]"),
        ({"only": 3}, TypeError, "only must be a name, a class, or a list of these, got 3"),
        (
            {"skip": ["stem", None]},
            TypeError,
            r"skip must be a name, a class, or a list of these, got \['stem', None\]",
        ),
    ],
    ids=str,
)
def test_a_selection_of_nothing_is_an_error(selection, error, message):
    model = network()
    with pytest.raises(error, match=message):
        convert(model, **selection)
    assert str(model) == str(network())


def test_what_is_not_batch_norm_or_is_frozen_stays():
    odd = [nn.GroupNorm(1, 4), nn.InstanceNorm2d(4, track_running_stats=True), Frozen(), Whitening(), nn.RMSNorm(3)]
    model = convert(nn.Sequential(*odd, nn.BatchNorm2d(4)))
    assert list(model[:5]) == odd and type(model[5]) is FullNorm


def test_layers_that_cannot_be_converted_can_be_skipped():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(ValueError, match=r"1 \(BatchNorm1d\): does not track the running statistics"):
        convert(model)
    convert(model, skip="1")
    assert type(model[0]) is FullNorm and type(model[1]) is nn.BatchNorm1d


def test_the_original_leaves_what_was_never_converted():
    model = nn.Sequential(nn.BatchNorm1d(3), FullNorm(3))
    convert(model, only="0")
    convert(model, to="original")
    assert type(model[0]) is nn.BatchNorm1d and type(model[1]) is FullNorm


def test_a_dry_run_prints_the_plan_and_changes_nothing(capsys):
    model = network()
    model["last"], model["none"] = Frozen(), nn.BatchNorm1d(2, track_running_stats=False)
    model["layer1"].bn1.running_var[:2] = 1e-5
    before, parts = copy.deepcopy(model.state_dict()), list(model.modules())
    assert convert(model, skip="stem", dry_run=True) is model
    lines = [line.split(maxsplit=4) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["layer", "class", "channels", "becomes", "note"]
    assert [line[0] for line in lines[1:-1]] == [
        "stem", "layer1.bn1", "layer1.bn2", "layer1.ln", "layer10.bn1", "layer10.bn2", "layer10.ln", "last", "none",
    ]  # fmt: skip
    assert " ".join(lines[1]) == "stem BatchNorm2d 3 stays: is in skip"
    assert (
        " ".join(lines[2]) == "layer1.bn1 BatchNorm2d 4 FullNorm variance near eps in 2 channels: factor 0.71 to 0.71"
    )
    assert " ".join(lines[3]) == "layer1.bn2 BatchNorm1d 4 FullNorm"
    assert " ".join(lines[4]) == "layer1.ln LayerNorm stays: is not batch normalisation"
    assert " ".join(lines[8]).startswith("last Frozen stays: is frozen batch normalisation")
    assert " ".join(lines[9]).startswith(
        "none BatchNorm1d 2 cannot be converted: does not track the running statistics"
    )
    assert " ".join(lines[10]) == "4 of 9 normalisation layers would be converted, 1 cannot be."
    assert all(a is b for a, b in zip(model.modules(), parts, strict=True))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
