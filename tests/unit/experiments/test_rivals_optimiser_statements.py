"""What chapters 5 and 9 say of the contest with momentum and with Adam, most of it in batches of four and more."""

import numpy as np
import pytest

from bnlib.experiments.full_normalization import rivals, rivals_contest, rivals_selection


def verdicts(optimiser):
    """The verdicts on Full Normalization in batches of four and more."""
    return {place: told for place, told in rivals_contest.verdicts(optimiser).items() if place[1] >= 4}


MOMENTUM, ADAM = (
    {place: rivals.best(rivals_contest.errors(each)[place]) for place in verdicts(each)}
    for each in ("momentum", "Adam")
)
STANDARDISED, MOVING, ONLINE = "weight standardisation + GN", "Moving Average BN", "Online Norm"


def learned(optimiser):
    """The places where a norm learns: all with SGD, those in batches of four and more otherwise."""
    places = rivals_contest.places("SGD") if optimiser == "SGD" else verdicts(optimiser)
    return [place for place in places if rivals_contest.some_norm_learns(optimiser, *place)]


def mean(optimiser, norm, *place):
    return rivals_contest.mean_error(rivals_contest.errors(optimiser)[place][norm])


def test_with_momentum_full_normalization_wins_nowhere_and_loses_five_times():
    told = verdicts("momentum")
    assert {size for _, size in told} == {4, 16, 64} and len(told) == 12 and "wins" not in told.values()
    assert [place for place in told if told[place] == "loses"] == [
        ("shuffled", 64),
        ("two labels", 4),
        ("one label", 64),
        ("sorted stream", 16),
        ("sorted stream", 64),
    ]
    assert set(told) - set(learned("momentum")) == {("sorted stream", 4)}


def test_with_momentum_online_norm_is_always_among_the_best():
    best = [MOMENTUM[place] for place in learned("momentum")]
    counts = {norm: sum(norm in each for each in best) for norm in rivals.NORMS}
    assert len(best) == 11 and counts[ONLINE] == 11 and counts[STANDARDISED] == 10 and counts["Full Norm"] == 6
    assert [place for place in learned("momentum") if STANDARDISED not in MOMENTUM[place]] == [("two labels", 4)]
    assert max(count for norm, count in counts.items() if norm not in (ONLINE, STANDARDISED)) == 9


def test_with_adam_full_normalization_wins_nowhere_and_loses_twice():
    told = verdicts("Adam")
    assert told.keys() == verdicts("momentum").keys() and "wins" not in told.values()
    assert [place for place in told if told[place] == "loses"] == [("two labels", 64), ("sorted stream", 64)]
    assert set(told) - set(learned("Adam")) == {("sorted stream", 4), ("sorted stream", 16)}


def test_the_best_norms_with_adam():
    best = [ADAM[place] for place in learned("Adam")]
    counts = {norm: sum(norm in each for each in best) for norm in rivals.NORMS}
    assert len(best) == 10 and counts[ONLINE] == counts[MOVING] == 9
    assert counts[STANDARDISED] == counts["Full Norm"] == 8
    assert max(count for norm, count in counts.items() if norm not in (ONLINE, MOVING, STANDARDISED, "Full Norm")) == 7
    with_sgd = [rivals.best(rivals_contest.errors("SGD")[place]) for place in learned("SGD")]
    assert len(with_sgd) == 13 and sum(ONLINE in each for each in with_sgd) == 8
    assert ADAM["one label", 64][0] == "Full Norm" and len(ADAM["one label", 64]) == 4
    assert np.isclose(mean("Adam", "Full Norm", "one label", 64), 43.7, atol=0.051)
    assert np.isclose(mean("Adam", "Full Norm", "shuffled", 16), 4.1, atol=0.051)


def test_batches_of_one_or_two_labels_in_the_table_of_chapter_9():
    for best, most in ((MOMENTUM, 4), (ADAM, 5)):
        few = [best[place] for place in best if place[0] in ("one label", "two labels")]
        assert len(few) == 6 and all(ONLINE in each for each in few)
        assert sum("Full Norm" in each for each in few) == most


def lowest(optimiser):
    """The norms and places whose chosen rate is the lowest of its grid, where a norm learns."""
    chosen = rivals_selection.chosen(optimiser)
    keys = [(norm, *place) for norm in rivals.NORMS for place in learned(optimiser)]
    return [key for key in keys if chosen[key][1] == rivals.learning_rates(optimiser, key[2])[0]]


