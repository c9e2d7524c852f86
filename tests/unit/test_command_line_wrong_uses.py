"""``python -m bnlib``, used wrongly: an exit status and a sentence that says what is wrong, never a traceback."""

import json
import re
import sys
from pathlib import Path

import pytest

import bnlib
from bnlib import __main__
from bnlib.claims import results as claims_results
from bnlib.experiments.framework import experiment, registry, results

RUN = ["experiments", "run", "failing.placement"]
DRAW = ["experiments", "draw", "failing.placement"]
SOURCE = """
import torch, bnlib

def make():
    return bnlib.BatchNorm(3), [torch.eye(3)[:1]]

def needs(size):
    return make()

def nothing():
    pass

def three():
    return 1, 2, 3

def of_text():
    return "resnet", [torch.eye(3)]

def of_no_batches():
    return bnlib.BatchNorm(3), []

def of_other_shapes():
    return torch.nn.Sequential(torch.nn.Linear(4, 2), bnlib.BatchNorm(2)), [torch.randn(8, 3)]

def of_wrong_arguments():
    return dict(model=bnlib.BatchNorm(3), batches=[torch.eye(3)], max_batches="all")

def fails():
    return 1 / 0

def ends():
    raise SystemExit(5)

class Own(torch.nn.Module):
    def forward(self, x):
        return self.missing(x)

def of_own_layers():
    return torch.nn.Sequential(Own(), bnlib.BatchNorm(3)), [torch.randn(8, 3)]

number = 3
"""
DEFINED = "which defines make, needs, "

