"""The contest with SGD: the committed runs are those that the rule asks for, and verdicts follow from the errors."""

from fractions import Fraction

import numpy as np
import pytest

from bnlib import figures
from bnlib.experiments.framework.experiment import rounded
from bnlib.experiments.framework.results import read_result
from bnlib.experiments.full_normalization import rivals, rivals_sgd, rivals_sgd_selection

PLACES = rivals_sgd.places()


def test_the_places_are_those_of_the_contest():
    assert sorted(rivals_sgd_selection.ORDER) == sorted(rivals.places())
    assert PLACES == rivals.places()
    assert all(rivals_sgd.errors()[place].keys() == rivals.NORMS.keys() for place in PLACES)
    assert {len(values) for of in rivals_sgd.errors().values() for values in of.values()} == {5}
    assert rivals_sgd_selection.cells("paper").keys() == rivals.selection_cells("SGD").keys()


def test_rounded_errors_are_exact_again():
    shares = [Fraction(count, 287) for count in range(288)]
    row = {"train_loss": [[2.0, 0.1]] * 288, "test_error": [[0.9, *rounded([float(share)])] for share in shares]}
    assert rivals_sgd_selection.errors_at_the_end(row, 287) == shares


def test_a_run_that_diverged_has_no_error_and_counts_as_guessing():
    row = {"train_loss": [[2.3, None], [2.3, 0.2]], "test_error": [[0.9, 0.1], [0.9, 0.1003]]}
    assert rivals_sgd_selection.errors_at_the_end(row, 359) == [None, Fraction(36, 359)]
    assert rivals_sgd.mean_error([None, 0.1]) == pytest.approx(50)


def test_no_other_pair_of_setting_and_rate_is_better_in_the_selection():
    images = len(rivals.selection_images().test_y)
    wrong = {
        cell: sum(90 * images if end is None else 100 * images * end for end in ends)
        for cell, row in rivals_sgd_selection.EXPERIMENT.load("quick").items()
        for ends in [rivals_sgd_selection.errors_at_the_end(row, images)]
    }
    for (norm, construction, size), (setting, lr) in rivals_sgd_selection.chosen().items():
        tried = {cell: value for cell, value in wrong.items() if (cell[0], *cell[2:4]) == (norm, construction, size)}
        assert len(tried) == 10
        equal = [cell for cell, value in tried.items() if value == min(tried.values())]
        assert equal[0] == (norm, setting, construction, size, lr)


def test_the_verdicts_follow_from_the_errors(monkeypatch):
    place = PLACES[0]
    far, near = [0.5, 0.51, 0.52, 0.5, 0.51], [0.01, 0.011, 0.012, 0.01, 0.011]
    errors = {norm: far for norm in rivals.NORMS}
    for better, expected in (("Full Norm", "wins"), ("batch norm", "loses")):
        monkeypatch.setattr(rivals_sgd, "errors", lambda scale="quick", b=better: {place: errors | {b: near}})
        assert rivals_sgd.verdicts() == {place: expected}
        assert [row["verdict"] for row in rivals_sgd.verdict_rows()] == [expected]
        assert best_norms(place) == [rivals_sgd.COMPARED[better]]
    monkeypatch.setattr(rivals_sgd, "errors", lambda scale="quick": {place: errors})
    assert rivals_sgd.verdicts() == {place: "among the best"}
    assert len(best_norms(place)) == 11


def best_norms(place):
    """Return the norms whose row in the table has the batch size of a place."""
    return [row["norm"] for row in rivals_sgd.best_rows() if str(place[1]) in row[place[0]].split(", ")]


def test_where_no_norm_learns_the_tables_and_the_picture_count_nothing(monkeypatch):
    guessing, little = [0.9, 0.85, None], [0.8, 0.8, 0.79]
    hopeless, learned = ("sorted stream", 4), ("shuffled", 4)
    errors = {
        hopeless: {norm: guessing for norm in rivals.NORMS},
        learned: {norm: guessing for norm in rivals.NORMS} | {"batch norm": little},
    }
    monkeypatch.setattr(rivals_sgd, "errors", lambda scale="quick": errors)
    assert not rivals_sgd.some_norm_learns(*hopeless) and rivals_sgd.some_norm_learns(*learned)
    assert rivals_sgd.verdicts() == {learned: "loses", hopeless: "among the best"}
    assert [row["verdict"] for row in rivals_sgd.verdict_rows()] == ["loses", "no norm learns"]
    assert rivals_sgd.best_rows()[0].keys() == {"norm", "shuffled"} and best_norms(learned) == ["BN"]
    assert rivals_sgd.errors_and_times().keys() == {"shuffled"}


