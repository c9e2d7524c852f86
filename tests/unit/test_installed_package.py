"""The wheel, installed where there are torch and numpy and nothing else: what travels in it, and what can be done."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from importlib import metadata
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from packaging.requirements import Requirement

import bnlib
from bnlib.experiments.framework import results

ROOT = Path(__file__).parents[2]
SOURCES = ("bnlib", "data/results", "data/frameworks.json", "data/ported_networks.json")
SOURCES += ("pyproject.toml", "setup.py", "README.md", "LICENSE", "_config.yml")
pytestmark = pytest.mark.xdist_group("wheel")


def built(folder: Path) -> Path:
    """Build a wheel of a copy of the sources, as pip does but without a download."""
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (folder / name).parent.mkdir(exist_ok=True)
        if not (folder / name).exists():
            copy(ROOT / name, folder / name)
    build = "from setuptools.build_meta import build_wheel; build_wheel('out')"
    done = subprocess.run([sys.executable, "-c", build], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next((folder / "out").glob("*.whl"))


def with_dependencies(names) -> set[str]:
    """The distributions, and what they need."""
    found = set()
    while names:
        name = names.pop()
        found.add(name)
        needed = [Requirement(each) for each in metadata.requires(name) or ()]
        names |= {each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})} - found
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return built(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """An interpreter whose packages are torch, numpy, what these need, and the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    for name in with_dependencies({"torch", "numpy"}):
        each = metadata.distribution(name)
        for top in {file.parts[0] for file in each.files} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(each.locate_file(top))
    executable = folder / "bin" / "python"
    install = ["-m", "pip", "--python", executable, "install", "--quiet", "--no-index", "--no-compile", wheel]
    subprocess.run([sys.executable, *install], check=True)
    return executable


USE = """
import contextlib, importlib.metadata, importlib.util, io, re, sys
import bnlib.port
from bnlib.__main__ import main

assert "environment" in bnlib.__file__ and bnlib.__version__ == importlib.metadata.version("bnlib")
missing = "matplotlib pandas pooch tqdm ipywidgets IPython sklearn pytest".split()
assert not any(map(importlib.util.find_spec, missing))

example, *_ = re.findall(r"```python\\n(.*?)```", importlib.metadata.metadata("bnlib").get_payload(), re.DOTALL)
exec(example, {})

def printed(*arguments, status=0):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(list(arguments)) == status, (arguments, err.getvalue())
    return out.getvalue() + err.getvalue()

import bnlib.reference, bnlib.sweep
model, data = bnlib.models.mlp((3, 4, 3), bnlib.BatchNorm), bnlib.datasets.load("three_points")
assert len(bnlib.datasets.load("digits").train_x) == 1437
settings = dict(batch_size=3, lr=0.1, epochs=1)
bnlib.training.fit(model, data, **settings, progress=False)
try:
    bnlib.training.fit(model, data, **settings)
except ModuleNotFoundError as error:
    assert "progress=False" in str(error) and "bnlib[notebook]" in str(error)
else:
    raise SystemExit("a bar was drawn without tqdm")

assert "perils.two_towers" in printed("experiments", "list")
for command in ("diagnose", "claims"):
    try:
        main([command, "--help"])
    except SystemExit as end:
        assert not end.code

from bnlib.tables import Table
try:
    Table([{"a": 1, "b": 2}], "c")
except ModuleNotFoundError as error:
    assert "bnlib[notebook]" in str(error)
else:
    raise SystemExit("a table was made without pandas")
assert "with 40 layers, the roughness is above 10 for every seed" in printed("claims", "kari-ten-layers")
drawing = printed("experiments", "draw", "failing.placement", status=2)
assert "figures need matplotlib, which is missing: pip install 'bnlib[notebook]'" in drawing, drawing
report = printed("diagnose", "mine.py:make", status=1)
assert "one-value-per-channel" in report, report
assert "in layer <code>1</code>" in bnlib.diagnose(*__import__("mine").make())._repr_html_()
assert "Initialise gamma to 1." in printed("explain", "zero-gamma")
assert bnlib.port.read([[1.0], [0.0], [2.0], [4.0]], "keras").eps == 1e-3
print("all done")
"""
MINE = """
import torch, bnlib
def make():
    return torch.nn.Sequential(torch.nn.Linear(3, 4), bnlib.BatchNorm(4)), [torch.randn(1, 3) for _ in range(4)]
"""


