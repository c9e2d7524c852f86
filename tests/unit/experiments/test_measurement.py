"""Measurements: cells times seeds, kept as soon as they are done, and written with their provenance."""

import json
import math

import numpy as np
import pytest

from bnlib.experiments.framework import measurement as measurement_module
from bnlib.experiments.framework.measurement import Measurement

calls = []


def cells(scale):
    return {("a", 1.0): (0, 1, 2), ("b", 2.0): (0, 1, 2)} if scale == "quick" else {("a", 3.0): (5,)}


def measure(name, factor, *, seed, device):
    calls.append((name, factor, seed, device))
    return {"one": factor * seed, "many": np.array([seed, math.inf if name == "b" else 1 / 3])}


def failing(name, factor, *, seed, device):
    if seed == 1 and factor == 2.0:
        raise RuntimeError("the machine was switched off")
    return measure(name, factor, seed=seed, device=device)


TINY = Measurement("tiny", "Does it work?", "nowhere", ("name", "factor"), cells, measure)


@pytest.fixture(autouse=True)
def forget():
    calls.clear()


def test_a_result_has_every_cell_and_seed_and_its_provenance(tmp_path):
    TINY.save("quick", tmp_path, cache=tmp_path / "cache")
    kept = TINY.load("quick", tmp_path)
    assert list(kept) == [("a", 1.0), ("b", 2.0)]
    np.testing.assert_array_equal(kept["b", 2.0]["one"], [0, 2, 4])
    np.testing.assert_array_equal(kept["a", 1.0]["many"], [[0, 0.3333], [1, 0.3333], [2, 0.3333]])
    assert np.isnan(kept["b", 2.0]["many"][:, 1]).all()  # what is not finite
    result = json.loads((tmp_path / "tiny_quick.json").read_text())
    assert result["provenance"]["seeds"] == [0, 1, 2]
    assert result["provenance"]["command"] == "python -m bnlib experiments run tiny --scale quick"
    TINY.save("paper", tmp_path, cache=tmp_path / "cache")
    assert list(TINY.load("paper", tmp_path)) == [("a", 3.0)]


def test_what_is_done_is_not_done_again_even_after_an_error(tmp_path):
    broken = Measurement("tiny", "?", "-", ("name", "factor"), cells, failing)
    with pytest.raises(RuntimeError, match="switched off") as caught:
        broken.save("quick", tmp_path, cache=tmp_path / "cache")
    assert "make the same call again to continue" in caught.value.__notes__[0]
    assert not (tmp_path / "tiny_quick.json").exists()
    assert len(calls) == 4
    TINY.save("quick", tmp_path, cache=tmp_path / "cache")
    assert len(calls) == 6 and calls[4:] == [("b", 2.0, 1, "cpu"), ("b", 2.0, 2, "cpu")]
    TINY.save("quick", tmp_path, cache=tmp_path / "cache")
    assert len(calls) == 6


def test_other_code_is_another_measurement(tmp_path, monkeypatch):
    before = TINY._key(("a", 1.0), 0, "cpu")
    assert len({before, TINY._key(("a", 1.0), 1, "cpu"), TINY._key(("a", 1.0), 0, "cuda")}) == 3
    monkeypatch.setattr(measurement_module, "code_hash", lambda: "other sources")
    assert TINY._key(("a", 1.0), 0, "cpu") != before


def test_processes_share_out_the_work(tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    TINY.save("quick", alone, cache=alone)
    TINY.save("quick", shared, cache=shared, workers=2)
    read = [json.loads((folder / "tiny_quick.json").read_text())["cells"] for folder in (alone, shared)]
    assert read[0] == read[1]


def test_the_table_has_a_row_a_cell(tmp_path):
    measured = TINY.save("quick", tmp_path, cache=tmp_path / "cache")
    head, first, second = TINY.table(measured).splitlines()
    assert head.split() == ["name", "factor", "one", "many"]
    assert first.split("  ")[0] == "a" and "1 [0, 2]" in first
    assert "2 [0, 4]" in second and second.endswith("-")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("one", value, "cell a, 1.0 must hold numbers for one, one or an array of one shape for each seed; produce")
        for value in (None, [], 3, "x", ["0.5", 1, 2], [True, 1, 2], [1, [2], 3])
    ]
    + [("many", [[1, 2], [3, 4]], "cell a, 1.0 must hold as many runs of each value, got 2 and 3; produce it again")],
)
def test_broken_numbers_of_a_result_are_named(name, value, message, tmp_path):
    cells = [
        {"name": "a", "factor": 1.0, "one": [0, 1, None], "many": [[1, 2], [3, None], [5, 6]]},
        {"name": "b", "factor": 2.0, "one": [0, 1, 2], "many": [[1, 2], [3, 4], [5, 6]]},
    ]
    path = tmp_path / "tiny_quick.json"
    path.write_text(json.dumps({"cells": cells}))
    assert TINY.load("quick", tmp_path)["a", 1.0]["many"].shape == (3, 2)
    cells[0][name] = value
    path.write_text(json.dumps({"cells": cells}))
    with pytest.raises(ValueError, match=f"the result .*tiny_quick.json is broken: its {message}"):
        TINY.load("quick", tmp_path)


def test_bad_arguments_and_files_are_explained(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="workers must be an integer, at least 1, got 0"):
        TINY.save("quick", tmp_path, workers=0)
    with pytest.raises(FileNotFoundError, match="experiments run tiny --scale quick"):
        TINY.load("quick", tmp_path)
    TINY.save("quick", tmp_path, cache=tmp_path / "cache")
    next((tmp_path / "cache").glob("*.json")).write_text('{"values"')
    with pytest.raises(ValueError, match="cache must hold complete results, got the broken file"):
        TINY.save("quick", tmp_path, cache=tmp_path / "cache")
    monkeypatch.setattr(measurement_module, "rank_and_world_size", lambda: (0, 2))
    with pytest.raises(ValueError, match="tiny must be run by one process, got 2 of torchrun"):
        TINY.save("quick", tmp_path)
