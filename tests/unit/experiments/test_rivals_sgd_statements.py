"""What chapters 5 and 9 say of the contest with plain SGD, and more of its results."""

import numpy as np
import pytest

from bnlib.experiments.full_normalization import rivals, rivals_contest, rivals_selection

CONTEST, VERDICTS = rivals_contest.errors("SGD"), rivals_contest.verdicts("SGD")
MEANS = {place: {norm: rivals_contest.mean_error(of[norm]) for norm in of} for place, of in CONTEST.items()}
LEARNED = [place for place in VERDICTS if rivals_contest.some_norm_learns("SGD", *place)]
BEST = {place: rivals.best(CONTEST[place]) for place in LEARNED}
STANDARDISED, MOVING = "weight standardisation + GN", "Moving Average BN"


def test_full_normalization_wins_nowhere_and_loses_seven_times():
    assert len(VERDICTS) == 17 and "wins" not in VERDICTS.values()
    assert [place for place in VERDICTS if VERDICTS[place] == "loses"] == [
        ("shuffled", 4),
        *[("two labels", size) for size in (16, 64)],
        *[("one label", size) for size in (4, 16, 64)],
        ("sorted stream", 64),
    ]
    assert len(LEARNED) == 13 and sum("Full Norm" in each for each in BEST.values()) == 6
    assert 5 == sum(rivals_contest.at_an_end_of_the_grid("SGD", "Full Norm", *place) for place in LEARNED)


def test_no_norm_learns_from_a_sorted_stream_in_small_batches():
    hopeless = [place for place in VERDICTS if place not in LEARNED]
    assert hopeless == [("sorted stream", size) for size in (1, 2, 4, 16)]
    assert all(min(MEANS[place].values()) > 85 for place in hopeless)
    assert all(min(MEANS[place].values()) < 60 for place in LEARNED)
    assert {VERDICTS[place] for place in hopeless} == {"among the best"}


def test_where_the_other_norms_are_among_the_best():
    assert [norm for norm in rivals.NORMS if all(norm in each for each in BEST.values())] == [STANDARDISED]
    assert all(MEANS[place][STANDARDISED] < MEANS[place]["Full Norm"] for place in LEARNED)
    missing = {
        "Batch Renorm": [("one label", size) for size in (4, 16, 64)],
        "batch norm": [("shuffled", 1), *[("one label", size) for size in (2, 4, 16, 64)]],
    }
    for norm, places in missing.items():
        assert [place for place in BEST if norm not in BEST[place]] == places
    assert all(MOVING in BEST[place] for place in [("shuffled", 1), ("one label", 16)])
    assert [size for size in (2, 4, 16, 64) if MOVING in BEST["one label", size]] == [2, 4, 16]


@pytest.mark.parametrize(
    ("norm", "told"),
    [
        ("Full Norm", {("shuffled", 1): (4.6, 13.4), ("one label", 2): (4.6, 22.4), ("one label", 4): (6.7, 26.3)}),
        (
            "batch norm",
            {("shuffled", 4): (6.7, 2.5), ("two labels", 16): (34.9, 6.0), ("sorted stream", 64): (88.7, 62.6)},
        ),
    ],
)
def test_where_full_normalization_and_batch_norm_differ(norm, told):
    """The mean errors (%) of Full Normalization and of batch norm, where ``norm`` is the better of the two."""
    both = ("Full Norm", "batch norm")
    assert [place for place in LEARNED if rivals.best({each: CONTEST[place][each] for each in both}) == [norm]] == list(
        told
    )
    for place, pair in told.items():
        assert np.allclose([MEANS[place][each] for each in both], pair, atol=0.051), place


def in_selection(norm: str, place: tuple[str, int]) -> list[float]:
    """The errors (%) of the chosen setting and rate on the images kept apart."""
    setting, rate = rivals_selection.chosen("SGD")[norm, *place]
    row = rivals_selection.experiment("SGD").load()[norm, setting, *place, rate]
    images = len(rivals.selection_images().test_y)
    return [100 * float(each) for each in rivals_selection.errors_at_the_end(row, images)]


def test_two_seeds_do_not_show_instability():
    unstable = ("shuffled", 16)
    assert sorted(map(round, in_selection("Full Norm", unstable))) == [6, 9]
    for norm, place, low, high in (
        ("Full Norm", unstable, 6, 69),
        ("batch norm", ("shuffled", 64), 1, 62),
        (MOVING, ("shuffled", 2), 1, 51),
    ):
        assert round(100 * min(CONTEST[place][norm])) == low and round(100 * max(CONTEST[place][norm])) == high


def test_full_normalization_in_large_batches():
    for size, error in ((16, 22), (64, 47)):
        assert round(MEANS["shuffled", size]["Full Norm"]) == error
    assert [round(min(MEANS[place].values())) for place in LEARNED if place[1] == 64] == [17, 32, 52, 58]
    of = CONTEST["shuffled", 64]
    better = [
        norm
        for norm in of
        if norm != "Full Norm" and rivals.best({each: of[each] for each in (norm, "Full Norm")}) == [norm]
    ]
    assert BEST["shuffled", 64][0] == "batch norm" and better == [MOVING, "layer norm"]


def test_the_grids_and_settings_of_full_normalization_end_early():
    chosen = rivals_selection.chosen("SGD")
    lowest = {
        norm: sum(chosen[norm, *at][1] == rivals.learning_rates("SGD", at[1])[0] for at in LEARNED)
        for norm in rivals.NORMS
    }
    assert lowest.pop("Full Norm") == 5 > max(lowest.values())
    assert sum(chosen["Full Norm", *at][0] == "alpha floor 0.1" for at in LEARNED) == 9
    assert sum("group norm" in each for each in BEST.values()) == 6


def test_the_picture_of_errors_and_times():
    points = rivals_contest.errors_and_times("SGD")
    lowest = {construction: min(of, key=lambda norm, of=of: of[norm].error) for construction, of in points.items()}
    assert lowest == {"shuffled": STANDARDISED, "two labels": "Batch Renorm", "one label": STANDARDISED}
    for of in points.values():
        assert 1.35 < of["Full Norm"].time < 1.45 and 1.05 < of[STANDARDISED].time < 1.15
        assert 1.4 < of["Batch Renorm"].time < 1.6 and 2.5 < of[MOVING].time < 3
