"""What chapter 5 says of the contest on Fashion-MNIST and on workers, in "Against ten other norms"."""

from bnlib.experiments.full_normalization import rivals, rivals_contest, rivals_elsewhere, rivals_on_workers

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
