"""The experiments of chapter 1: what they measure, and how results are stored."""

import copy

import numpy as np
import pytest
import torch

import bnlib
from bnlib import datasets, models, training
from bnlib.experiments.formula import (
    batch_dependence,
    batch_noise,
    before_and_after,
    eps_and_small_variance,
    he_initialisation,
    running_statistics,
    training_curves,
)
from bnlib.experiments.framework import results


def test_predictions_in_train_mode_leave_the_model_unchanged():
    model = models.mlp((64, 10, 10), bnlib.BatchNorm).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    batch_dependence.train_mode_predictions(model, datasets.load("digits").test_x, batch_size=7, repeats=2)
    torch.testing.assert_close(model.state_dict(), before)
    assert not model.training


def test_predictions_without_bn_do_not_depend_on_the_batch():
    model, x = models.mlp((64, 10, 10)), datasets.load("digits").test_x
    predictions = batch_dependence.train_mode_predictions(model, x, batch_size=7, repeats=3)
    assert torch.equal(predictions, model(x).argmax(1)[:, None].expand(-1, 3))


def test_one_batch_of_all_samples_gives_the_predictions_of_the_full_batch():
    model, x = models.mlp((64, 10, 10), bnlib.BatchNorm), datasets.load("digits").test_x
    predictions = batch_dependence.train_mode_predictions(model, x, batch_size=len(x), repeats=2)
    assert torch.equal(predictions, model.train()(x).argmax(1)[:, None].expand(-1, 2))


def test_prediction_rows_count_errors_and_differences_from_eval_mode():
    train_mode = torch.tensor([[1, 1, 1, 1], [2, 2, 2, 0], [3, 0, 0, 0]])
    eval_mode, labels = torch.tensor([1, 2, 3]), torch.tensor([1, 2, 0])
    rows = batch_dependence.prediction_rows(train_mode, eval_mode, labels)
    assert [row["share (%)"] for row in rows] == pytest.approx([100 / 3, 100 * 2 / 12, 200 / 3, 25])


@pytest.mark.parametrize("batch_size", [2, 16, 256])
def test_batch_noise_has_the_spread_of_sampling_without_replacement(batch_size):
    noise = batch_noise.random_batches(batch_size)
    assert noise.means.std() == pytest.approx(batch_noise.expected_std_of_mean(batch_size), rel=0.06)
    assert noise.means.mean() == pytest.approx(noise.data_mean, abs=4 * noise.means.std() / 2000**0.5)


def test_image_0_is_in_every_batch_whose_outputs_are_returned():
    assert (batch_noise.random_batches(1).outputs == 0).all()
    for batch_size in (2, 4):
        assert np.abs(batch_noise.random_batches(batch_size).outputs).max() <= (batch_size - 1) ** 0.5
    assert np.median(np.abs(batch_noise.random_batches(2).outputs)) > 0.99  # +1 or -1, unless two values nearly agree
    assert batch_noise.random_batches(256).outputs.mean() == pytest.approx(
        batch_noise.random_batches(256).output_with_data_statistics, abs=0.02
    )


@pytest.mark.parametrize("batch_size", before_and_after.BATCH_SIZES)
def test_one_image_is_in_every_batch_and_bn_moves_it_to_other_places(batch_size):
    batches = [before_and_after.one_batch(batch_size, number) for number in before_and_after.BATCHES]
    assert {tuple(each.before[0]) for each in batches} == {
        (batch_noise.channel_values(0)[0], batch_noise.channel_values(1)[0])
    }
    for each, place in zip(batches, batches[0].in_all_batches, strict=True):
        layer = bnlib.BatchNorm(2).double()
        np.testing.assert_allclose(each.after, layer(torch.tensor(each.before)).detach(), atol=1e-9)
        np.testing.assert_array_equal(each.after[0], place)
        assert len(np.unique(each.before, axis=0)) == batch_size
    assert batches[0].in_all_batches.std(0).min() > 0.1


def test_running_statistics_start_at_0_and_1_and_reach_those_of_the_data():
    path = running_statistics.trajectory(64, 0.1, "torch", 200)
    assert path[0].tolist() == [0, 1] and len(path) == 201
    channel = batch_noise.channel_values()
    assert path[-50:].mean(0) == pytest.approx([channel.mean(), channel.var()], abs=0.05)


def test_pixel_gains_are_the_factors_of_batch_norm():
    x = datasets.load("digits").train_x.flatten(1).double()
    expected = eps_and_small_variance.pixel_gains(1e-3)
    y = bnlib.BatchNorm(64, eps=1e-3, dtype=torch.float64)(x).detach()
    np.testing.assert_allclose(y.var(0, unbiased=False).numpy(), expected.output_variances, atol=1e-12)
    np.testing.assert_allclose(y[0].numpy(), (x - x.mean(0))[0].numpy() * expected.gains, atol=1e-10)


def test_the_corner_pixel_is_black_in_every_training_image():
    assert datasets.load("digits").train_x[..., 0, 0].max() == 0
    assert eps_and_small_variance.pixel_variances()[0] == 0


def test_the_weights_after_a_pixel_that_never_varies_do_not_change_in_training():
    """The chapter says so of the pixel that makes the network fail; the linear layer is followed by BN."""
    norm = bnlib.BatchNorm(64)
    model = torch.nn.Sequential(torch.nn.Flatten(), norm, *models.mlp((64, 20, 10), bnlib.BatchNorm, seed=0))
    (linear,) = (each for each in model if isinstance(each, torch.nn.Linear) and each.in_features == 64)
    before = linear.weight.detach().clone()
    training.fit(model, datasets.load("digits"), batch_size=32, lr=0.1, epochs=1, seed=0, progress=False)
    change = (linear.weight - before).norm(dim=0)
    assert change[0] < 1e-5 and change[20] > 0.01
    assert abs(norm.bias[0]) < 1e-5 and norm.weight[0] == 1


