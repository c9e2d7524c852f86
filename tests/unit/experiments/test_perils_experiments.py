"""The experiments of chapter 6, and a model with the statistics of other data."""

import copy
import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from bnlib import (
    BatchNorm,
    BatchRenorm,
    CrossIterationBatchNorm,
    FullNorm,
    MovingAverageBatchNorm,
    OnlineNorm,
    datasets,
    figures,
)
from bnlib.experiments.perils import (
    adaptation_at_test_time,
    distribution_shift,
    gan_discriminator,
    target_networks,
    train_mode_at_inference,
    two_towers,
)
from bnlib.models import mlp
from bnlib.probes import batch_dependence, with_recomputed_statistics


def test_statistics_of_one_batch_are_its_own_and_the_model_is_left_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), BatchNorm(4), nn.ReLU(), nn.Linear(4, 2), nn.BatchNorm1d(2)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(50, 3) * 3 + 1
    renewed = with_recomputed_statistics(model, [x])
    assert model.training and not renewed.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        inputs = model[0](x)
        torch.testing.assert_close(renewed[1].running_mean, inputs.mean(0))
        torch.testing.assert_close(renewed[1].running_var, inputs.var(0))
        # Of the second layer behind a first one that uses the batch's own.
        torch.testing.assert_close(renewed[4].running_mean, model[:4](x).mean(0))
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), renewed.parameters(), strict=True))


def test_statistics_of_several_batches_are_their_means():
    layer, batches = nn.BatchNorm1d(2), [torch.randn(10, 2) + shift for shift in (0.0, 3.0, 6.0)]
    renewed = with_recomputed_statistics(layer, iter(batches))
    torch.testing.assert_close(renewed.running_mean, torch.stack([batch.mean(0) for batch in batches]).mean(0))
    torch.testing.assert_close(renewed.running_var, torch.stack([batch.var(0) for batch in batches]).mean(0))
    assert renewed.momentum == layer.momentum


def test_what_cannot_be_given_statistics_is_refused():
    tracked = partial(nn.InstanceNorm1d, track_running_stats=True)
    of_a_layer = [CrossIterationBatchNorm(nn.Linear(2, 2))]
    for layer in [
        kind(2) for kind in (FullNorm, BatchRenorm, OnlineNorm, MovingAverageBatchNorm, tracked)
    ] + of_a_layer:
        with pytest.raises(
            ValueError, match=r"model must have no running averages but .*, got running_mean.* of .*'1'"
        ):
            with_recomputed_statistics(nn.Sequential(nn.Linear(3, 2), layer), [torch.randn(4, 3)])
    with pytest.raises(ValueError, match="batches must hold at least one batch"):
        with_recomputed_statistics(nn.BatchNorm1d(2), [])


@pytest.mark.parametrize("order", train_mode_at_inference.ORDERS)
def test_all_samples_are_asked_in_full_batches(order):
    labels = datasets.load("digits").test_y
    batches = train_mode_at_inference.batches(labels, order, 64, seed=0)
    assert {len(batch) for batch in batches} == {64}
    asked = torch.cat(batches)
    assert set(asked[: len(labels)].tolist()) == set(range(len(labels)))
    assert (labels[asked[: len(labels)]].diff() >= 0).all() == (order == "sorted")


def test_asking_in_train_mode_moves_the_statistics_and_one_sample_gets_a_constant():
    data = datasets.load("digits")
    model = train_mode_at_inference.network("fully connected", seed=0)
    before = two_towers.batch_norm_layers(model)[0].running_mean.clone()
    ones = [torch.tensor([index]) for index in range(20)]
    with torch.no_grad():
        answers = torch.cat([model.train()(data.test_x[index]) for index in ones])
    assert torch.equal(answers, answers[:1].expand_as(answers))
    assert not torch.equal(two_towers.batch_norm_layers(model)[0].running_mean, before)


@pytest.mark.parametrize("network", train_mode_at_inference.NETWORKS)
def test_a_live_training_is_measured_as_the_committed_ones(network, monkeypatch):
    """From the same seed it ends with the committed accuracies, though it is measured on the way."""
    monkeypatch.setattr(train_mode_at_inference, "_live_seed", itertools.repeat(0))
    (_, _, first), *_, (done, total, last) = train_mode_at_inference.train(network, 8, points=2)
    assert done == total == 440 and first["run"]["shuffled"]["eval_mode"] < 0.3
    for order, run in last["run"].items():
        committed = train_mode_at_inference.lookup(network, 8)[order]
        for key, values in run.items():
            # Other processors round in another way, which moves a few images.
            np.testing.assert_allclose(values, committed[key][0], atol=0.02, err_msg=f"{order}, {key}")


