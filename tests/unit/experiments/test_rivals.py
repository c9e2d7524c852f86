"""The contest of Full Normalization and its rivals: the rule, which no result may change."""

import pytest
import torch

from bnlib import datasets, sweep, training
from bnlib.experiments.full_normalization import rivals

SETTINGS = [(norm, setting) for norm, settings in rivals.NORMS.items() for setting in settings]


def test_each_norm_has_two_settings_and_each_place_five_rates():
    assert len(rivals.NORMS) == 11 and all(len(settings) == 2 for settings in rivals.NORMS.values())
    assert len(rivals.places()) == len(set(rivals.places())) == 17
    for optimiser in rivals.OPTIMISERS:
        for size in rivals.BATCH_SIZES:
            rates = rivals.learning_rates(optimiser, size)
            assert len(rates) == 5 and list(rates) == sorted(rates)


def test_the_cells_of_the_selection_are_complete():
    cells = rivals.selection_cells("SGD")
    assert len(cells) == 11 * 2 * 17 * 5
    assert {len(runs) for runs in cells.values()} == {2}
    assert {len(run.load().test_y) for runs in list(cells.values())[::97] for run in runs} == {287}


def test_no_test_image_and_no_seed_of_the_test_is_used_for_the_selection():
    all_images, chosen = datasets.digits(), rivals.selection_images()
    assert len(chosen.train_x) + len(chosen.test_x) == len(all_images.train_x)
    rows = {tuple(image.flatten().tolist()) for image in all_images.train_x}
    assert all(tuple(image.flatten().tolist()) in rows for image in (*chosen.train_x, *chosen.test_x))
    assert len(chosen.test_y.unique()) == 10 and len(chosen.test_y) == 287
    assert not set(rivals.SEEDS) & set(rivals.SELECTION_SEEDS)


def test_a_sorted_stream_shows_one_label_after_another():
    run = rivals.runs("SGD", "batch norm", "momentum 0.1", "sorted stream", 16, 0.1, selection=False)[0]
    data = run.load()
    batches = run.batches(data.train_y, run.batch_size, run.seed)
    labels = torch.cat([data.train_y[next(batches)] for _ in range(len(data.train_y) // 16)])
    assert (labels.diff() >= 0).all() and labels.unique().tolist() == list(range(10))
    assert torch.equal(data.test_x, datasets.digits().test_x)


@pytest.mark.parametrize(("norm", "setting"), SETTINGS)
def test_every_norm_learns_from_single_images(norm, setting):
    model = rivals.model(norm, setting, seed=0)
    data = rivals.selection_images()
    optimiser = torch.optim.SGD(model.parameters(), 0.003)
    before = [value.clone() for value in model.parameters()]
    for image, label in zip(data.train_x[:3], data.train_y[:3], strict=True):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(image[None]), label[None]).backward()
        optimiser.step()
    assert all(value.isfinite().all() for value in model.parameters())
    assert any(not torch.equal(value, old) for value, old in zip(model.parameters(), before, strict=True))
    assert 0 <= training.error_rate(model, data.test_x, data.test_y) <= 1


def test_all_norms_begin_with_the_same_convolutions_and_see_the_same_batches():
    plain = rivals.model("without normalisation", "PyTorch init", seed=3)
    for norm, setting in SETTINGS:
        model = rivals.model(norm, setting, seed=3)
        assert torch.equal(model[-1].weight, plain[-1].weight), norm
        weights = [value for name, value in model.named_parameters() if value.shape == (8, 1, 3, 3)]
        assert len(weights) == 1
        if norm not in ("Moving Average BN", "weight standardisation + GN"):  # which hold the weights in another form
            assert torch.equal(weights[0], plain[0].weight), norm


def test_a_branch_that_begins_with_0_is_its_skip_connection():
    model = rivals.model("without normalisation", rivals.BRANCHES_OF_0, seed=0)
    assert model[2].residual(torch.randn(2, 8, 8, 8)).abs().max() == 0
    assert (
        rivals.model("without normalisation", "PyTorch init", seed=0)[2].residual(torch.randn(2, 8, 8, 8)).abs().max()
        > 0
    )


def test_the_pair_with_the_smallest_mean_is_chosen_and_a_divergence_counts_as_guessing():
    assert rivals.choose({("a", 0.1): [0.1, 0.5], ("b", 0.1): [0.2, 0.3]}) == ("b", 0.1)
    assert rivals.choose({("a", 0.1): [0.1, None], ("b", 0.1): [0.6, 0.3]}) == ("b", 0.1)
    assert rivals.choose({("a", 0.1): [0.2], ("b", 0.1): [0.2]}) == ("a", 0.1)


def test_the_best_norms_are_those_that_the_first_is_not_better_than():
    near, far = [0.020, 0.024, 0.022, 0.021, 0.023], [0.040, 0.044, 0.042, 0.041, 0.043]
    assert rivals.best({"far": far, "Full Norm": near}) == ["Full Norm"]
    assert rivals.verdict({"far": far, "Full Norm": near}) == "wins"
    assert rivals.verdict({"near": near, "Full Norm": far}) == "loses"
    noisy = [0.01, 0.09, 0.02, 0.08, 0.03]
    assert rivals.best({"near": near, "noisy": noisy}) == ["near", "noisy"]
    assert rivals.verdict({"near": near, "Full Norm": noisy}) == "among the best"
    assert rivals.best({"a": [None, None], "b": [0.1, 0.1]}) == ["b"]
    # By hand: the means differ by 0.004, the standard error is sqrt(2 x 2.5e-6 / 5) = 0.001, and the bound is 2.776.
    shifted = [value + 0.004 for value in near]
    assert rivals.best({"near": near, "shifted": shifted}) == ["near"]
    assert rivals.best({"near": near, "shifted": [value + 0.0027 for value in near]}) == ["near", "shifted"]


def test_runs_with_small_inputs_are_stacked():
    few = rivals.runs("SGD", "batch norm", "momentum 0.1", "shuffled", 64, 0.1, selection=True)
    assert len(sweep._chunks(few, 64, "cpu")) == 1