def test_brightness_rows_have_a_column_per_brightness_with_one_error_per_seed():
    (row,) = eps_and_small_variance.brightness_rows({"BN": np.array([[0.1, 0.2], [0.3, 0.4]])}, (0, 1 / 16))
    columns = {header: list(values) for header, values in row.items() if header != "network"}
    assert columns == {
        ("brightness of the corner pixel", "0"): pytest.approx([10, 30]),
        ("brightness of the corner pixel", "1/16"): pytest.approx([20, 40]),
    }


def test_rows_of_the_grid_hold_the_best_learning_rate_of_each_network_and_batch_size():
    grids = {"PyTorch default": training_curves.load(), "He": he_initialisation.load()}
    medians = {
        (init, *cell): np.median([run[-1] for run in row["test_error"]])
        for init, grid in grids.items()
        for cell, row in grid.items()
    }
    rates = training_curves.LEARNING_RATES
    for size, row in zip(training_curves.BATCH_SIZES, he_initialisation.lowest_error_rows(), strict=True):
        for init in he_initialisation.INITS:
            for norm in training_curves.NORMS:
                if init == "He" and size not in he_initialisation.BATCH_SIZES:
                    assert row[norm, init] is None
                else:
                    assert np.median(row[norm, init]) == 100 * min(medians[init, norm, size, lr] for lr in rates)
    for norm in training_curves.NORMS:
        for init in he_initialisation.INITS:
            works = [lr for lr in rates if medians[init, norm, 32, lr] <= 0.06]
            assert he_initialisation.working_learning_rates(init, norm) == works
        assert training_curves.working_learning_rates(norm) == he_initialisation.working_learning_rates(
            "PyTorch default", norm
        )


def test_he_initialisation_is_that_of_he_and_all_else_is_alike():
    cells, default = he_initialisation.cells("quick"), training_curves.cells("quick")
    assert cells.keys() == {cell for cell in default if cell[1] in he_initialisation.BATCH_SIZES}
    he, usual = (each["without normalisation", 32, 0.1][0].model(seed=0)[1].weight for each in (cells, default))
    assert he.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.05)
    assert usual.std().item() == pytest.approx((1 / 64 / 3) ** 0.5, rel=0.05)


def test_predictions_in_larger_batches_change_less_and_those_of_the_trained_batch_size_are_measured():
    found = batch_dependence.load()
    assert [size for (size,) in found] == list(batch_dependence.BATCH_SIZES)
    assert batch_dependence.TRAINING["batch_size"] in batch_dependence.BATCH_SIZES
    assert (np.diff([np.median(row["changed"]) for row in found.values()]) < 0).all()
    assert len(found[8,]["eval_mode_error"]) == 5


def test_the_image_of_the_opening_is_the_one_that_network_0_changes_most_often():
    digits, model = datasets.load("digits"), batch_dependence.trained_network(seed=0)
    answers = batch_dependence.train_mode_predictions(model, digits.test_x, batch_size=8, repeats=50, seed=0)
    eval_mode = model.eval()(digits.test_x).argmax(1)
    often = ((answers != eval_mode[:, None]).float().mean(1) * (eval_mode == digits.test_y)).sort(descending=True)
    assert batch_dependence.IMAGE in often.indices[:10]  # fewer repeats, and rounding, change the order
    shown = batch_dependence.predictions(8)
    assert shown.label == digits.test_y[batch_dependence.IMAGE] and shown.counts.sum() == 200


def test_a_live_run_is_shown_beside_the_grid_with_a_new_seed_each_time():
    first, second = (next(training_curves.train(64, 0.1)) for _ in range(2))
    done, total, data = first
    assert done == 0 and total == 10 * (1437 // 64)
    assert list(data) == [
        "batch norm",
        "without normalisation",
        "batch norm, your run",
        "without normalisation, your run",
    ]
    assert data["batch norm"] is training_curves.load()["batch norm", 64, 0.1]
    assert (
        data["without normalisation, your run"]["train_loss"]
        != second[2]["without normalisation, your run"]["train_loss"]
    )


def test_a_missing_result_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.json does not exist; produce it with `python -m it`"):
        results.read_result("nothing", "python -m it", tmp_path)


def test_a_result_is_written_whole_or_not_at_all(tmp_path):
    with results.write_result("kept", "python -m it", [1], tmp_path) as result:
        result["value"] = 1
    with pytest.raises(KeyboardInterrupt), results.write_result("kept", "python -m it", [1], tmp_path) as result:
        result["value"] = 2
        raise KeyboardInterrupt
    assert results.read_result("kept", "", tmp_path)["value"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["kept.json"]


def test_two_batches_begin_with_the_same_image_and_their_predictions_are_those_of_the_network():
    data, model = datasets.load("digits"), batch_dependence.trained_network(0)
    (right, label), (wrong, other) = batch_dependence.two_batches(model, data.test_x)
    assert label == data.test_y[batch_dependence.IMAGE] != other
    for images, prediction in ((right, label), (wrong, other)):
        assert np.array_equal(images[0], data.test_x[batch_dependence.IMAGE, 0]) and images.shape == (8, 8, 8)
        again = copy.deepcopy(model).train()(torch.from_numpy(images)[:, None])
        assert again[0].argmax() == prediction
    with pytest.raises(RuntimeError, match="got 179, in one way"):
        batch_dependence.two_batches(model, data.test_x, batch_size=len(data.test_x))
