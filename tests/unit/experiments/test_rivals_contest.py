"""The contest with each optimiser: the committed runs are those that the rule asks for; verdicts follow from errors."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from bnlib import figures
from bnlib.experiments.framework.experiment import rounded
from bnlib.experiments.framework.registry import EXPERIMENTS
from bnlib.experiments.framework.results import read_result
from bnlib.experiments.full_normalization import rivals, rivals_contest, rivals_selection

OPTIMISERS = [name for name in rivals.OPTIMISERS if f"full_normalization.rivals_{name.lower()}" in EXPERIMENTS]
EACH = pytest.mark.parametrize("optimiser", OPTIMISERS)
PLACES = rivals_contest.places("SGD")
PARTS = rivals_selection.PARTS


def test_the_places_are_those_of_the_contest():
    assert sorted(rivals_selection.ORDER) == sorted(rivals.places()) == sorted(PLACES)
    assert len(set(rivals_selection.ORDER)) == 17 and rivals_selection.PARTS.keys() == rivals.OPTIMISERS.keys()
    for parts in rivals_selection.PARTS.values():
        places = [place for part in parts.values() for place in part]
        assert places == list(rivals_selection.ORDER[: len(places)]), "parts follow one another in the order"


@EACH
def test_the_runs_are_those_that_the_rule_asks_for(optimiser):
    found, errors = rivals_contest.places(optimiser), rivals_contest.errors(optimiser)
    assert sorted(found) == sorted(place for part in PARTS[optimiser].values() for place in part) == sorted(errors)
    assert all(errors[place].keys() == rivals.NORMS.keys() for place in found)
    assert {len(values) for of in errors.values() for values in of.values()} == {5}
    asked = {cell for cell in rivals.selection_cells(optimiser) if cell[2:4] in found}
    assert rivals_selection.rows(optimiser).keys() == asked
    for kind, part in product((rivals_selection, rivals_contest), PARTS[optimiser]):
        experiment = kind.experiment(*filter(None, (optimiser, part)))  # as its file calls it, since it is cached
        assert experiment.load().keys() == experiment.cells("quick").keys()
        runs = [run for cell in experiment.cells("quick").values() for run in cell]
        assert {run.optimiser for run in runs} == {rivals.OPTIMISERS[optimiser]}
        assert EXPERIMENTS[experiment.name] is experiment and optimiser.lower() + part in experiment.name


def test_rounded_errors_are_exact_again():
    shares = [Fraction(count, 287) for count in range(288)]
    row = {"train_loss": [[2.0, 0.1]] * 288, "test_error": [[0.9, *rounded([float(share)])] for share in shares]}
    assert rivals_selection.errors_at_the_end(row, 287) == shares


def test_a_run_that_diverged_has_no_error_and_counts_as_guessing():
    row = {"train_loss": [[2.3, None], [2.3, 0.2]], "test_error": [[0.9, 0.1], [0.9, 0.1003]]}
    assert rivals_selection.errors_at_the_end(row, 359) == [None, Fraction(36, 359)]
    assert rivals_contest.mean_error([None, 0.1]) == pytest.approx(50)


@EACH
def test_no_other_pair_of_setting_and_rate_is_better_in_the_selection(optimiser):
    images = len(rivals.selection_images().test_y)
    wrong = {
        cell: sum(90 * images if end is None else 100 * images * end for end in ends)
        for cell, row in rivals_selection.rows(optimiser).items()
        for ends in [rivals_selection.errors_at_the_end(row, images)]
    }
    for (norm, construction, size), (setting, lr) in rivals_selection.chosen(optimiser).items():
        tried = {cell: value for cell, value in wrong.items() if (cell[0], *cell[2:4]) == (norm, construction, size)}
        assert len(tried) == 10
        equal = [cell for cell, value in tried.items() if value == min(tried.values())]
        assert equal[0] == (norm, setting, construction, size, lr)


def test_the_verdicts_follow_from_the_errors(monkeypatch):
    place = PLACES[0]
    far, near = [0.5, 0.51, 0.52, 0.5, 0.51], [0.01, 0.011, 0.012, 0.01, 0.011]
    errors = {norm: far for norm in rivals.NORMS}
    for better, expected in (("Full Norm", "wins"), ("batch norm", "loses")):
        monkeypatch.setattr(
            rivals_contest, "errors", lambda optimiser, scale="quick", b=better: {place: errors | {b: near}}
        )
        assert rivals_contest.verdicts("SGD") == {place: expected}
        assert [row["verdict"] for row in rivals_contest.verdict_rows("SGD")] == [expected]
        assert best_norms(place) == [rivals_contest.COMPARED[better]]
    monkeypatch.setattr(rivals_contest, "errors", lambda optimiser, scale="quick": {place: errors})
    assert rivals_contest.verdicts("SGD") == {place: "among the best"}
    assert len(best_norms(place)) == 11


def best_norms(place):
    """Return the norms whose row in the table has the batch size of a place."""
    return [row["norm"] for row in rivals_contest.best_rows("SGD") if str(place[1]) in row[place[0]].split(", ")]


def test_where_no_norm_learns_the_tables_and_the_picture_count_nothing(monkeypatch):
    guessing, little = [0.9, 0.85, None], [0.8, 0.8, 0.79]
    hopeless, learned = ("sorted stream", 4), ("shuffled", 4)
    errors = {
        hopeless: {norm: guessing for norm in rivals.NORMS},
        learned: {norm: guessing for norm in rivals.NORMS} | {"batch norm": little},
    }
    monkeypatch.setattr(rivals_contest, "errors", lambda optimiser, scale="quick": errors)
    assert not rivals_contest.some_norm_learns("SGD", *hopeless) and rivals_contest.some_norm_learns("SGD", *learned)
    assert rivals_contest.verdicts("SGD") == {learned: "loses", hopeless: "among the best"}
    assert [row["verdict"] for row in rivals_contest.verdict_rows("SGD")] == ["loses", "no norm learns"]
    assert rivals_contest.best_rows("SGD")[0].keys() == {"norm", "shuffled"} and best_norms(learned) == ["BN"]
    assert rivals_contest.errors_and_times("SGD").keys() == {"shuffled"}
    rows = rivals_contest.mean_error_rows("SGD", {"Full Norm": "FN", "batch norm": "BN"})
    assert rows == [{"batches": "shuffled, 4", "FN": "88.3", "BN": "79.7\N{NO-BREAK SPACE}✓"}]


@EACH
def test_a_star_marks_a_rate_at_an_end_of_its_grid(optimiser):
    chosen = rivals_selection.chosen(optimiser)
    for norm, construction, size in chosen:
        rates = rivals.learning_rates(optimiser, size)
        inside = chosen[norm, construction, size][1] in rates[1:-1]
        assert rivals_contest.at_an_end_of_the_grid(optimiser, norm, construction, size) != inside


def test_the_table_has_the_errors_and_the_verdict_at_each_place():
    rows = rivals_contest.verdict_rows("SGD")
    assert [row["batches"] for row in rows] == [f"{construction}, {size}" for construction, size in PLACES]
    for place, row in zip(PLACES, rows, strict=True):
        learned = rivals_contest.some_norm_learns("SGD", *place)
        assert row["verdict"] == (rivals_contest.verdicts("SGD")[place] if learned else "no norm learns")
        for norm, name in rivals_contest.COMPARED.items():
            errors = [rivals.WORST if value is None else value for value in rivals_contest.errors("SGD")[place][norm]]
            mean = f"{rivals_contest.mean_error(errors):.1f}" + "*" * rivals_contest.at_an_end_of_the_grid(
                "SGD", norm, *place
            )
            assert row[name] == f"{mean} ({100 * min(errors):.1f}–{100 * max(errors):.1f})"


def test_the_table_of_the_best_norms_has_each_place_where_a_norm_learns():
    rows = rivals_contest.best_rows("SGD")
    assert len(rows) == len(rivals.NORMS)
    for place in filter(lambda place: rivals_contest.some_norm_learns("SGD", *place), PLACES):
        found = rivals.best(rivals_contest.errors("SGD")[place])
        assert set(best_norms(place)) == {rivals_contest.COMPARED.get(norm, norm) for norm in found}


def test_the_tables_of_all_optimisers_have_what_those_of_one_have():
    rows = rivals_contest.optimiser_rows(OPTIMISERS)
    assert [row["batches"] for row in rows] == [f"{construction}, {size}" for construction, size in rivals.places()]
    for optimiser in OPTIMISERS:
        single = {row["batches"]: row for row in rivals_contest.verdict_rows(optimiser)}
        for row in rows:
            own = single.get(row["batches"])
            assert row[optimiser] == ("–" if own is None else f"{own['verdict']}, {own['FN']}")


def test_the_counts_of_best_norms_are_those_of_the_places_that_all_optimisers_share(monkeypatch):
    good, bad, hopeless = [0.01] * 5, [0.3] * 5, [0.9] * 5
    errors = {
        "SGD": {
            ("shuffled", 4): dict.fromkeys(rivals.NORMS, bad) | {"Full Norm": good},
            ("shuffled", 1): dict.fromkeys(rivals.NORMS, bad) | {"Full Norm": good},
        },
        "Adam": {
            ("shuffled", 4): dict.fromkeys(rivals.NORMS, good),
            ("one label", 4): {"FRN": good, "batch norm": bad},
        },
    }
    monkeypatch.setattr(rivals_contest, "errors", lambda optimiser, scale="quick": errors[optimiser])
    rows = {row["norm"]: row for row in rivals_contest.best_count_rows(["SGD", "Adam"])}
    assert rows["FN"] == {"norm": "FN", "SGD, of 1": 1, "Adam, of 1": 1}
    assert rows["FRN"] == {"norm": "FRN", "SGD, of 1": 0, "Adam, of 1": 1} and len(rows) == 11
    errors["Adam"]["shuffled", 4] = dict.fromkeys(rivals.NORMS, hopeless)
    assert rivals_contest.best_count_rows(["SGD", "Adam"])[0] == {"norm": "FN", "SGD, of 1": 1, "Adam, of 0": 0}


@EACH
def test_the_counts_of_verdicts_are_those_of_the_places(optimiser):
    (row,) = rivals_contest.verdict_count_rows([optimiser])
    verdicts, chosen = rivals_contest.verdicts(optimiser), rivals_selection.chosen(optimiser)
    learned = [place for place in verdicts if rivals_contest.some_norm_learns(optimiser, *place)]
    lowest = [chosen["Full Norm", *at][1] == rivals.learning_rates(optimiser, at[1])[0] for at in learned]
    assert row.pop("optimiser") == optimiser and row.pop("cases") == len(verdicts) == sum(row.values()) - sum(lowest)
    assert row.pop("no norm learns") == len(verdicts) - len(learned) and row.pop("lowest rate") == sum(lowest)
    assert row == {name: sum(verdicts[at] == name for at in learned) for name in ("wins", "among the best", "loses")}


def test_the_benchmark_has_all_norms_and_shows_its_noise():
    rows = read_result("benchmarks/rivals_cpu", "python benchmarks/rivals.py --save")["rows"]
    assert {(row["norm"], row["batch_size"]) for row in rows} == {
        (norm, size) for norm in ("noise", *rivals.NORMS) for size in rivals.BATCH_SIZES
    }
    assert all(0.8 < row["quartiles_of_ratio"][1] < 1.25 for row in rows if row["norm"] in ("noise", "batch norm"))
    assert all(row["state_bytes"] == 0 for row in rows if row["norm"] in ("layer norm", "without normalisation"))


def test_the_picture_shows_each_norm_and_names_those_that_no_other_one_beats():
    data = rivals_contest.errors_and_times("SGD")
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
    monkeypatch.setattr(rivals_contest, "errors", lambda optimiser, scale="quick": errors)
    point = rivals_contest.errors_and_times("SGD")["shuffled"]["batch norm"]
    assert point[1:] == pytest.approx((40, 20, 70)) and point.time == pytest.approx(1, abs=0.2)