WRONG = {
    # The words of the command.
    (): "the following arguments are required: COMMAND",
    ("experiment",): "invalid choice: 'experiment' .*; did you mean 'experiments'?",
    ("experiments",): "the following arguments are required: ACTION",
    ("experiments", "lists"): "invalid choice: 'lists' .*; did you mean 'list'?",
    ("--verison", "claims"): "unrecognized arguments: --verison",
    # Running.
    ("experiments", "run"): "the following arguments are required: NAME",
    ("experiments", "run", "perils.two_tower"): "got 'perils.two_tower'; did you mean 'perils.two_towers'?",
    ("experiments", "run", "nothing"): "argument NAME: must be a name that `experiments list` prints, got 'nothing'$",
    (*RUN, "--scale", "quik"): "invalid choice: 'quik' .*; did you mean 'quick'?",
    (*RUN, "--workers", "0"): "argument --workers: must be an integer, at least 1, got '0'",
    (*RUN, "--workers", "-1"): "argument --workers: must be an integer, at least 1, got '-1'",
    (*RUN, "--workers", "1.5"): "argument --workers: must be an integer, at least 1, got '1.5'",
    (*RUN, "--max-stacked", "many"): "argument --max-stacked: must be an integer, at least 1, got 'many'",
    (*RUN, "--device", "gpu"): "argument --device: must be a device of this machine, such as .*'cpu'.*, got 'gpu'",
    (*RUN, "--device", "cpu", "cuda:99"): "argument --device: must be a device of this machine, .*, got 'cuda:99'",
    (*RUN, "--device"): "argument --device: expected at least one argument",
    (*RUN, "--seed", "3"): "unrecognized arguments: --seed",
    # Drawing.
    ("experiments", "draw"): "the following arguments are required: NAME",
    ("experiments", "draw", "failing.placemant"): "got 'failing.placemant'; did you mean 'failing.placement'?",
    ("experiments", "draw", "failing.initial_gamma"): "got 'failing.initial_gamma', which has no curves",
    (*DRAW, "--only", "five"): "argument --only: must have the form AXIS=VALUE, got 'five'",
    (*DRAW, "--only", "=5"): "argument --only: must have the form AXIS=VALUE, got '=5'",
    (
        *DRAW,
        "--only",
        "deph=5",
    ): "only must have keys among 'placement', 'depth', 'lr', got 'deph'; did you mean 'depth'?",
    (*DRAW, "--only", "depth=five"): "only must select at least one cell of failing.placement, got {'depth': 'five'}",
    (
        *DRAW,
        "--scale",
        "paper",
    ): "placement_paper.json does not exist; produce it with `python -m bnlib experiments run",
    (*DRAW, "--folder", "t.txt"): "--folder must be a folder with room for 1 MiB, got t.txt: File exists",
    # The ledger.
    (
        "claims",
        "kari-ten-layer",
    ): "ID must be one that .* prints, got 'kari-ten-layer'; did you mean 'kari-ten-layers'?",
    ("claims", "--rerun"): "argument --rerun: expected at least one argument",
    ("claims", "--rerun", "zzz"): "ID must be one that `python -m bnlib claims` prints, got 'zzz'$",
    ("claims", "--format", "xml"): "invalid choice: 'xml'",
    ("claims", "kari-ten-layers", "--format", "csv"): "--format must be left out where claims are named, got 'csv'",
    # The doctor.
    ("diagnose",): "the following arguments are required: FILE:FUNCTION",
    ("diagnose", "mine.py"): "target must be FILE:FUNCTION, such as train.py:make, got 'mine.py'",
    ("diagnose", ":make"): "target must be FILE:FUNCTION, such as train.py:make, got ':make'",
    ("diagnose", "mine.py:"): "target must be FILE:FUNCTION, such as train.py:make, got 'mine.py:'",
    ("diagnose", "none.py:make"): "target must name a Python file, got 'none.py', which is not a file",
    ("diagnose", ".:make"): "target must name a Python file, got '.', which is not a file",
    ("diagnose", "t.txt:make"): "target must name a Python file, ending in .py, got 't.txt'",
    ("diagnose", "mine.py:mkae"): f"a function of mine.py, {DEFINED}.*; got 'mkae'; did you mean 'make'?",
    ("diagnose", "mine.py:number"): f"a function of mine.py, {DEFINED}.*; got 'number', which is no function",
    ("diagnose", "mine.py:needs"): "a function without required arguments, but needs has some: .*'size'",
    ("diagnose", "mine.py:nothing"): r"mine.py:nothing must return \(model, batches\), or a mapping .*, got NoneType",
    ("diagnose", "mine.py:three"): r"mine.py:three must return \(model, batches\), .*, got a tuple of 3",
    ("diagnose", "mine.py:of_text"): "model must be a torch.nn.Module, got str",
    ("diagnose", "mine.py:of_no_batches"): "batches must hold at least one batch with a sample, got none",
    ("diagnose", "mine.py:of_wrong_arguments"): "max_batches must be an integer, at least 1, got 'all'",
    ("diagnose", "mine.py:make", "mine.py:make"): "unrecognized arguments: mine.py:make",
    ("diagnose", "mine.py:make", "--html"): "argument --html: expected one argument",
    ("diagnose", "mine.py:make", "--html", "."): "--html must be a file, got the folder /",
    ("diagnose", "mine.py:make", "--html", ""): "--html must be a file, got the folder /",
    (
        "diagnose",
        "mine.py:make",
        "--html",
        "t.txt/r.html",
    ): "the folder of --html must be a folder with room for 1 MiB, got .*/t.txt: ",
    ("diagnose", "mine.py:make", "--html", "/proc/r.html"): "the folder of --html must be a folder .*, got /proc: ",
    ("diagnose", "mine.py:make", "--json", "--html", "/proc/r.html"): "the folder of --html must be a folder",
    ("diagnose", "mine.py:make", "--jsn"): "unrecognized arguments: --jsn",
    ("diagnose", "mine.py:make", "--fail-on", "warnings"): "invalid choice: 'warnings' .*; did you mean 'warning'?",
    ("diagnose", "mine.py:make", "--fail-on"): "argument --fail-on: expected one argument",
    ("diagnose", "mine.py:make", "--book"): "argument --book: expected one argument",
    ("diagnose", "--json"): "the following arguments are required: FILE:FUNCTION",
    # The explanations.
    ("explain", "zero-gama"): "CODE must be one that .* explain` prints, got 'zero-gama'; did you mean 'zero-gamma'?",
    ("explain", "ZERO_GAMMA"): "got 'ZERO_GAMMA'; did you mean 'zero-gamma'?",
    ("explain", "zzz"): "CODE must be one that `python -m bnlib explain` prints, got 'zzz'$",
    ("explain", ""): "CODE must be one that `python -m bnlib explain` prints, got ''$",
    ("explain", "zero-gamma", "zzz"): "CODE must be one that .*, got 'zzz'$",
    ("explain", "--all"): "unrecognized arguments: --all",
}
FAILING = {
    "mine.py:fails": r"fails\(\) failed with ZeroDivisionError: division by zero \(line 29 of mine.py\)",
    "mine.py:ends": r"ends\(\) failed with SystemExit: 5 \(line 32 of mine.py\)",
    "mine.py:of_other_shapes": r"diagnosing the model failed with RuntimeError: .*shapes cannot be multiplied",
    "mine.py:of_own_layers": r"diagnosing the model failed with AttributeError: .* \(line 36 of mine.py\)",
    "syntax.py:make": r"the file failed with SyntaxError: .*line 1 of .*syntax.py",
    "imports.py:make": r"the file failed with ModuleNotFoundError: No module named 'nothing' \(line 1 of imports.py\)",
    "binary.py:make": r"the file failed with SyntaxError",
}


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(SOURCE)
    Path("syntax.py").write_text("def make(:")
    Path("imports.py").write_text("import nothing")
    Path("binary.py").write_bytes(b"\xff\xfe\0")
    Path("t.txt").write_text("text")


