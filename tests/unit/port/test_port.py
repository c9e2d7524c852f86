"""Reading, loading and writing batch norms: conventions, matching of layers, and what is said about losses."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import bnlib
from bnlib import frameworks, port
from bnlib.port.conventions import ROLES, ROWS, convention

BATCH = np.random.default_rng(0).normal(2, 3, (4, 2)).astype(np.float32)


def keras(count=1, **arrays):
    layer = {"gamma": np.ones(count), "beta": np.zeros(count), "moving_mean": np.zeros(count)}
    return layer | {"moving_variance": np.ones(count)} | arrays


@pytest.mark.parametrize("framework", ROWS)
def test_the_conventions_are_those_that_were_measured(framework):
    own, answers = convention(framework), frameworks.load()[ROWS[framework]]["answers"]
    assert own.eps == answers["eps"] and own.variance == answers["variance that is stored"]
    momentum = 0.9 if own.momentum is None else own.momentum
    assert own.weight_of_new(momentum) == pytest.approx(answers["weight of the new batch"])
    assert own.momentum_for(own.weight_of_new(momentum)) == pytest.approx(momentum)
    if "running_mean" in own.names:
        assert {*own.names} >= {"weight", "bias", "running_mean", "running_var"}
        flat = json.dumps(answers["names in a checkpoint"])
        assert all(f'"{name}"' in flat and name in ROLES for name in own.names.values())


@pytest.mark.parametrize("framework", [each for each in port.FRAMEWORKS if each != "equinox"])
def test_a_layer_comes_back_from_every_framework_as_it_went(framework):
    layer = nn.BatchNorm1d(2, eps=0.01, momentum=0.2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([2.0, 3.0]))
        layer(torch.from_numpy(BATCH))
    written = port.write(port.read(layer, "torch"), framework)
    own = convention(framework)
    settings = {"eps": written.arguments[own.eps_argument], "momentum": written.arguments[own.momentum_argument]}
    source = written.arrays
    if framework == "onnx":
        source = list(source.values())
    if framework == "flax":
        source = {group: {"norm": arrays} for group, arrays in source.items()}
    state = port.read(source, framework, **settings)
    back = bnlib.BatchNorm(2)
    port.load(back, state)
    assert (back.eps, back.momentum) == (0.01, pytest.approx(0.2))
    assert torch.equal(back.eval()(torch.from_numpy(BATCH)), layer.eval()(torch.from_numpy(BATCH)))


@pytest.mark.parametrize("count", [0, 1, 5, 200])
def test_the_biased_variance_is_exact_from_the_first_batch_on(count):
    """What Keras would have stored for the same batches, of which the initial 1 is no part."""
    layer, biased = nn.BatchNorm1d(2), np.ones(2)
    for _ in range(count):
        layer(torch.from_numpy(BATCH))
        biased = 0.9 * biased + 0.1 * BATCH.var(0)
    written = port.write(port.read(layer, "torch"), "keras", values_per_channel=4)
    assert written.arrays["moving_variance"] == pytest.approx(biased, rel=1e-5)


def test_the_variance_is_copied_unless_the_size_of_the_batches_is_known():
    source = {"a": keras(moving_variance=[3.0]), "b": keras(moving_variance=[3.0])}
    model = nn.Sequential(nn.BatchNorm1d(1), nn.BatchNorm1d(1))
    notes = port.load(model, port.norms(source, "keras"), names={"a": "1", "b": "0"})
    assert [layer.running_var.item() for layer in model] == [3, 3]
    assert sum("copied as it is stored, biased" in note and note.startswith("1, 0: ") for note in notes) == 1
    port.load(model, port.norms(source, "keras"), names={"a": "1", "b": "0"}, values_per_channel={"0": 2, "1": 4})
    assert [layer.running_var.item() for layer in model] == [6, 4]
    with pytest.raises(ValueError, match=r"values_per_channel must have a number for layer '0', got \['1'\]"):
        port.load(model, port.norms(source, "keras"), names={"a": "1", "b": "0"}, values_per_channel={"1": 4})


def test_layers_are_matched_by_name_by_order_or_by_their_channels():
    model = nn.Sequential(nn.BatchNorm1d(1), nn.BatchNorm1d(2))
    by_name = {"1": keras(2, moving_mean=[5.0, 5.0]), "0": keras()}
    assert not any("matched" in note for note in port.load(model, port.norms(by_name, "keras")))
    assert model[1].running_mean.tolist() == [5, 5]
    by_order = {"batch_norm_9": keras(), "batch_norm_10": keras(2)}
    assert "batch_norm_9 to 0, batch_norm_10 to 1" in port.load(model, port.norms(by_order, "keras"))[0]
    sorted_names = {"block": keras(2), "stem": keras()}
    assert "by their numbers of channels" in port.load(model, port.norms(sorted_names, "keras"))[0]


@pytest.mark.parametrize(
    ("source", "names", "message"),
    [
        ({"a": keras()}, None, "got 1 for 2 layers; layers of the network without a state: 0, 1; states without .*: a"),
        ({"0": keras(), "1": keras(), "2": keras()}, None, "got 3 for 2 layers; states without a layer: 2"),
        ({"0": keras(), "1": keras(3)}, None, "layer 1 must get 2 channels, got 3 from 1; pass names="),
        ({"a": keras(2), "b": keras(2)}, None, "sorts its layers by name.* pass names="),
        ({"a": keras(), "b": keras(2)}, {"a": "0"}, "layers of the network without a state: 1; states .*: b"),
        ({"a": keras(), "b": keras(2)}, {"a": "0", "b": "0"}, "names must give each layer to one source, got '0' 2"),
        ({"a": keras(), "b": keras(2)}, {"a": "0", "c": "1"}, "names must be one of 'a', 'b', got 'c'"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(source, names, message):
    model = nn.Sequential(nn.BatchNorm1d(1), nn.BatchNorm1d(2))
    model[0].running_mean.fill_(7)
    with pytest.raises(ValueError, match=message):
        port.load(model, port.norms(source, "keras"), names=names)
    assert model[0].running_mean.item() == 7 and model[0].eps == 1e-5


def test_a_weight_is_not_dropped():
    with pytest.raises(
        ValueError, match="layer 0 must have a weight to hold the values of the state, got a layer without"
    ):
        port.load(nn.Sequential(nn.BatchNorm1d(1, affine=False)), port.norms({"0": keras(gamma=[2.0])}, "keras"))
    port.load(nn.Sequential(nn.BatchNorm1d(1, affine=False)), port.norms({"0": keras()}, "keras"))
    layer = bnlib.BatchNorm(1, bias=False)
    assert not port.load(bnlib.BatchNorm(1, bias=False), port.read(layer, "torch"))
    assert port.write(port.read(layer, "torch"), "keras").arguments["center"] is False
    assert any(
        "had no bias; ONNX gets one of 0" in note for note in port.write(port.read(layer, "torch"), "onnx").notes
    )


def test_what_a_framework_cannot_hold_is_said():
    images = port.read({"params": {"scale": [1.0]}, "batch_stats": {"mean": [0.0], "var": [1.0]}}, "flax")
    notes = port.write(images, "torch").notes
    assert any("channels on axis -1, PyTorch has them on axis 1 by default" in note for note in notes)
    cumulative = port.write(port.read(nn.BatchNorm1d(1, momentum=None), "torch"), "keras")
    assert any("momentum=None, a cumulative average" in note for note in cumulative.notes)
    assert "momentum" not in cumulative.arguments
    broken = port.read(keras(moving_mean=[np.nan]), "keras")
    assert "contain NaN or infinity" in broken.notes[-1]
    ghost = port.read(bnlib.GhostBatchNorm(2, virtual_batch_size=2), "torch")
    assert any("GhostBatchNorm: what it has beyond batch norm is not carried" in note for note in ghost.notes)


def test_a_source_without_batch_norms_says_what_it_has(tmp_path):
    arrays = {"0.running_mean": torch.ones(1), "0.running_var": torch.ones(1)}
    with pytest.raises(ValueError, match=r"its arrays are '0\.running_mean', '0\.running_var'; .* those of torch"):
        port.norms(arrays, "flax")
    with pytest.raises(ValueError, match=r"source must be a file that ends in \.npz, .*, got 'weights\.tflite'"):
        port.norms("weights.tflite", "flax")
    with pytest.raises(FileNotFoundError, match="source must be an existing file, got"):
        port.norms(tmp_path / "none.npz", "keras")
    np.savez(tmp_path / "one.onnx.npz", **keras())
    assert port.read(tmp_path / "one.onnx.npz", "keras").channels == 1
    (tmp_path / "one.onnx").touch()
    with pytest.raises(ValueError, match=r"source must fit framework='keras', got .* read it with framework='onnx'"):
        port.norms(tmp_path / "one.onnx", "keras")
    with pytest.raises(ValueError, match="running_var must not be negative, got -1 in channel 0"):
        port.read(keras(moving_variance=[-1.0]), "keras")
    with pytest.raises(ValueError, match="source must hold one batch norm, got 2: pass name=, one of 'a', 'b'"):
        port.read({"a": keras(), "b": keras()}, "keras")
    with pytest.raises(KeyError, match="no 'steam' among 2 names; did you mean 'stem'"):
        port.read({"stem": keras(), "head": keras()}, "keras", "steam")


def test_a_checkpoint_of_pytorch_is_read_from_a_file_and_filled(tmp_path):
    model = nn.Sequential(nn.Conv1d(1, 2, 1), nn.BatchNorm1d(2))
    torch.save({"epoch": 3, "state_dict": model.state_dict()}, tmp_path / "model.pt")
    states = port.norms(tmp_path / "model.pt", "torch")
    assert list(states) == ["state_dict/1"]
    filled = port.write(port.BatchNormState([1.0, 2.0], [3.0, 4.0], count=5), "torch", into=model.state_dict()).arrays
    model.load_state_dict(filled)
    assert model[1].running_var.tolist() == [3, 4] and model[1].num_batches_tracked == 5


@dataclass
class BatchNorm:
    """The attributes of equinox.nn.BatchNorm in mode "batch"; ported_layers.py asks the real one."""

    weight: np.ndarray
    bias: np.ndarray
    batch_state_index: str = "pair"
    batch_counter: str = "counter"
    mode: str = "batch"
    eps: float = 1e-5
    momentum: float = 0.9


BatchNorm.__module__ = "equinox.nn"


def test_the_averages_of_equinox_are_corrected_as_at_inference():
    layer = BatchNorm(np.ones(1), np.zeros(1))
    state = {"pair": (np.array([0.1]), np.array([0.95])), "counter": 1}
    read = port.read(({"blocks": [layer]}, state), "equinox")
    assert read.name == "blocks.0" and read.momentum == 0.1
    assert read.running_mean == pytest.approx([1.0]) and read.running_var == pytest.approx([9.5])
    assert "divided by 1 - 0.9^1 = 0.1" in read.notes[0]
    raw = port.read(({"blocks": [layer]}, state), "equinox", debias=False)
    assert raw.running_var == pytest.approx([0.95]) and raw.count is None
    with pytest.raises(TypeError, match=r"source must be a pair \(model, state\)"):
        port.read(layer, "equinox")


def test_values_per_channel_are_counted_and_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 5), nn.BatchNorm1d(5))
    model[1].eval()
    assert port.values_per_channel(model, torch.zeros(7, 1, 4, 4)) == {"1": 28, "4": 7}
    assert model.training and not model[1].training and model[1].num_batches_tracked == 0


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    import sys

    (tmp_path / "model.weights.h5").touch()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ModuleNotFoundError, match=r"reading files of Keras needs h5py.*pip install 'bnlib\[port\]'"):
        port.norms(tmp_path / "model.weights.h5", "keras")


def _parametrised() -> nn.Module:
    layer = nn.BatchNorm1d(2)
    nn.utils.parametrize.register_parametrization(layer, "weight", nn.Softplus())
    return layer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_parametrised, "layer  must store its weight, got a parametrised one"),
        (lambda: nn.BatchNorm1d(2, device="meta"), "model must have values, got layer  on the meta device"),
        (
            lambda: nn.BatchNorm1d(2).half(),
            r"running_var that holds 1e\+06, got torch.float16, which ends at 6.55e\+04",
        ),
    ],
)
def test_layers_that_would_not_hold_the_values_are_named(make, message):
    layer, state = make(), port.BatchNormState([0.0, 2.0], [1e6, 4.0], [1.0, 3.0], [0.0, 0.0])
    with pytest.raises(ValueError, match=message):
        port.load(layer, state)
    assert layer.momentum == 0.1 and (layer.bias.is_meta or not layer.bias.any())


def test_arrays_whose_type_would_not_hold_the_values_are_named():
    half = {"mean": np.zeros(1), "var": np.ones(1, np.float16)}
    with pytest.raises(ValueError, match=r"into must have types that hold 1e\+06, got float16"):
        port.write({"n": port.BatchNormState([0.0], [1e6])}, "flax", into={"params": {}, "batch_stats": {"n": half}})
