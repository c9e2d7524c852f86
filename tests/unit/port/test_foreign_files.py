"""Files of Keras 2, whose variance of images is another one, graphs of tf2onnx, and layers of Chainer and MXNet."""

import numpy as np
import pytest
import torch
from port_cases import FILES, answers
from torch import nn

from bnlib import port
from bnlib.port.keras_settings import channel_axis, described, is_fused

NAMES = ["stem", "block/norm", "head"]


class Network(nn.Module):
    """The network of the files in PyTorch, which has the channels before the positions."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.head = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.BatchNorm1d(12)

    def forward(self, x):
        images = self.norm(self.stem(x.permute(0, 3, 1, 2)))
        return self.head(images.permute(0, 2, 3, 1).flatten(1))


@pytest.mark.parametrize("file", ["keras2.keras", "keras2.h5"])
def test_a_whole_model_has_its_settings_its_order_and_its_outputs(file):
    states, expected, model = port.norms(FILES / file, "keras"), answers("keras2"), Network()
    assert list(states) == NAMES and states.ordered
    assert [each.eps for each in states.values()] == [2e-3, 2e-3, 1e-3]
    assert [each.momentum for each in states.values()] == [0.2, 0.2, 0.5]
    assert [each.variance for each in states.values()] == ["unbiased", "unbiased", "biased"]
    assert [each.channel_axis for each in states.values()] == [3, 3, 1]
    assert states["stem"].weight is None and not any(each.notes for each in states.values())
    port.load(model, states)
    with torch.no_grad():
        found = model.eval()(torch.from_numpy(expected["x"])).numpy()
    assert found == pytest.approx(expected["y"], rel=1e-5, abs=1e-5)


def test_one_more_batch_moves_the_variance_of_images_as_in_keras_2():
    """Without a conversion of the images' variance, which both frameworks divide by one value less."""
    expected, model = answers("keras2"), Network()
    port.load(model, port.norms(FILES / "keras2.keras", "keras"))
    model.train()(torch.from_numpy(expected["last"]))
    for i, each in enumerate((model.stem, model.norm)):
        assert each.running_mean.numpy() == pytest.approx(expected[f"after_{2 * i}"], rel=1e-5, abs=1e-6)
        assert each.running_var.numpy() == pytest.approx(expected[f"after_{2 * i + 1}"], rel=1e-5)
    biased = expected["after_5"]
    assert not np.allclose(model.head.running_var.numpy(), biased, rtol=1e-2)


def test_weights_alone_have_their_order_and_say_that_the_kind_of_variance_is_unknown():
    states = port.norms(FILES / "keras2_weights.h5", "keras", eps=2e-3, momentum=0.8)
    assert list(states) == NAMES and states.ordered
    assert states["stem"].weight is None and states["block/norm"].weight.tolist() == [0.5, 1.0, 2.0]
    for each in states.values():
        assert any("Keras 2 stored the unbiased running variance of images" in note for note in each.notes)
    whole = port.norms(FILES / "keras2.keras", "keras")
    for name in NAMES:
        assert np.array_equal(states[name].running_var, whole[name].running_var)


@pytest.mark.parametrize(
    ("axis", "rank", "fused"),
    [(3, 4, True), (1, 4, True), (2, 4, False), (1, 2, False), (2, 3, False), (4, 5, True), (3, None, True)],
)
def test_images_and_volumes_are_fused(axis, rank, fused):
    """As measured with tf-keras 2.21.0."""
    assert is_fused(axis, rank) == fused and not is_fused(axis, rank, fused=False)


def test_an_axis_is_counted_from_the_front():
    assert channel_axis([3], 4) == channel_axis(-1, 4) == 3 and channel_axis(-1, 2) == 1
    assert channel_axis(-1, None) == -1 and channel_axis([1, 2], 3) == [1, 2]


@pytest.mark.parametrize("changed", [{"renorm": True}, {"synchronized": True}, {"dtype": "float64"}, {"fused": False}])
def test_what_is_not_fused_has_the_biased_variance(changed):
    settings = {"name": "norm", "axis": [3], "epsilon": 1e-3, "momentum": 0.99} | changed
    layer = {"class_name": "BatchNormalization", "config": settings, "build_config": {"input_shape": [None, 2, 2, 3]}}
    (norm,) = described({"class_name": "Functional", "config": {"name": "network", "layers": [layer]}})
    assert "variance" not in norm.facts("2.15.0") and norm.facts("2.15.0")["channel_axis"] == 3


