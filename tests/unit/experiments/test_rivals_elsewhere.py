"""The contest on Fashion-MNIST and on workers: the committed runs follow from the selections, the table from both."""

import numpy as np
import pytest

from bnlib.experiments.full_normalization import (
    rivals,
    rivals_contest,
    rivals_elsewhere,
    rivals_images,
    rivals_images_selection,
    rivals_on_images,
    rivals_on_workers,
    rivals_workers,
    rivals_workers_selection,
)
from bnlib.experiments.full_normalization.rivals_selection import errors_at_the_end

EACH = pytest.mark.parametrize("part", rivals_elsewhere.PARTS)


def in_selection(part):
    """The errors of each cell of a selection, None for a run that diverged, and the number of images kept apart."""
    if part in rivals_on_workers.WAYS:
        rows, images = rivals_workers_selection.experiment(part).load(), 287
        return {
            cell: rivals_workers_selection.exact_errors(row["test_error"], images) for cell, row in rows.items()
        }, images
    rows, images = rivals_images_selection.EXPERIMENT.load(), 1000
    return {cell: errors_at_the_end(row, images) for cell, row in rows.items()}, images


@EACH
def test_no_other_pair_of_setting_and_rate_is_better_in_the_selection(part):
    errors, images = in_selection(part)
    wrong = {
        cell: sum(90 * images if end is None else 100 * images * end for end in ends) for cell, ends in errors.items()
    }
    assert len(wrong) == 11 * 10 * len(rivals_elsewhere.errors(part)) and {len(ends) for ends in errors.values()} == {2}
    for (norm, kind, size), (setting, lr) in rivals_elsewhere.chosen(part).items():
        tried = {cell: value for cell, value in wrong.items() if (cell[0], *cell[2:4]) == (norm, kind, size)}
        assert len(tried) == 10
        assert next(cell for cell in tried if tried[cell] == min(tried.values())) == (norm, setting, kind, size, lr)


@EACH
def test_the_test_has_the_chosen_pairs_with_five_seeds(part):
    experiment = rivals_workers.experiment(part) if part in rivals_on_workers.WAYS else rivals_images.EXPERIMENT
    pairs = {(norm, setting, *place, lr) for (norm, *place), (setting, lr) in rivals_elsewhere.chosen(part).items()}
    assert experiment.load().keys() == pairs
    for of in rivals_elsewhere.errors(part).values():
        assert of.keys() == rivals.NORMS.keys() and {len(values) for values in of.values()} == {5}


def test_the_places_are_those_of_the_rules():
    for part in rivals_elsewhere.PARTS:
        places = list(rivals_elsewhere.errors(part))
        if part in rivals_on_workers.WAYS:
            assert sorted(places) == [(part, 4), (part, 16)]
        else:
            assert sorted(places) == sorted(rivals_on_images.PLACES)


def test_errors_are_exact_again():
    shares = np.arange(361) / 360
    rounded = np.array([float(f"{share:.4g}") for share in shares])
    assert [float(each) for each in rivals_workers_selection.exact_errors(rounded, 360)] == shares.tolist()
    assert rivals_workers_selection.exact_errors(np.array([np.nan]), 360) == [None]


@EACH
def test_a_star_marks_a_rate_at_an_end_of_its_grid(part):
    for (norm, *place), (_, lr) in rivals_elsewhere.chosen(part).items():
        tried = {cell[4] for cell in in_selection(part)[0] if (cell[0], *cell[2:4]) == (norm, *place)}
        assert len(tried) == 5
        assert rivals_elsewhere.at_an_end_of_the_grid(part, norm, tuple(place)) == (lr in (min(tried), max(tried)))


def test_the_table_has_the_verdict_and_the_errors_of_each_place():
    rows, places = (
        rivals_elsewhere.verdict_rows(),
        [(part, place) for part in rivals_elsewhere.PARTS for place in rivals_elsewhere.errors(part)],
    )
    for row, (part, place) in zip(rows, places, strict=True):
        errors = rivals_elsewhere.errors(part)[place]
        learned = min(map(rivals_contest.mean_error, errors.values())) < 80
        assert row["verdict"] == (rivals.verdict(errors) if learned else "no norm learns")
        for norm, name in rivals_contest.COMPARED.items():
            values = [rivals.WORST if value is None else value for value in errors[norm]]
            assert row[name].replace("*", "") == (
                f"{100 * np.mean(values):.1f} ({100 * min(values):.1f}–{100 * max(values):.1f})"
            )
            assert ("*" in row[name]) == rivals_elsewhere.at_an_end_of_the_grid(part, norm, place)
