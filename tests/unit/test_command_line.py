"""``python -m bnlib``."""

import functools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bnlib import BatchNorm, __main__, models
from bnlib.experiments.framework import experiment, registry
from bnlib.experiments.framework.experiment import Experiment
from bnlib.sweep import Run

MODEL = functools.partial(models.mlp, (64, 8, 10), BatchNorm)


def cells(scale):
    return {
        (size,): [Run(MODEL, "digits", size, 0.1, seed, epochs=1, checkpoints=2) for seed in (3, 4)]
        for size in (32, 64)
    }


TINY = Experiment("tiny", "Does it work?", "nowhere", ("batch size",), cells)


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    monkeypatch.setitem(registry.EXPERIMENTS, "tiny", TINY)
    monkeypatch.setattr(experiment.Experiment.save, "__defaults__", ("quick", tmp_path))
    monkeypatch.setattr("bnlib.sweep.cache_folder", lambda cache: tmp_path)
    return tmp_path


def test_list_names_each_experiment_and_its_question(tiny, capsys):
    assert __main__.main(["experiments", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(registry.EXPERIMENTS) and any(line.startswith("tiny ") for line in lines)


def test_run_takes_several_and_ends_with_a_table_of_each(tiny, monkeypatch, capsys):
    monkeypatch.setitem(registry.EXPERIMENTS, "small", replace(TINY, name="small", curves=("test_error",)))
    assert __main__.main(["experiments", "run", "tiny", "small"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tiny: Does it work?" and lines[5] == "small: Does it work?"
    assert lines[1].split("  ")[0] == "batch size" and lines[1].endswith("diverged") and "train loss" in lines[1]
    assert lines[2].startswith("32 ") and lines[3].startswith("64 ") and lines[3].endswith("0 of 2")
    errors = TINY.load("quick", tiny)[64,]["test_error"]
    ends = sorted(curve[-1] for curve in errors)
    assert f"{np.median(ends):.3g} [{ends[0]:.3g}, {ends[1]:.3g}]" in lines[3]
    assert "train loss" not in lines[6] and (tiny / "small_quick.json").exists()


def test_run_writes_curves_of_all_seeds_with_their_provenance(tiny):
    assert __main__.main(["experiments", "run", "tiny"]) == 0
    result = json.loads((tiny / "tiny_quick.json").read_text())
    assert result["provenance"]["command"] == "python -m bnlib experiments run tiny --scale quick"
    assert result["provenance"]["seeds"] == [3, 4]
    row = TINY.load("quick", tiny)[64,]
    assert row["epoch"][0] == 0 and len(row["train_loss"]) == len(row["test_error"]) == 2
    assert all(len(curve) == 3 for name in experiment.CURVES for curve in row[name])
    assert row["train_loss"][0] != row["train_loss"][1]


def test_draw_writes_a_figure_of_the_result(tiny, monkeypatch, capsys):
    monkeypatch.setattr(experiment.Experiment.load, "__defaults__", ("quick", tiny))
    monkeypatch.setattr(experiment.Experiment.panels, "__defaults__", ("quick", None, tiny))
    draw = ["experiments", "draw", "tiny", "--folder", str(tiny / "figures")]
    assert __main__.main(draw) == 2
    assert "produce it with `python -m bnlib experiments run tiny --scale quick`" in capsys.readouterr().err
    assert __main__.main(["experiments", "run", "tiny"]) == 0
    assert __main__.main(draw) == 0
    svg = (tiny / "figures" / "tiny_quick.svg").read_text()
    assert svg.startswith("<svg") and ">batch size 32<" in svg and ">batch size 64<" in svg
    assert __main__.main([*draw, "--only", "batch size=64"]) == 0
    svg = (tiny / "figures" / "tiny_quick.svg").read_text()
    assert "batch size 32" not in svg
    capsys.readouterr()
    assert __main__.main([*draw, "--only", "batch size=5"]) == 2
    assert "only must select at least one cell of tiny, got {'batch size': '5'}" in capsys.readouterr().err
    assert __main__.main([*draw, "--only", "lr=5"]) == 2
    assert "only must have keys among 'batch size', got 'lr'" in capsys.readouterr().err
    monkeypatch.setattr(__main__, "_MOST_PANELS", 1)
    assert __main__.main(draw) == 2
    assert (
        "a figure holds at most 1 panels, got 2; select cells, e.g. --only 'batch size=32'" in capsys.readouterr().err
    )


def test_an_interruption_says_how_to_go_on(tiny, monkeypatch, capsys):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "run", interrupted)
    assert __main__.main(["experiments", "run", "tiny"]) == 130
    assert "continue with: python -m bnlib experiments run tiny --scale quick" in capsys.readouterr().err
    assert not (tiny / "tiny_quick.json").exists()


DIAGNOSED = """
import torch, bnlib
print("the file prints this")

def with_batches_of(size, outputs=4):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, outputs), bnlib.BatchNorm(outputs))
    return model, [torch.randn(size, 3) for _ in range(4)]

def error():
    return with_batches_of(1)

def warning():
    return with_batches_of(3)

def note():
    return with_batches_of(64)

def healthy():
    model, batches = with_batches_of(64)
    for _ in range(99):
        model(batches[0])
    return model, batches

def without_norm():
    return torch.nn.Linear(3, 4), [torch.randn(8, 3)]

def not_called():
    model = torch.nn.ModuleDict({"used": torch.nn.Linear(3, 4), "not": bnlib.BatchNorm(4)})
    return {"model": model, "batches": [torch.randn(8, 3)] * 2, "forward": lambda model, x: model["used"](x)}

def interrupted():
    raise KeyboardInterrupt
"""


@pytest.fixture
def diagnosed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(DIAGNOSED)

    def run(name, *options):
        return __main__.main(["diagnose", f"mine.py:{name}", *options])

    return run


def test_the_exit_status_of_diagnose_tells_a_script_what_was_found(diagnosed, capsys):
    severities = {name: [diagnosed(name, "--fail-on", each) for each in ("error", "warning", "note")] for name in
                  ("error", "warning", "note", "healthy")}  # fmt: skip
    assert severities == {"error": [1, 1, 1], "warning": [0, 1, 1], "note": [0, 0, 1], "healthy": [0, 0, 0]}
    assert [diagnosed(name) for name in ("error", "warning", "note", "healthy")] == [1, 1, 0, 0]
    printed = capsys.readouterr()
    assert "ERROR one-value-per-channel in layer 1" in printed.out and not printed.err


@pytest.mark.parametrize("name", ["without_norm", "not_called"])
def test_nothing_to_look_at_has_a_status_of_its_own(name, diagnosed, capsys):
    assert diagnosed(name) == 2
    printed = capsys.readouterr()
    assert "Nothing was checked." in printed.out and "nothing to look at" in printed.err
    assert diagnosed(name, "--json") == 2
    assert not json.loads(capsys.readouterr().out)["checked"]


def test_an_interrupted_diagnosis_ends_without_a_traceback(diagnosed, capsys):
    assert diagnosed("interrupted") == 130
    assert capsys.readouterr().err == "diagnose: interrupted\n"


def test_json_alone_is_on_the_standard_output_and_a_page_can_be_written_beside_it(diagnosed, tmp_path, capsys):
    assert diagnosed("error", "--json", "--html", "new/r.html", "--book", "https://example.org") == 1
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["findings"][0]["link"] == "https://example.org/chapters/01_the_formula.html#forward"
    assert "the file prints this" in printed.err and f"wrote {tmp_path}/new/r.html" in printed.err
    assert "one-value-per-channel" in (tmp_path / "new" / "r.html").read_text()


def test_explain_prints_one_several_or_the_list(capsys):
    assert __main__.main(["explain", "zero-gamma"]) == 0
    one = capsys.readouterr().out
    assert one.startswith("zero-gamma, a finding") and "Initialise gamma to 1." in one and "“Gamma is zero”" in one
    assert __main__.main(["explain", "zero-gamma", "folded", "--book", "https://example.org"]) == 0
    assert "https://example.org/chapters/11_training_code.html#folding" in capsys.readouterr().out
    assert __main__.main(["explain"]) == 0
    assert "  * zero-gamma\n" in capsys.readouterr().out


# One process imports what each command needs, and becomes the process of each command in turn: `python -m bnlib ...`.
IN_TURN = """
import json, os, runpy, sys
import bnlib
out, err, *commands = json.loads(sys.argv[1])
for number, command in enumerate(commands):
    child = os.fork()
    if child == 0:
        os.dup2(out[number], 1)
        os.dup2(os.open(err[number], os.O_WRONLY | os.O_CREAT), 2)
        sys.argv[1:] = command
        runpy.run_module("bnlib", run_name="__main__", alter_sys=True)
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def ran(commands, out):
    """The status of each command, and what it wrote to the standard error, with the standard outputs that are given."""
    errors = [f"error{number}" for number in range(len(commands))]
    told = json.dumps([out, errors, *commands])
    done = subprocess.run([sys.executable, "-c", IN_TURN, told], stdout=subprocess.PIPE, text=True, pass_fds=set(out))
    return [*zip(map(int, done.stdout.split()), (Path(each).read_text() for each in errors), strict=True)]


def test_it_is_a_module_that_runs_and_a_reader_that_goes_early_is_no_error(diagnosed):
    """As ``| head``: what diagnose has found stays its exit status, and nothing is printed on the standard error."""
    Path("quiet.py").write_text(DIAGNOSED.replace('print("the file prints this")', ""))
    read, gone = os.pipe()
    os.close(read)
    with open("whole", "w") as whole:
        every = ["experiments", "list"]
        found = ran([every, ["explain"], ["diagnose", "quiet.py:error"], every], [whole.fileno(), gone, gone, gone])
    os.close(gone)
    assert found == [(0, ""), (0, ""), (1, ""), (141, "")]
    assert "full_normalization.oracles_on_digits" in Path("whole").read_text()