def test_torch_and_numpy_are_enough_for_the_layers_the_readme_the_ledger_and_the_doctor(python, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    names = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "BNLIB_RESULTS")}
    done = subprocess.run([python, "-c", USE], cwd=tmp_path, env=names, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "all done"


TYPED = """
from typing import assert_type

from torch import Tensor, nn

import bnlib
from bnlib import datasets, models, probes, schedules, training
from bnlib.datasets import Dataset

layer = bnlib.FullNorm(64, alpha=schedules.PowerSchedule(1, 0.5), oracle="running", bias=False)
assert_type(layer, bnlib.FullNorm)
assert_type(layer.train(), bnlib.FullNorm)
assert_type(bnlib.NORMS["group_norm"].apply(nn.Conv2d(3, 8, 3)), nn.Module)
assert_type(datasets.load("mnist", root="files"), Dataset)
model = models.mlp((64, 32, 10), bnlib.BatchNorm)
history = training.fit(model, "digits", batch_size=64, lr=0.5, epochs=3, progress=False)
assert_type(history.test_error[-1], float)
assert_type(bnlib.convert(model, to="FullNorm", only=["0", nn.BatchNorm1d], alpha=0.1), nn.Module)
for finding in bnlib.diagnose(model, [datasets.load("digits").train_x]):
    assert_type(finding.severity + finding.layer, str)

bnlib.FullNorm("64")  # wrong
bnlib.BatchNorm(64, momentum="fast")  # wrong
bnlib.convert(model, to=3)  # wrong
bnlib.diagnose(model)  # wrong
bnlib.FulNorm(64)  # wrong
models.mlp(64)  # wrong
"""


def test_pyright_knows_the_types_of_the_installed_package(python, tmp_path):
    """It finds the mistakes of a user's script, and none in what is right, nor in the examples of the README."""
    if not os.environ.get("CI"):
        pytest.importorskip("basedpyright", reason="basedpyright is in requirements.txt")
    (tmp_path / "script.py").write_text(TYPED)
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)):
        (tmp_path / f"example_{number}.py").write_text(block)
    settings = {"typeCheckingMode": "standard", "reportUnknownVariableType": "error"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", python, "--outputjson", "-p", tmp_path]
    report = json.loads(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout)
    found = {
        (Path(each["file"]).name, each["range"]["start"]["line"]): each["message"]
        for each in report["generalDiagnostics"]
    }
    wrong = {("script.py", line) for line, text in enumerate(TYPED.splitlines()) if text.endswith("# wrong")}
    assert found.keys() == wrong and report["summary"]["filesAnalyzed"] == 4, found


def test_another_folder_of_results_can_be_named(tmp_path, monkeypatch):
    monkeypatch.delenv("BNLIB_RESULTS", raising=False)
    assert results.results_folder() == ROOT / "data" / "results"
    monkeypatch.setenv("BNLIB_RESULTS", str(tmp_path))
    assert results.results_folder() == tmp_path
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/none.json does .*or set BNLIB_RESULTS to the folder"):
        results.read_result("none", "a command", results.results_folder())


def test_the_wheel_holds_the_results_the_types_and_the_data_and_no_tests(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    committed = {path.relative_to(ROOT / "data") for path in (ROOT / "data" / "results").rglob("*.json")}
    assert {f"bnlib/{path}" for path in committed} <= names and len(committed) > 50
    assert {"bnlib/py.typed", "bnlib/static/digits.npz", "bnlib/__main__.py", "bnlib/frameworks.json"} <= names
    assert {name.split("/")[0] for name in names} == {"bnlib", f"bnlib-{bnlib.__version__}.dist-info"}


def links(wheel):
    archive = zipfile.ZipFile(wheel)
    info = message_from_bytes(archive.read(f"bnlib-{bnlib.__version__}.dist-info/METADATA"))
    parts = [child for token in MarkdownIt().parse(info.get_payload()) for child in token.children or ()]
    found = [part.attrs.get("href") or part.attrs.get("src") for part in parts if part.type in ("link_open", "image")]
    return info, found


def test_the_description_needs_no_repository(wheel):
    info, found = links(wheel)
    text = info.get_payload()
    assert info["Description-Content-Type"] == "text/markdown" and info["Author"] and info["Keywords"]
    assert "## The package" in text and "bnlib.convert(" in text
    assert "make book" not in text and "A page of the book" not in text
    assert all(link.startswith("http") for link in found)
    assert "Project-URL" not in info


def test_with_an_address_of_the_repository_the_package_names_it(tmp_path):
    address = "https://example.org/somebody/book"
    config = (ROOT / "_config.yml").read_text()
    assert 'url: &address ""' in config
    config = config.replace('baseurl: ""', 'baseurl: "https://example.org/site/"')
    (tmp_path / "_config.yml").write_text(config.replace('url: &address ""', f'url: &address "{address}"'))
    info, found = links(built(tmp_path))
    assert f"Source, {address}" in info.get_all("Project-URL")
    assert "Documentation, https://example.org/site/" in info.get_all("Project-URL")  # reports link there
    assert f"{address}/blob/HEAD/data/README.md" in found