def test_measuring_the_accuracies_leaves_the_network_as_it_is():
    model = train_mode_at_inference.network("fully connected", seed=0).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train_mode_at_inference.accuracies(model, datasets.load("digits"), "shuffled", seed=0)
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_figure_shows_a_live_run_as_dashes():
    run = {"eval_mode": 0.5, "train_mode": [0.1, 0.2], "eval_mode_afterwards": [0.5, 0.4, 0.3]}
    row = {key: np.array([values, values]) for key, values in run.items()}
    data, sizes = (
        dict.fromkeys(train_mode_at_inference.ORDERS, row),
        {"batch_sizes": (1, 2), "batches_served": (0, 1, 2)},
    )
    live = data | {"run": dict.fromkeys(train_mode_at_inference.ORDERS, run)}
    for shown, dashes in ((data, 0), (live, 2)):
        figure = figures.new_figure(7, 3)
        told = figures.draw_train_mode_at_inference(figure, shown, "fully connected", 2, **sizes)
        assert ("Dashes: your run, 50.0 % in eval mode." in told) == (dashes > 0)
        for axes, key in zip(figure.axes, ("train_mode", "eval_mode_afterwards"), strict=True):
            found = [line.get_ydata() for line in axes.lines if line.get_marker() == "_"]
            assert len(found) == dashes and all(list(each) == [100 * value for value in run[key]] for each in found)


def test_one_class_has_its_share_of_the_samples():
    labels = datasets.load("digits").test_y
    for share in distribution_shift.CLASS_SHARES:
        index = distribution_shift.sample_with_class_share(labels, 3, share, torch.Generator().manual_seed(0))
        assert len(index) == distribution_shift.TEST_BATCH_SIZE and (labels[index] == 3).sum() == round(
            share * len(index)
        )


def test_halfway_is_the_middle_of_means_and_of_variances():
    one, two = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    two.running_mean.copy_(torch.tensor([2.0, -4.0]))
    two.running_var.copy_(torch.tensor([3.0, 9.0]))
    middle = distribution_shift.average_statistics(one, two)
    assert middle.running_mean.tolist() == [1.0, -2.0] and middle.running_var.tolist() == [2.0, 5.0]
    assert one.running_mean.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("share", two_towers.DOMAIN_SHARES)
def test_each_tower_gets_its_share(share):
    first, second = two_towers.domains("inverted", seed=0)
    marked = [
        datasets.Dataset(name, torch.full_like(each.train_x, value), each.train_y, each.test_x, each.test_y, 10)
        for name, value, each in (("a", 0.0, first), ("b", 1.0, second))
    ]
    for one, two in itertools.islice(two_towers._batches(*marked, share, 64, 0), 3):
        shares = [1 - x[:, 0, 0, 0].mean().item() if x.dim() == 4 else None for x, _ in (one, two)]
        ours = round(share * 64) / 64
        assert shares == pytest.approx([ours, 1 - ours])


def test_with_pure_batches_the_running_averages_settle_between_the_domains():
    """The weights of chapter 6: 1 for the newest domain and 1 - alpha for the other, over 2 - alpha."""
    layer, alpha = nn.BatchNorm1d(1, affine=False).double(), 0.1
    batch = torch.randn(100, 1, dtype=torch.float64)
    for _ in range(200):
        layer(batch)
        layer(3 * batch + 7)
    weights = torch.tensor([1 - alpha, 1.0], dtype=torch.float64) / (2 - alpha)
    domains = batch, 3 * batch + 7
    torch.testing.assert_close(layer.running_mean, (weights * torch.cat([x.mean(0) for x in domains])).sum()[None])
    torch.testing.assert_close(layer.running_var, (weights * torch.cat([x.var(0) for x in domains])).sum()[None])


def test_the_ring_has_the_mean_and_the_covariance_of_the_real_samples():
    ring = gan_discriminator.fake("reshaped", 100_000, torch.Generator().manual_seed(0))
    assert ring.mean(0).abs().max() < 0.02
    torch.testing.assert_close(ring.T.cov(), torch.eye(2), atol=0.02, rtol=0)
    torch.testing.assert_close(ring.norm(dim=1), torch.full((100_000,), math.sqrt(2)))


