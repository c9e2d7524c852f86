"""The package as a whole."""

import ast
import importlib
import re
import sys
import tomllib
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import bnlib
from bnlib import __main__, claims, extras
from bnlib.experiments.formula import training_curves

ROOT = Path(__file__).parents[2]


def test_the_examples_of_the_readme_run_as_they_stand(capsys):
    """The report that the README quotes comes out, up to its numbers, which depend on the processor."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, {})
    (quoted,) = re.findall(r"^```text\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    printed = capsys.readouterr().out
    assert printed.startswith("2 errors\n")
    as_words = [re.sub(r"[\d.]*\d", "#", " ".join(each.split())) for each in (quoted, printed)]
    assert "eval-mode-distorted" in as_words[0] and as_words[0] in as_words[1]
    in_train, in_eval = (float(each) for each in re.findall(r"error ([\d.]+)%", printed)[1::-1])
    assert in_eval > 2 * in_train


def test_the_readme_begins_with_what_the_front_page_says():
    """The two pairs of numbers are those of the committed result."""
    text = " ".join((ROOT / "README.md").read_text().split())
    pairs = re.findall(r"from (\d+) to (\d+)", text.split("![")[0])
    norms = ("without normalisation", "batch norm")
    assert [[*map(int, pair)] for pair in pairs] == [
        [round(100 * float(np.median(training_curves.final_test_errors(norm, size, 0.03)))) for norm in norms]
        for size in (256, 1)
    ]


def test_the_commands_of_the_readme_exist():
    lines = re.findall(r"-m bnlib (.*)", (ROOT / "README.md").read_text())
    commands = [line.split("`")[0].split() for line in lines]
    assert len(commands) > 7
    for command in commands:
        if "cuda" in command or "--help" in command or "FILE:FUNCTION" in command:
            continue
        options = __main__._parser().parse_args(command)
        for name in getattr(options, "ids", []) + getattr(options, "rerun", []):
            assert name in claims.CLAIMS


def test_packages_that_may_be_missing_are_imported_by_a_function_that_says_how_to_install_them():
    """So that no ImportError leaves out the extra; bnlib.figures has one for all its files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {"bnlib", *(Requirement(each).name for each in project["dependencies"])}
    for package, extra in extras.EXTRAS.items():
        brought = {Requirement(each).name for each in project["optional-dependencies"][extra]}
        assert {"orbax": "orbax-checkpoint"}.get(package, package) in brought
    unguarded = set()
    for path in (ROOT / "bnlib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            tops = {name.split(".")[0] for name in names} - required - sys.stdlib_module_names
            unguarded |= {(path.relative_to(ROOT).parts[1], top) for top in tops}
    assert unguarded == {("figures", "matplotlib")}
    with pytest.raises(ModuleNotFoundError, match=r"^figures need matplotlib, .*pip install 'bnlib\[notebook\]'$"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "matplotlib", None)
            patch.delitem(sys.modules, "bnlib.figures", raising=False)
            importlib.import_module("bnlib.figures")


@pytest.mark.parametrize("package", extras.EXTRAS)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    install = rf"pip install 'bnlib\[{extras.EXTRAS[package]}\]'"
    message = f"^a drawing needs {package}, which is missing: {install}, or use a pencil$"
    with pytest.raises(ModuleNotFoundError, match=message):
        extras.optional(package, "a drawing", "use a pencil")


def test_the_package_says_its_version_and_that_it_has_types():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["version"] == bnlib.__version__
    for pattern in project["tool"]["setuptools"]["package-data"]["bnlib"]:
        assert list((ROOT / "bnlib").glob(pattern)), pattern
    assert (ROOT / "bnlib" / "py.typed").read_text() == ""


def test_what_is_pinned_is_also_asked_for_without_a_version():
    """``make latest`` installs the second, so that a package named only in the first would not be looked at."""
    first = (ROOT / "requirements.txt").read_text().split("# What those bring")[0]
    pinned = {canonicalize_name(line.split("==")[0]) for line in first.splitlines() if "==" in line}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # The exporters are for one benchmark, the packages of JAX for their own files, and the training libraries for a
    # callback each. All say how to install them.
    apart = ("onnx", "jax", "lightning", "transformers")
    extras = [names for extra, names in project["optional-dependencies"].items() if extra not in apart]
    asked = [*project["dependencies"], *chain(*extras)]
    assert pinned - {"setuptools"} == {canonicalize_name(Requirement(each).name) for each in asked}


def test_no_file_of_code_or_of_styles_has_more_than_400_lines():
    """A file that is longer has more than one subject; make several files of it, each named after its own."""
    folders = "_ext assets benchmarks bnlib tests tools".split()
    inside = (path for folder in folders for path in (ROOT / folder).rglob("*"))
    files = [*ROOT.glob("*.py"), *(path for path in inside if path.suffix in (".py", ".js", ".css"))]
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert len(lines) > 200 and {"assets/book.css", "assets/engine/worker.js"} <= lines.keys()
    assert not {name: count for name, count in lines.items() if count > 400}