@pytest.mark.parametrize(("optimiser", "edges", "of"), [("SGD", 5, 13), ("momentum", 3, 11), ("Adam", 6, 10)])
def test_where_the_chosen_rate_of_full_normalization_is_the_lowest(optimiser, edges, of):
    places, found = learned(optimiser), lowest(optimiser)
    assert len(places) == of and sum(norm == "Full Norm" for norm, *_ in found) == edges
    ends = [at for at in places if rivals_contest.at_an_end_of_the_grid(optimiser, "Full Norm", *at)]
    assert len(ends) == edges
    if optimiser == "Adam":
        assert len(found) == 51 and len(places) * len(rivals.NORMS) == 110


def test_momentum_lowers_the_errors_of_full_normalization_in_batches_of_16():
    for construction, errors in {"shuffled": (22.2, 2.7), "two labels": (34.9, 4.7), "one label": (43.1, 16.1)}.items():
        found = [mean(optimiser, "Full Norm", construction, 16) for optimiser in ("SGD", "momentum")]
        assert np.allclose(found, errors, atol=0.051), construction


@pytest.mark.parametrize("size", [4, 16])
def test_with_momentum_full_normalization_is_better_than_bn_in_small_batches_of_one_label(size):
    both = ("Full Norm", "batch norm")
    better = {
        place: rivals.best({norm: rivals_contest.errors("momentum")[place][norm] for norm in both})
        for place in verdicts("momentum")
    }
    assert better["one label", size] == ["Full Norm"]
    assert [place for place in better if better[place] == ["Full Norm"]] == [("one label", 4), ("one label", 16)]


def in_selection(optimiser):
    """The errors (%) of the chosen settings and rates on the images kept apart, by norm and place."""
    images, rows = len(rivals.selection_images().test_y), rivals_selection.rows(optimiser)
    return {
        (norm, *place): [
            100 * (rivals.WORST if each is None else float(each))
            for each in rivals_selection.errors_at_the_end(rows[norm, setting, *place, rate], images)
        ]
        for (norm, *place), (setting, rate) in rivals_selection.chosen(optimiser).items()
    }


def highest_in_the_test(optimiser):
    """The highest test error (%) by norm and place where the two errors in the selection are below 10 %."""
    return {
        (norm, *place): 100
        * max(rivals.WORST if each is None else each for each in rivals_contest.errors(optimiser)[place][norm])
        for (norm, *key), selected in in_selection(optimiser).items()
        if max(selected) < 10
        for place in [tuple(key)]
    }


def test_with_momentum_and_adam_a_selection_with_two_seeds_is_enough():
    plain, *others = (highest_in_the_test(each) for each in ("SGD", "momentum", "Adam"))
    assert {key for key, error in plain.items() if error > 60} == {
        ("Full Norm", "shuffled", 16),
        *((norm, "shuffled", 64) for norm in ("batch norm", "Batch Renorm", STANDARDISED)),
        (STANDARDISED, "two labels", 16),
    }
    momentum, adam = (sorted(of.values()) for of in others)
    assert min(len(plain), len(momentum), len(adam)) > 41
    assert 18.5 < momentum[-1] < 19 and 21 < adam[-1] < 21.5


@pytest.mark.parametrize("limit", [62, 80])
def test_the_limit_of_learning_does_not_change_the_counts(limit, monkeypatch):
    optimisers = list(rivals.OPTIMISERS)
    rows = rivals_contest.verdict_count_rows(optimisers), rivals_contest.best_count_rows(optimisers)
    monkeypatch.setattr(rivals_contest, "LEARNED", limit)
    assert rows == (rivals_contest.verdict_count_rows(optimisers), rivals_contest.best_count_rows(optimisers))


@pytest.mark.parametrize(("optimiser", "losses", "of"), [("SGD", 4, 7), ("Adam", 2, 2)])
def test_how_many_losses_are_at_the_lowest_rate(optimiser, losses, of):
    lost = [at for at in learned(optimiser) if rivals_contest.verdicts(optimiser)[at] == "loses"]
    assert len(lost) == of and sum(("Full Norm", *at) in lowest(optimiser) for at in lost) == losses


def test_in_batches_of_one_label_with_adam():
    found = {size: rivals.best(rivals_contest.errors("Adam")["one label", size]) for size in (2, 4, 16, 64)}
    assert all("Full Norm" in best for best in found.values())
    assert [size for size, best in found.items() if STANDARDISED not in best] == [64]


@pytest.mark.parametrize("optimiser", ["momentum", "Adam"])
def test_full_normalization_is_among_the_best_in_batches_of_one_and_two_wherever_a_norm_learns(optimiser):
    small = [place for place in rivals_contest.places(optimiser) if place[1] <= 2]
    told = {place for place in small if rivals_contest.some_norm_learns(optimiser, *place)}
    assert len(small) == 5 and told == {("shuffled", 1), ("shuffled", 2), ("one label", 2)}
    assert {rivals_contest.verdicts(optimiser)[place] for place in told} == {"among the best"}