def test_a_star_marks_a_rate_at_an_end_of_its_grid():
    chosen = rivals_sgd_selection.chosen()
    for norm, construction, size in chosen:
        rates = rivals.learning_rates("SGD", size)
        inside = chosen[norm, construction, size][1] in rates[1:-1]
        assert rivals_sgd.at_an_end_of_the_grid(norm, construction, size) != inside


def test_the_table_has_the_errors_and_the_verdict_at_each_place():
    rows = rivals_sgd.verdict_rows()
    assert [row["batches"] for row in rows] == [f"{construction}, {size}" for construction, size in PLACES]
    for place, row in zip(PLACES, rows, strict=True):
        learned = rivals_sgd.some_norm_learns(*place)
        assert row["verdict"] == (rivals_sgd.verdicts()[place] if learned else "no norm learns")
        for norm, name in rivals_sgd.COMPARED.items():
            errors = [rivals.WORST if value is None else value for value in rivals_sgd.errors()[place][norm]]
            mean = f"{rivals_sgd.mean_error(errors):.1f}" + "*" * rivals_sgd.at_an_end_of_the_grid(norm, *place)
            assert row[name] == f"{mean} ({100 * min(errors):.1f}–{100 * max(errors):.1f})"


def test_the_table_of_the_best_norms_has_each_place_where_a_norm_learns():
    rows = rivals_sgd.best_rows()
    assert len(rows) == len(rivals.NORMS)
    for place in filter(lambda place: rivals_sgd.some_norm_learns(*place), PLACES):
        found = rivals.best(rivals_sgd.errors()[place])
        assert set(best_norms(place)) == {rivals_sgd.COMPARED.get(norm, norm) for norm in found}


def test_the_benchmark_has_all_norms_and_shows_its_noise():
    rows = read_result("benchmarks/rivals_cpu", "python benchmarks/rivals.py --save")["rows"]
    assert {(row["norm"], row["batch_size"]) for row in rows} == {
        (norm, size) for norm in ("noise", *rivals.NORMS) for size in rivals.BATCH_SIZES
    }
    assert all(0.8 < row["quartiles_of_ratio"][1] < 1.25 for row in rows if row["norm"] in ("noise", "batch norm"))
    assert all(row["state_bytes"] == 0 for row in rows if row["norm"] in ("layer norm", "without normalisation"))


def test_the_picture_shows_each_norm_and_names_those_that_no_other_one_beats():
    data = rivals_sgd.errors_and_times()
    told = figures.picture(figures.draw_errors_and_times, data).alt
    for construction, points in data.items():
        times, errors, lowest, highest = np.array(list(points.values())).T
        assert (lowest <= errors).all() and (errors <= highest).all()
        beaten = [((times < time) & (errors < error)).any() for time, error in zip(times, errors, strict=True)]
        front = told.partition(f"{construction}: ")[2].partition("than ")[2].partition(".")[0]
        assert {norm for norm, lost in zip(points, beaten, strict=True) if not lost} >= set(front.split(", "))
        for norm, at in points.items():
            assert f"{norm} {at.time:.2f} and {at.error:.1f} ({at.lowest:.1f}–{at.highest:.1f})" in told


def test_a_point_of_the_picture_is_a_mean_over_batch_sizes_and_its_line_the_range_over_seeds(monkeypatch):
    of = {norm: [0.1, 0.2, None] for norm in rivals.NORMS}
    errors = {("shuffled", 4): of, ("shuffled", 16): {norm: [0.3, 0.4, 0.5] for norm in of}}
    monkeypatch.setattr(rivals_sgd, "errors", lambda scale="quick": errors)
    point = rivals_sgd.errors_and_times()["shuffled"]["batch norm"]
    assert point[1:] == pytest.approx((40, 20, 70)) and point.time == pytest.approx(1, abs=0.2)