def test_bn_removes_the_common_gradient_of_generated_samples_in_a_batch_of_their_own():
    generator = torch.Generator().manual_seed(0)
    alignments = {
        (norm, batches): gan_discriminator._gradient_alignment(
            gan_discriminator.network(norm, seed=0), "shifted", batches, generator, "cpu"
        )
        for norm, batches in itertools.product(gan_discriminator.NORMS, gan_discriminator.BATCHES)
    }
    assert alignments["batch norm", "separate"] < 1e-5
    assert min(value for cell, value in alignments.items() if cell != ("batch norm", "separate")) > 0.01


def test_a_live_run_ends_with_its_accuracies_beside_the_committed_ones():
    *_, (done, total, data) = two_towers.train("inverted", 1.0, 64, points=2)
    assert done == total and set(data["run"]) == set(two_towers.STATISTICS)
    assert data["run"]["per_domain"][0] > 0.9 > data["run"]["running"][0]


def test_the_accuracies_of_a_discriminator_do_not_change_it():
    """Passes in train mode update running statistics: a copy's, so that eval mode is that of the trained network."""
    generator = torch.Generator().manual_seed(0)
    model, _ = gan_discriminator.trained("batch norm", "shifted", "separate", 0, generator, steps=20)
    before, draw = copy.deepcopy(model.state_dict()), partial(gan_discriminator.pair, "shifted", generator)
    pairs = [draw() for _ in range(20)]
    found = gan_discriminator.accuracies_on(model, iter(pairs).__next__)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()) and model.training
    model.eval()
    with torch.no_grad():
        right = [torch.cat((model(ours) > 0, model(theirs) < 0)).float().mean().item() for ours, theirs in pairs]
    assert found["eval"] == pytest.approx(np.mean(right))


def test_live_discriminators_end_with_the_accuracies_of_each_norm(monkeypatch):
    monkeypatch.setattr(gan_discriminator, "STEPS", 300)
    *earlier, (done, total, data) = gan_discriminator.train("shifted", "mixed", points=2)
    assert done == total == 1200 and [done for done, *_ in earlier] == [150, 300, 450, 600, 750, 900, 1050]
    assert set(data["run"]) == set(gan_discriminator.NORMS)
    assert data["run"]["batch norm"]["mixed"] > 0.8 > 0.6 > data["run"]["batch norm"]["separate"]
    figure = Figure()
    assert figures.draw_discriminator(figure, data, "shifted", "mixed").endswith("Strokes: your run.")
    shown = gan_discriminator.lookup("shifted", "mixed")
    assert "run" not in figures.draw_discriminator(Figure(), shown, "shifted", "mixed")


def test_one_channel_is_drawn_and_told_with_the_values_of_both_kinds():
    figure = Figure()
    told = figures.draw_one_channel(
        figure, {"before BN": ([-1, 1], [3, 5]), "mixed": ([-1.342, -0.447], [0.447, 1.342])}
    )
    assert (
        told
        == "Two values of each kind. before BN: A -1 and 1, B 3 and 5; mixed: A -1.34 and -0.447, B 0.447 and 1.34."
    )
    assert [text.get_text() for text in figure.axes[0].texts] == ["5", "1.34"]


def test_rows_of_train_mode_have_the_accuracy_of_their_batch_size_and_number_of_batches():
    found = train_mode_at_inference.load()["convolutional", "sorted"]
    rows = train_mode_at_inference.train_mode_accuracy_rows((2, 128))
    (row,) = (row for row in rows if row["network, order of the test set"] == "convolutional, sorted")
    assert list(row["train mode, batch size", "128"]) == list(100 * found["train_mode"][:, 7])
    rows = train_mode_at_inference.eval_mode_afterwards_rows("convolutional", "sorted", (2, 128), (0, 256))
    assert [row["batches predicted"] for row in rows] == [0, 256]
    assert list(rows[1]["batch size", "2"]) == list(100 * found["eval_mode_afterwards"][:, 1, -1])
    assert list(rows[0]["batch size", "2"]) == list(100 * found["eval_mode"])


def test_rows_of_two_towers_have_a_column_per_domain():
    rows = two_towers.accuracy_rows()
    pooled = two_towers.lookup("inverted", 1.0, 64)["pooled"]
    assert list(rows[2]["digits and inverted digits", "digits"]) == list(100 * pooled[:, 0])
    assert list(rows[2]["digits and inverted digits", "inverted digits"]) == list(100 * pooled[:, 1])
    losses = two_towers.training_loss_rows()[3]["training loss in the last epoch (nats)", "second batch"]
    assert list(losses) == list(two_towers.lookup("MNIST", 1.0, 64)["loss"][:, 1])


