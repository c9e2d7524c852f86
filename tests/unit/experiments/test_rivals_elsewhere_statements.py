"""What chapter 5 says of the contest on Fashion-MNIST and on workers, and more of its results."""

from bnlib.experiments.full_normalization import (
    rivals,
    rivals_contest,
    rivals_elsewhere,
    rivals_on_workers,
    rivals_workers_selection,
)

ERRORS = {place: of for part in rivals_elsewhere.PARTS for place, of in rivals_elsewhere.errors(part).items()}
VERDICTS = {place: word for part in rivals_elsewhere.PARTS for place, word in rivals_elsewhere.verdicts(part).items()}


def test_full_normalization_wins_nowhere_and_loses_in_six_of_eight_cases():
    assert VERDICTS == {
        ("shuffled", 4): "loses",
        ("shuffled", 16): "among the best",
        ("one label", 4): "loses",
        ("one label", 16): "among the best",
        ("local steps", 4): "loses",
        ("local steps", 16): "loses",
        ("joined gradients", 4): "loses",
        ("joined gradients", 16): "loses",
    }


def test_one_norm_is_among_the_best_in_all_cases_with_lower_means():
    often = {norm: len(rivals_elsewhere.where_among_the_best(norm)) for norm in rivals.NORMS}
    assert often.pop("weight standardisation + GN") == len(ERRORS) == 8
    assert often.pop("Moving Average BN") == 6 > max(often.values())
    for of in ERRORS.values():
        means = {norm: rivals_contest.mean_error(values) for norm, values in of.items()}
        assert means["weight standardisation + GN"] < means["Full Norm"]


def test_one_case_of_48_has_a_winner():
    cases = {
        (each, place): of
        for each in rivals.OPTIMISERS
        for place, of in rivals_contest.errors(each).items()
        if rivals_contest.some_norm_learns(each, *place)
    } | ERRORS
    alone = {case: best for case, best in ((case, rivals.best(of)) for case, of in cases.items()) if len(best) == 1}
    assert len(cases) == 48 and alone == {("SGD", ("one label", 64)): ["weight standardisation + GN"]}


def test_one_selection_for_workers_misses_an_instability():
    unstable = []
    for way in rivals_on_workers.WAYS:
        rows = rivals_workers_selection.experiment(way).load()
        for (norm, _, size), (setting, lr) in rivals_workers_selection.chosen(way).items():
            tested = [rivals.WORST if each is None else each for each in ERRORS[way, size][norm]]
            if max(rows[norm, setting, way, size, lr]["test_error"]) < 0.1 and max(tested) > 0.6:
                unstable.append((norm, way, size, sum(each > 0.6 for each in tested)))
    assert unstable == [("Online Norm", "joined gradients", 4, 1)]


def test_full_normalization_is_better_than_batch_norm_with_one_label_only():
    both = ("Full Norm", "batch norm")
    found = {place: rivals.best({norm: of[norm] for norm in both}) for place, of in ERRORS.items()}
    assert [place for place in found if found[place] == ["Full Norm"]] == [("one label", 4), ("one label", 16)]


def test_the_chosen_rate_of_full_normalization_is_twice_the_lowest():
    ends = {
        place: rivals_elsewhere.chosen(part)["Full Norm", *place][1]
        for part in rivals_elsewhere.PARTS
        for place in rivals_elsewhere.errors(part)
        if rivals_elsewhere.at_an_end_of_the_grid(part, "Full Norm", place)
    }
    assert ends == {("one label", 16): 0.03, ("local steps", 4): 0.03}
    assert rivals.learning_rates("SGD", 16)[0] == rivals_on_workers.LEARNING_RATES[0] == 0.03
