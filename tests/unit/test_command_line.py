"""``python -m bnlib``."""

import functools
import json
import subprocess
import sys
from dataclasses import replace

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


def test_it_is_a_module_that_runs():
    done = subprocess.run([sys.executable, "-m", "bnlib", "experiments", "list"], capture_output=True, text=True)
    assert done.returncode == 0 and "full_normalization.oracles_on_digits" in done.stdout


def test_diagnose_prints_the_report_and_tells_errors_by_its_exit_status(tmp_path, capsys):
    lines = ["import torch, bnlib", "def make():", "    torch.manual_seed(0)"]
    lines += ["    model = torch.nn.Sequential(torch.nn.Linear(3, 4), bnlib.BatchNorm(4))"]
    file = tmp_path / "mine.py"
    file.write_text("\n".join([*lines, "    return model, [torch.randn(1, 3) for _ in range(4)]"]))
    assert __main__.main(["diagnose", f"{file}:make"]) == 1
    assert "ERROR one-value-per-channel in layer 1" in capsys.readouterr().out
    file.write_text("\n".join([*lines, "    return model, [torch.randn(64, 3) for _ in range(4)]"]))
    assert __main__.main(["diagnose", f"{file}:make"]) == 0
    assert "error" not in capsys.readouterr().out.lower()
    file.write_text("def make(size):\n    return size")
    assert __main__.main(["diagnose", f"{file}:make"]) == 2
    assert "must name a function without required arguments" in capsys.readouterr().err
    assert __main__.main(["diagnose", "nothing.py:make"]) == 2
    assert "nothing.py" in capsys.readouterr().err
