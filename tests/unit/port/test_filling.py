"""ONNX graphs that are filled, and the files of the frameworks that build on JAX."""

import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from port_cases import FILES, states_of

from bnlib import frameworks, port


@pytest.fixture
def graph():
    return onnx.load(FILES / "torch.onnx")


def test_the_nodes_of_a_graph_get_the_arrays_and_the_settings(graph):
    before = graph.SerializeToString()
    given = {
        name: port.BatchNormState(
            state.running_mean + 1, 2 * state.running_var, 3 * state.weight, state.bias - 1, eps=0.5, momentum=0.25
        )
        for name, state in states_of("onnx").items()
    }
    written = port.write(given, "onnx", into=graph)
    assert graph.SerializeToString() == before
    onnx.checker.check_model(written.arrays)
    for name, state in port.norms(written.arrays, "onnx").items():
        assert (state.eps, state.momentum) == (0.5, 0.25)
        for part in ("running_mean", "running_var", "weight", "bias"):
            assert np.array_equal(getattr(state, part), getattr(given[name], part))
    assert "unbiased" in written.notes[0] and written.arguments[name] == {"epsilon": 0.5, "momentum": 0.75}


def test_nodes_that_share_an_array_cannot_be_filled(graph):
    first, second = (node for node in graph.graph.node if node.op_type == "BatchNormalization")
    second.input[3] = first.input[3]
    states = port.norms(graph, "onnx")
    with pytest.raises(ValueError, match=r"must not share the array .*running_mean, which has one value"):
        port.write(states, "onnx", into=graph)


def test_what_cannot_be_filled_is_said():
    state = port.BatchNormState([0.0], [1.0])
    with pytest.raises(TypeError, match="into must be an ONNX ModelProto with framework='onnx', got a dict"):
        port.write(state, "onnx", into={})
    with pytest.raises(TypeError, match=r"into must be a pair \(model, state\) with framework='equinox', got a dict"):
        port.write(state, "equinox", into={})


def test_bfloat16_in_msgpack_is_read(tmp_path):
    """1.5 and -2 in bfloat16 are the upper halves of their float32: 0x3FC0 and 0xC000."""
    import msgpack

    def array(dtype, values):
        return msgpack.ExtType(1, msgpack.packb(((2,), dtype, values)))

    halves = array("bfloat16", bytes.fromhex("c03f00c0"))
    stored = {"mean": halves, "var": array("float32", np.float32([1, 4]).tobytes())}
    tree = {"params": {"norm": {"scale": halves}}, "batch_stats": {"norm": stored}, "step": 3}
    (tmp_path / "model.msgpack").write_bytes(msgpack.packb(tree))
    state = port.read(tmp_path / "model.msgpack", "flax")
    assert state.name == "norm" and state.running_mean.tolist() == state.weight.tolist() == [1.5, -2]
    assert state.running_var.tolist() == [1, 4]
    (tmp_path / "list.msgpack").write_bytes(msgpack.packb([1, 2]))
    with pytest.raises(ValueError, match=r"source must be a file of named arrays, got .* with a list"):
        port.norms(tmp_path / "list.msgpack", "flax")


def test_variables_of_nnx_with_a_value_of_their_own_are_read():
    """Orbax stores a variable of flax.nnx as a mapping with one key."""
    tree = {"norm": {name: {"value": np.ones(2)} for name in ("mean", "var", "scale", "bias")}}
    assert port.read(tree, "nnx").name == "norm"
    assert port.write(port.BatchNormState([2.0, 3.0], [1.0, 1.0]), "nnx", into=tree).arrays["norm"]["mean"] == {
        "value": pytest.approx([2, 3])
    }


def test_a_folder_is_read_by_orbax_as_arrays_of_numpy(tmp_path, monkeypatch):
    tree = {
        "params": {"norm": {"scale": np.ones(1)}},
        "batch_stats": {"norm": {"mean": np.zeros(1), "var": np.ones(1)}},
    }

    class Checkpointer:
        def __init__(self, handler):
            assert handler == "trees"

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def metadata(self, path):
            assert path == tmp_path
            return SimpleNamespace(item_metadata=SimpleNamespace(tree=tree))

        def restore(self, path, args):
            assert path == tmp_path and args == {"kinds": np.ndarray}
            return tree

    orbax = SimpleNamespace(
        Checkpointer=Checkpointer,
        PyTreeCheckpointHandler=lambda: "trees",
        RestoreArgs=lambda restore_type: restore_type,
        args=SimpleNamespace(PyTreeRestore=lambda restore_args: {"kinds": restore_args}),
    )
    jax = SimpleNamespace(tree=SimpleNamespace(map=lambda function, tree: function(tree)))
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", orbax)
    monkeypatch.setitem(sys.modules, "jax", jax)
    assert port.read(tmp_path, "flax").name == "norm"
    with pytest.raises(ValueError, match=r"source must be a file that ends in .*, or with Flax a folder of Orbax"):
        port.norms(tmp_path, "keras")


def test_a_file_without_names_asks_for_its_structure(tmp_path, monkeypatch):
    file = tmp_path / "model.eqx"
    with pytest.raises(ValueError, match=r"source must be a pair \(file, \(model, state\)\) with an \.eqx file, got"):
        port.norms(file, "equinox")
    with pytest.raises(FileNotFoundError, match=r"source must be an existing file, got .*model\.eqx"):
        port.norms((file, ("model", "state")), "equinox")
    file.touch()
    monkeypatch.setitem(sys.modules, "equinox", None)
    with pytest.raises(ModuleNotFoundError, match=r"reading Equinox's \.eqx needs equinox.*pip install 'bnlib\[jax\]'"):
        port.norms((str(file), ("model", "state")), "equinox")


def test_files_that_the_frameworks_wrote_give_the_arrays_of_their_layers():
    """Measured by findings/frameworks/ported_files.py in an environment with JAX."""
    assert set(frameworks.ported()["files"].values()) == {0} and len(frameworks.ported()["files"]) == 4
