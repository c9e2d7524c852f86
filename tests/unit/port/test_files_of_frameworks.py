"""Files that real frameworks wrote: the states give their outputs, and their statistics after one more batch."""

import numpy as np
import pytest
import torch
from port_cases import (
    EPS,
    FILES,
    MOMENTUM,
    SIZE,
    SOURCES,
    answers,
    haiku_pair,
    keras_weights,
    nested,
    network,
    states_of,
)

from bnlib import port


@pytest.fixture(params=SOURCES)
def name(request):
    return request.param


def test_outputs_at_inference_are_those_of_the_framework(name):
    expected, model = answers(SOURCES[name][3]), network()
    states = states_of(name)
    port.load(model, states)
    with torch.no_grad():
        assert model(torch.from_numpy(expected["x"])).numpy() == pytest.approx(expected["y"], rel=1e-5, abs=1e-6)
    outputs = expected["x"]
    for state in states.values():
        outputs = state.evaluate(outputs)
    assert outputs == pytest.approx(expected["y"], rel=1e-5, abs=1e-6)
    assert [layer.eps for layer in model] == [EPS, EPS]
    assert [layer.momentum for layer in model] == pytest.approx([MOMENTUM, MOMENTUM])


def test_one_more_batch_moves_the_statistics_as_in_the_framework(name):
    expected, model = answers(SOURCES[name][3]), network()
    states = states_of(name)
    debiased = name == "haiku"
    if debiased:
        states = port.norms(haiku_pair(), "haiku", eps=EPS, momentum=0.8, debias=False)
    port.load(model, states, values_per_channel=SIZE)
    model.train()(torch.from_numpy(expected["last"]))
    kind = next(iter(states.values())).variance
    found = [each.with_variance(kind, SIZE) for each in port.norms(model, "torch").values()]
    ours = [getattr(each, part) for each in found for part in ("running_mean", "running_var")]
    if debiased:  # after seven batches Haiku divides by 1 - 0.8^7
        ours = [each / (1 - 0.8**7) for each in ours]
    for i, each in enumerate(ours):
        assert each == pytest.approx(expected[f"after_{i}"], rel=1e-5, abs=1e-6)


def test_the_weights_of_keras_alone_do_not_say_settings_and_parts(tmp_path):
    path = keras_weights(tmp_path)
    with pytest.raises(ValueError, match=r"layer inner/second has three arrays.*without='weight'"):
        port.norms(path, "keras")
    states = port.norms(path, "keras", without="weight")
    assert list(states) == ["first", "inner/second"] and not states.ordered
    assert states["first"].eps == 1e-3 and states["first"].momentum == 0.01
    assert any("epsilon is not in the source" in note for note in states["first"].notes)
    whole = port.norms(FILES / "keras.keras", "keras")
    assert whole.ordered and whole["inner/second"].weight is None and not whole["inner/second"].notes
    for name, state in states.items():
        assert np.array_equal(state.running_var, whole[name].running_var)
    with pytest.raises(ValueError, match="several have the same number of channels: pass names="):
        port.load(network(), states)
    notes = port.load(network(), states, names={"first": "0", "inner/second": "1"}, values_per_channel=SIZE)
    assert any("no weight; PyTorch gets one of 1" in note for note in notes)


def test_a_graph_that_pytorch_exported_holds_the_unbiased_variance():
    assert {each.variance for each in states_of("onnx").values()} == {"unbiased"}


def test_the_corrected_averages_of_haiku_say_so():
    corrected, raw = (
        port.read(haiku_pair(), "haiku", "batch_norm", momentum=0.8, debias=each) for each in (True, False)
    )
    assert corrected.running_mean == pytest.approx(raw.running_mean / (1 - 0.8**6), rel=1e-5)
    assert any("6 batches are corrected for their start" in note for note in corrected.notes)
    with pytest.raises(
        ValueError, match="momentum must be given with haiku, whose decay_rate has no default, got None"
    ):
        port.read(haiku_pair(), "haiku", "batch_norm")


@pytest.mark.parametrize("name", ["flax", "haiku"])
def test_a_tree_is_filled_and_nothing_else_is_changed(name):
    tree = haiku_pair() if name == "haiku" else nested(FILES / "flax.npz", "/")
    states = states_of(name)
    doubled = {
        each: port.BatchNormState(
            state.running_mean * 2, state.running_var, state.weight, state.bias, variance="biased"
        )
        for each, state in states.items()
    }
    written = port.write(doubled, name, into=tree)
    again = port.norms(written.arrays, name, momentum=0.9)
    for each in states:
        assert again[each].running_mean == pytest.approx(2 * states[each].running_mean)
        assert np.array_equal(again[each].running_var, states[each].running_var)
    assert (
        written.arguments["batch_norm" if name == "haiku" else "BatchNorm_0"]["eps" if name == "haiku" else "epsilon"]
        == 1e-5
    )