def status_and_error(arguments, capsys):
    try:
        status = __main__.main(list(arguments))
    except SystemExit as end:
        status = end.code
    printed = capsys.readouterr()
    assert not printed.out
    return status, printed.err.strip().splitlines()[-1]


@pytest.mark.parametrize(("arguments", "message"), WRONG.items(), ids=map(" ".join, WRONG))
def test_a_wrong_use_is_explained(arguments, message, capsys):
    status, error = status_and_error(arguments, capsys)
    pattern = message.replace("?", "[?]").replace("{", "[{]").replace("(choose", "[(]choose")
    assert status == 2 and re.search(pattern, error), error


@pytest.mark.parametrize(("target", "message"), FAILING.items(), ids=FAILING)
def test_code_of_the_user_that_fails_has_a_status_of_its_own(target, message, capsys):
    status, error = status_and_error(["diagnose", target], capsys)
    assert status == 3 and re.search(message, error), error


def test_what_is_missing_or_full_is_explained(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith("bnlib.figures") or name == "bnlib.figures"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(bnlib, "figures", raising=False)
    status, error = status_and_error([*DRAW, "--folder", "figures"], capsys)
    assert status == 2 and "matplotlib" in error and "pip install 'bnlib[notebook]'" in error
    monkeypatch.setitem(sys.modules, "pooch", None)
    monkeypatch.setattr(experiment.Experiment.save, "__defaults__", ("quick", tmp_path))
    status, error = status_and_error(RUN, capsys)
    assert status == 2 and "pooch" in error and "pip install 'bnlib[notebook]'" in error
    monkeypatch.setattr(experiment.Experiment.save, "__defaults__", ("quick", tmp_path / "t.txt"))
    status, error = status_and_error(RUN, capsys)
    assert status == 2 and "folder must be a folder with room for 1 MiB" in error


def damaged(change):
    """The committed result that DRAW draws, with a change in its first cell or in its cells."""
    content = json.loads((results.FOLDER / "failing" / "placement_quick.json").read_text())
    change(content["cells"])
    return json.dumps(content)


DAMAGES = {
    "no cells": lambda cells: cells.clear(),
    "a cell twice": lambda cells: cells.append(cells[0]),
    "no curve": lambda cells: cells[0].pop("test_error"),
    "no runs": lambda cells: cells[0].update(train_loss=[]),
    "no numbers": lambda cells: cells[0].update(train_loss=[["a"]]),
    "few epochs": lambda cells: cells[0].update(epoch=[0]),
    "no epochs": lambda cells: cells[0].update(epoch=None),
}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"cells": 3}', '{"cells": [{}]}', *DAMAGES])
def test_a_broken_result_is_explained(content, monkeypatch, tmp_path, capsys):
    content = damaged(DAMAGES[content]) if content in DAMAGES else content
    (tmp_path / "failing").mkdir()
    (tmp_path / "failing" / "placement_quick.json").write_text(content)
    monkeypatch.setattr(experiment.Experiment.load, "__defaults__", ("quick", tmp_path))
    monkeypatch.setattr(experiment.Experiment.panels, "__defaults__", ("quick", None, tmp_path))
    status, error = status_and_error(DRAW, capsys)
    assert status == 2 and "placement_quick.json is broken" in error and "produce it again with `python -m" in error


def test_results_that_are_not_there_are_explained(monkeypatch, tmp_path, capsys):
    """As in a package that was installed without the book."""
    monkeypatch.setattr(results.read_result, "__defaults__", (tmp_path,))
    for each in (experiment.Experiment, type(registry.EXPERIMENTS["failing.initial_gamma"])):
        monkeypatch.setattr(each.load, "__defaults__", ("quick", tmp_path))
    claims_results._load.cache_clear()  # another test may have read the result
    status, error = status_and_error(["claims", "kari-ten-layers"], capsys)
    assert status == 2 and "does not exist; produce it with `python -m bnlib experiments run" in error


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit, match="0"):
        __main__.main(["--version"])
    assert capsys.readouterr().out.startswith(f"bnlib {bnlib.__version__} (torch ")