def test_rows_of_discriminators_and_of_shifted_data_name_their_setting():
    row = gan_discriminator.batch_norm_accuracy_rows()[3]
    assert (row["discriminator, generated samples"], row["training batches"]) == ("batch norm, scaled", "mixed")
    found = gan_discriminator.load()["batch norm", "scaled", "mixed"]
    assert list(row["accuracy (%)", "eval mode"]) == list(100 * found["eval"])
    assert gan_discriminator.gradient_alignment_rows()[1]["training batches", "separate"].max() < 1e-3
    (row,) = distribution_shift.accuracy_rows([(0.8, 0.9)])
    assert row["test images"] == "0.8 added to each pixel, 90% of one class"
    expected = distribution_shift.load()[(0.8,)]["halfway"][:, distribution_shift.CLASS_SHARES.index(0.9)]
    assert list(row["statistics of", "halfway"]) == list(100 * expected)


def test_tent_at_rate_0_only_replaces_the_statistics_by_those_of_each_batch():
    torch.manual_seed(0)
    model, x = mlp((6, 8, 3), BatchNorm, seed=0), torch.randn(20, 6)
    found = adaptation_at_test_time.tent_outputs(model, x, batch_size=10, lr=0.0)
    expected = torch.cat([model.train()(batch) for batch in x.split(10)])
    torch.testing.assert_close(found, expected)


def test_tent_lowers_the_entropy_with_gamma_and_beta_alone():
    torch.manual_seed(0)
    model, x = mlp((6, 8, 3), BatchNorm, seed=0), torch.randn(20, 6)
    before = [each.clone() for each in model.parameters()]
    outputs = adaptation_at_test_time.tent_outputs(model, x.repeat(50, 1), batch_size=20, lr=0.01)
    first, *_, last = adaptation_at_test_time.entropy(outputs).split(20)
    assert last.mean() < 0.8 * first.mean()
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), before, strict=True))
    # Half of each sample's probability on either of two classes: ln 2.
    torch.testing.assert_close(adaptation_at_test_time.entropy(torch.zeros(1, 2)), torch.tensor([math.log(2)]))


def test_mixed_statistics_lie_between_those_of_eval_mode_and_those_of_the_batch():
    torch.manual_seed(0)
    model, x = mlp((6, 8, 3), BatchNorm, seed=0).eval(), torch.randn(20, 6)
    with torch.no_grad():
        torch.testing.assert_close(adaptation_at_test_time.mixed_statistics_outputs(model, x, prior=10**9), model(x))
        new = adaptation_at_test_time.mixed_statistics_outputs(model, x, prior=0)
        torch.testing.assert_close(new, model.train()(x))
    # By hand: mean (0 + 4) / 2, variance (1 + 9) / 2, where one sample counts as much as the training data.
    layer = nn.Sequential(BatchNorm(1, eps=0))
    found = adaptation_at_test_time.mixed_statistics_outputs(layer, torch.tensor([[1.0], [7.0]]), prior=2)
    torch.testing.assert_close(found, torch.tensor([[-1.0], [5.0]]) / 5**0.5)


def test_a_stream_has_the_order_and_the_class_frequencies_of_its_name():
    labels = datasets.load("digits").test_y
    streams = {
        name: labels[adaptation_at_test_time.draw_stream(labels, name, 3, torch.Generator().manual_seed(0))]
        for name in adaptation_at_test_time.STREAMS
    }
    assert (streams["sorted"].diff() >= 0).all() and not (streams["shuffled"].diff() >= 0).all()
    assert abs((streams["one class frequent"] == 3).float().mean() - 0.9) < 0.03
    assert abs((streams["shuffled"] == 3).float().mean() - 0.1) < 0.03


def test_the_mean_over_classes_counts_each_class_once():
    right, labels = torch.tensor([True, True, True, False]), torch.tensor([0, 0, 0, 1])
    assert adaptation_at_test_time.mean_over_classes(right, labels) == 0.5


@pytest.mark.parametrize("policy", [target_networks.POLICY, target_networks.BUFFER])
def test_the_exact_values_are_the_mean_of_discounted_rewards(policy):
    generator, count = torch.Generator().manual_seed(0), 20_000
    state, action, total = torch.full((count,), 0.5), torch.full((count,), -0.7), torch.zeros(count)
    exact = target_networks.q_values(state[:1], action[:1], policy).item()
    for step in range(150):
        total += target_networks.DISCOUNT**step * target_networks.reward(state, action)
        state = target_networks.next_state(state, action, torch.randn(count, generator=generator))
        action = target_networks.act(state, policy, torch.randn(count, generator=generator))
    assert abs(total.mean().item() - exact) < 5 * total.std().item() / count**0.5


