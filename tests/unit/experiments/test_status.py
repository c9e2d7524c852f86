import json

import pytest

from bnlib.experiments.framework import status
from bnlib.experiments.framework.registry import EXPERIMENTS
from bnlib.experiments.framework.results import FOLDER, write_result


def test_every_committed_result_has_a_row_with_its_question():
    rows = {row[0].partition(": ")[0]: row for row in status.table(status.committed()).rows}
    assert set(rows) == {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.json")}
    assert rows["perils/two_towers_quick"][0].endswith(EXPERIMENTS["perils.two_towers"].question)
    assert all(all(row) for row in rows.values())


def test_time_is_that_of_the_work_and_not_of_the_last_call(tmp_path):
    with write_result("full_normalization/lian_figure_4_quick", "a command", [0, 1, 2], tmp_path) as result:
        result["training_seconds"] = 600
    (result,) = status.committed(tmp_path)
    assert result.seconds == 600 and result.provenance["seconds"] < 5
    *_, seeds, date, commit, time = status.table([result]).rows[0]
    assert (seeds, time) == ("3", "10 min") and date == result.provenance["date"] and commit


def test_origins_are_counted(tmp_path):
    for name, device in (("a_cpu", "cpu"), ("b_cpu", "cpu"), ("c_cuda", "cuda:0")):
        with write_result(name, "a command", [0], tmp_path, device):
            pass
    table = status.origins(status.committed(tmp_path))
    assert [row[:2] for row in table.rows] == [("2", "cpu"), ("1", "cuda:0")]


def test_a_result_without_provenance_is_refused(tmp_path):
    (tmp_path / "made_by_hand_quick.json").write_text(json.dumps({"cells": []}))
    with pytest.raises(KeyError, match="provenance"):
        status.committed(tmp_path)


def test_a_table_escapes_what_it_shows():
    assert "<td>a &lt; b</td>" in status.Table(("x",), [("a < b",)])._repr_html_()


def test_the_build_names_versions_and_processor():
    rows = dict(status.build().rows)
    assert rows["torch"].startswith("2.") and rows["processor"].endswith("cores") and rows["date"]
