import json

import pytest

from bnlib.experiments.framework import status
from bnlib.experiments.framework.registry import EXPERIMENTS
from bnlib.experiments.framework.results import FOLDER, write_result


def test_every_committed_result_has_a_row_with_its_question():
    frame = status.results_table(status.committed_results()).frame
    questions = dict(name.split(": ", 1) for name in frame.index)
    assert set(questions) == {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.json")}
    assert questions["perils/two_towers_quick"] == EXPERIMENTS["perils.two_towers"].question
    assert frame.map(len).min(axis=None) > 0


def test_time_is_that_of_the_work_and_not_of_the_last_call(tmp_path):
    with write_result("full_normalization/lian_figure_4_quick", "a command", [0, 1, 2], tmp_path) as result:
        result["training_seconds"] = 600
    (result,) = status.committed_results(tmp_path)
    assert result.seconds == 600 > result.provenance["seconds"]
    row = status.results_table([result]).frame.iloc[0]
    assert (row["seeds"], row["time"]) == ("3", "10 min")
    assert row["date"] == result.provenance["date"] and row["commit"]


def test_origins_are_counted(tmp_path):
    for name, device in (("a_cpu", "cpu"), ("b_cpu", "cpu"), ("c_cuda", "cuda:0")):
        with write_result(name, "a command", [0], tmp_path, device):
            pass
    frame = status.devices_and_versions(status.committed_results(tmp_path)).frame
    assert frame["device"].to_dict() == {"2": "cpu", "1": "cuda:0"}


def test_a_result_without_provenance_is_refused(tmp_path):
    (tmp_path / "made_by_hand_quick.json").write_text(json.dumps({"cells": []}))
    with pytest.raises(KeyError, match="provenance"):
        status.committed_results(tmp_path)


def test_the_build_names_versions_and_processor():
    rows = status.build_environment().frame["version or name"]
    assert rows["torch"].startswith("2.") and rows["processor"].endswith("cores") and rows["date"]