def test_a_model_of_keras_2_in_memory_is_read():
    """A class with the attributes and the module of tf_keras, which is not installed here."""
    variables = {"gamma": [2.0], "beta": [1.0], "moving_mean": [3.0], "moving_variance": [4.0]}

    class Variable:
        def __init__(self, name, value):
            self.name, self.value = f"stem/{name}:0", np.array(value, np.float32)

        def numpy(self):
            return self.value

    base = type("Layer", (), {"__module__": "tf_keras.src.engine.base_layer"})
    kind = type("BatchNormalizationBase", (base,), {"__module__": "tf_keras.src.layers.normalization"})
    layer = kind()
    layer.name, layer.epsilon, layer.momentum, layer.axis, layer.fused = "stem", 1e-3, 0.9, [3], True
    layer.weights = [Variable(*each) for each in variables.items()]
    layer.input_spec = type("Spec", (), {"ndim": 4})
    state = port.read(layer, "keras")
    assert (state.momentum, state.variance, state.channel_axis) == (0.1, "unbiased", 3)
    assert state.evaluate(np.full((1, 1, 1, 1), 5.0)).item() == pytest.approx(1 + 2 * 2 / (4 + 1e-3) ** 0.5)


def graph(producer, **attributes):
    """An ONNX model with one batch norm of two channels."""
    from onnx import helper, numpy_helper

    arrays = {name: np.full(2, value, np.float32) for name, value in zip("sbmv", (1, 0, 3, 4), strict=True)}
    node = helper.make_node("BatchNormalization", ["x", *arrays], ["y"], **attributes)
    x, y = (helper.make_tensor_value_info(each, 1, ["N", 2]) for each in "xy")
    constants = [numpy_helper.from_array(value, name) for name, value in arrays.items()]
    return helper.make_model(helper.make_graph([node], "one", [x], [y], constants), producer_name=producer)


def test_a_node_without_momentum_does_not_say_it():
    """tf2onnx leaves it out; the momentum of the training was 0.99."""
    state = port.read(graph("tf2onnx", epsilon=1e-3), "onnx")
    assert (state.eps, state.momentum, state.variance) == (1e-3, 0.1, "biased")
    assert any("momentum is not in the source: 0.9 was taken" in note for note in state.notes)
    assert any("in Keras 2 the running variance of images is unbiased" in note for note in state.notes)
    assert port.read(graph("tf2onnx"), "onnx", momentum=0.99).momentum == 0.01
    written = port.read(graph("pytorch", momentum=0.8), "onnx")
    assert (written.momentum, written.variance, written.notes) == (0.2, "unbiased", ())
    with pytest.raises(ValueError, match=r"momentum must be 0\.8, which the source says"):
        port.read(graph("pytorch", momentum=0.8), "onnx", momentum=0.9)


def test_chainer_and_mxnet_have_their_own_names_and_defaults():
    """As measured: Chainer stores the unbiased variance and has eps = 2e-5, MXNet the biased one."""
    layer = {"gamma": [1.0], "beta": [0.0], "avg_mean": [3.0], "avg_var": [4.0], "N": 0}
    state = port.read({"bn1": layer}, "chainer")
    assert (state.eps, state.momentum, state.variance, state.name) == (2e-5, 0.1, "unbiased", "bn1")
    layer = {"gamma": [1.0], "beta": [0.0], "running_mean": [3.0], "running_var": [4.0]}
    state = port.read({f"features.1.{name}": value for name, value in layer.items()}, "mxnet")
    assert (state.eps, state.momentum, state.variance, state.name) == (1e-5, 0.1, "biased", "features.1")
    assert port.write(state, "chainer").arguments == {"eps": 1e-5, "decay": 0.9, "use_gamma": True, "use_beta": True}


def test_the_message_about_an_unknown_order_names_the_model_in_memory():
    layers = {name: {"gamma": [1.0], "beta": [0.0], "moving_mean": [3.0], "moving_variance": [4.0]} for name in "ab"}
    with pytest.raises(ValueError, match="or read the model itself instead of its arrays, which knows its order"):
        port.load(nn.Sequential(nn.BatchNorm1d(1), nn.BatchNorm1d(1)), port.norms(layers, "keras"))