def test_the_states_of_the_buffer_are_distributed_like_their_next_states():
    generator = torch.Generator().manual_seed(0)
    state, action = target_networks.draw_buffer(200_000, generator)
    following = target_networks.next_state(state, action, torch.randn(200_000, generator=generator))
    assert abs(following.mean() - state.mean()) < 0.01 and abs(following.std() / state.std() - 1) < 0.01


def test_a_joint_batch_shares_statistics_and_separate_batches_hide_the_policy():
    """If the actions differ by a constant, separate batches give the same values, whatever the constant is."""
    torch.manual_seed(0)
    model, now = mlp((2, 8, 1), BatchNorm, seed=0), torch.randn(50, 2)
    then = now + torch.tensor([0.0, 5.0])
    for source, differ in (("target", False), ("online", False), ("joint", True)):
        values, next_values = target_networks.both_values(model, model, now, then, source)
        assert (values - next_values).abs().max().item() > 0.1 or not differ
        assert torch.allclose(values, next_values, atol=1e-4) != differ
        assert not next_values.requires_grad and values.requires_grad


def test_a_target_network_in_eval_mode_uses_running_statistics():
    model = mlp((2, 8, 1), BatchNorm, seed=0)
    target, x = mlp((2, 8, 1), BatchNorm, seed=1), torch.randn(50, 2)
    _, found = target_networks.both_values(model, target, x, x, "target, eval mode")
    torch.testing.assert_close(found, target.eval()(x)[:, 0].detach())


def test_spectral_norm_divides_by_the_largest_singular_value_and_ignores_the_batch():
    model = gan_discriminator.network("spectral norm", seed=0)
    for _ in range(50):  # each forward pass in train mode improves the estimate
        model(torch.zeros(1, 2))
    for layer in model:
        if isinstance(layer, nn.Linear):
            assert abs(torch.linalg.matrix_norm(layer.weight, 2).item() - 1) < 0.01
    assert batch_dependence(model, torch.randn(8, 2)) < 1e-5


def test_rows_of_q_networks_and_of_adaptation_take_the_best_rate():
    row = target_networks.error_rows()[0]
    found = target_networks.load()["without normalisation, target network", float(row["learning rate"])]
    distance = "root mean square distance to the exact values"
    assert list(row[distance, "of the policy"]) == list(found["test_error"])
    errors = [
        np.median(target_networks.load()["without normalisation, target network", lr]["test_error"])
        for lr in target_networks.LEARNING_RATES
    ]
    assert np.median(found["test_error"]) == min(errors)
    row, place = adaptation_at_test_time.load()["noisy",], adaptation_at_test_time.BATCH_SIZES.index(64)
    rate = adaptation_at_test_time.LEARNING_RATES.index(adaptation_at_test_time.tent_rate(64))
    shown = adaptation_at_test_time.lookup("noisy")["sorted"]
    assert list(shown["tent"][:, place]) == list(row["tent"][:, 1, place, rate]) and rate > 0
    assert list(shown["batch"][:, place]) == list(row["tent"][:, 1, place, 0])


def test_rows_of_adaptation_hold_the_committed_accuracies():
    unchanged, noisy = adaptation_at_test_time.load()["unchanged",], adaptation_at_test_time.load()["noisy",]
    rows = {row["images"]: row for row in adaptation_at_test_time.accuracy_rows()}
    assert list(rows["noisy, shuffled"]["statistics of training"]) == list(100 * noisy["training"][:, 0])
    assert list(rows["noisy, shuffled"]["batches of 64", "mixed"]) == list(100 * noisy["mixed"][:, 0, 2])
    assert list(rows["unchanged, sorted"]["batches of 4", "of the batch"]) == list(100 * unchanged["tent"][:, 1, 0, 0])
    rates = {row["learning rate"]: row for row in adaptation_at_test_time.tent_rows()}
    assert list(rates["0.1"]["one class frequent", "mean over classes"]) == list(
        100 * unchanged["tent_per_class"][:, 2, 0, 4]
    )
    assert list(rates["0"]["shuffled"]) == list(rows["unchanged, shuffled"]["batches of 4", "of the batch"])
