"""The training loop, the networks it trains and the batches it draws."""

import itertools

import pytest
import torch

import bnlib
from bnlib import datasets, models, training

POINTS = datasets.load("three_points")


def small(norm=bnlib.BatchNorm, seed=0):
    return models.mlp((3, 8, 3), norm, seed=seed)


def test_the_same_seed_gives_the_same_run_and_another_another():
    runs = [
        training.fit(small(), POINTS, batch_size=2, lr=0.1, epochs=5, points=5, seed=seed, progress=False)
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    training.fit(small(), POINTS, batch_size=2, lr=0.1, epochs=2, progress=False)
    assert torch.equal(state, torch.get_rng_state())


def test_training_learns():
    history = training.fit(small(None), POINTS, batch_size=3, lr=0.5, epochs=400, progress=False)
    assert history.train_loss[0] > 0.8 and history.train_loss[-1] < 0.2 and history.test_error[-1] == 0


def test_a_step_is_plain_sgd():
    model, twin = small(None), small(None)
    list(training.iterate(model, POINTS, batch_size=3, lr=0.1, epochs=1, points=1))
    loss = torch.nn.functional.cross_entropy(twin(POINTS.train_x), POINTS.train_y)
    for parameter, trained, gradient in zip(
        twin.parameters(), model.parameters(), torch.autograd.grad(loss, twin.parameters()), strict=True
    ):
        torch.testing.assert_close(trained, parameter - 0.1 * gradient)


def test_the_first_point_comes_before_the_first_step():
    model, twin = small(), small()
    done, total, history = next(training.iterate(model, POINTS, batch_size=1, lr=0.1, epochs=4))
    assert (done, total) == (0, 12) and history.epoch == [0.0]
    for parameter, initial in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(parameter, initial)


def test_points_are_spread_evenly_and_end_at_the_end():
    *_, (done, total, history) = training.iterate(small(), POINTS, batch_size=1, lr=0.1, epochs=4, points=4)
    assert done == total == 12 and history.epoch == [0, 1, 2, 3, 4]


def test_divergence_is_a_result():
    history = training.fit(models.mlp((3, 3)), POINTS, batch_size=3, lr=1e38, epochs=20, progress=False)
    assert history.diverged and len(history.epoch) < 21


def test_the_error_rate_is_measured_in_eval_mode_and_leaves_the_mode():
    model = small().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    training.error_rate(model, POINTS.test_x, POINTS.test_y)
    assert model.training
    torch.testing.assert_close(model.state_dict(), before)


def test_an_epoch_deals_every_sample_once_and_drops_the_rest():
    epochs = training.shuffled_batches(10, 3, seed=0)
    first, second = ([next(epochs).tolist() for _ in range(3)] for _ in range(2))
    for epoch in (first, second):
        dealt = list(itertools.chain(*epoch))
        assert len(dealt) == len(set(dealt)) == 9 and set(dealt) <= set(range(10))
    assert first != second


@pytest.mark.parametrize("batch_size", [0, 4])
def test_a_batch_size_that_cannot_be_is_named(batch_size):
    with pytest.raises(ValueError, match=rf"between 1 and the number of samples \(3\), got {batch_size}"):
        next(training.iterate(small(), POINTS, batch_size=batch_size, lr=0.1))


def test_the_linear_layers_start_the_same_with_and_without_norm():
    plain, normed = (
        [m.weight for m in small(norm).modules() if isinstance(m, torch.nn.Linear)] for norm in (None, bnlib.BatchNorm)
    )
    assert all(torch.equal(a, b) for a, b in zip(plain, normed, strict=True))
    assert not torch.equal(plain[0], small(seed=1)[1].weight)


def test_an_mlp_needs_two_sizes():
    with pytest.raises(ValueError, match=r"got \(3,\)"):
        models.mlp((3,))
