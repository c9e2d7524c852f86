"""Files that are not opened, with the line that converts them; files that do not keep the order of layers."""

import pickle
import re
import sys
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from port_cases import FILES, SOURCES, answers, network, states_of
from torch import nn

from bnlib import port

OWN_FILES = {"paddle": "paddle.pdparams", "mxnet": "mxnet.params", "mindspore": "mindspore.ckpt"}


class Harmful:
    """What writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(("framework", "ending"), [("paddle", ".pdparams"), ("torch", ".pkl"), ("chainer", ".pickle")])
def test_a_pickle_is_not_opened(tmp_path, framework, ending):
    path, touched = tmp_path / f"net{ending}", tmp_path / "touched"
    path.write_bytes(pickle.dumps({"norm._mean": Harmful(touched)}))
    with pytest.raises(ValueError, match=r"a pickle, which can run any code when it is opened; if you trust"):
        port.norms(path, framework)
    assert not touched.exists()
    pickle.loads(path.read_bytes())
    assert touched.exists()


@pytest.mark.parametrize("framework", OWN_FILES)
def test_the_error_has_the_line_that_converts_the_file(framework):
    """``findings/frameworks/port_files_closed.py`` ran that line in the framework; it wrote the .npz."""
    path = FILES / OWN_FILES[framework]
    assert path.stat().st_size > 300
    with pytest.raises(ValueError, match=r"store its arrays as \.npz: import ") as raised:
        port.norms(path, framework)
    line = str(raised.value).partition("as .npz: ")[2]
    assert re.fullmatch(
        r"import (\w+), numpy; numpy\.savez\('.*\.npz', \*\*\{.* in \1\..*\('.*'\)\.items\(\)\}\)", line
    )
    assert f"'{path}'" in line and f"'{path.with_suffix('.npz')}'" in line
    compile(line, "line", "exec")
    assert list(states_of(framework)) == ["0", "1"] and SOURCES[framework][3] == framework


def test_the_line_runs(tmp_path, monkeypatch):
    """With a stand-in for Paddle that loads what Paddle loads."""
    expected, model = answers("paddle"), network()
    with np.load(FILES / "paddle.npz") as archive:
        loaded = {name: torch.from_numpy(each) for name, each in archive.items()}
    monkeypatch.setitem(sys.modules, "paddle", SimpleNamespace(load=lambda path: loaded))
    with pytest.raises(ValueError, match=r"as \.npz") as raised:
        port.norms(tmp_path / "net.pdparams", "paddle")
    exec(str(raised.value).partition("as .npz: ")[2])
    port.load(model, port.norms(tmp_path / "net.npz", "paddle", eps=2e-3, momentum=0.8))
    with torch.no_grad():
        assert model(torch.from_numpy(expected["x"])).numpy() == pytest.approx(expected["y"], rel=1e-5, abs=1e-6)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_of_pytorch_with_other_objects_is_not_loaded(tmp_path):
    path, touched = tmp_path / "net.pt", tmp_path / "touched"
    for harmful in ({"norm": Harmful(touched)}, nn.Sequential(nn.BatchNorm1d(2))):
        torch.save(harmful, path)
        with pytest.raises(ValueError, match=r"a file of tensors, got .* can run any code") as raised:
            port.norms(path, "torch")
    path.with_suffix(".bin").write_bytes(pickle.dumps({"norm": Harmful(touched)}))
    with pytest.raises(ValueError, match="can run any code"):
        port.norms(path.with_suffix(".bin"), "torch")
    assert not touched.exists()
    exec(str(raised.value).partition("store its state_dict: ")[2])
    assert port.read(tmp_path / "net_state.pt", "torch").channels == 2


def test_a_checkpoint_of_pytorch_with_this_ending_is_opened(tmp_path):
    torch.save(nn.BatchNorm1d(2).state_dict(), tmp_path / "net.ckpt")
    assert port.read(tmp_path / "net.ckpt", "torch").channels == 2


@pytest.mark.parametrize("framework", ["torch", "paddle", "mlx"])
def test_safetensors_do_not_keep_the_order_of_the_layers(tmp_path, framework):
    """The file of ``stem`` and ``body`` has ``body`` first, so layers of other names must not be matched by order."""
    safetensors = pytest.importorskip("safetensors.torch")
    mean, variance = ("_mean", "_variance") if framework == "paddle" else ("running_mean", "running_var")
    arrays = {f"{layer}.{kind}": torch.full((3,), i + 1.0) for i, layer in enumerate(("stem", "body"))
              for kind in (mean, variance)}  # fmt: skip
    safetensors.save_file(arrays, tmp_path / "net.safetensors")
    states = port.norms(tmp_path / "net.safetensors", framework)
    assert [*states] == ["body", "stem"] and not states.ordered
    model = nn.Sequential(OrderedDict(first=nn.BatchNorm1d(3), second=nn.BatchNorm1d(3)))
    with pytest.raises(ValueError, match=r"sorts its layers by name.*pass names="):
        port.load(model, states)
    port.load(model, states, names={"stem": "first", "body": "second"})
    assert [layer.running_mean[0].item() for layer in model] == [1, 2]
    np.savez(tmp_path / "net.npz", **{name: each.numpy() for name, each in arrays.items()})
    assert port.norms(tmp_path / "net.npz", framework).ordered
