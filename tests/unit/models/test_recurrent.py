"""The stacked LSTMs: their sizes, and whose statistics their norms compute."""

import copy

import pytest
import torch
from model_examples import count, drawing
from torch import nn
from torch.nn import functional as F

from bnlib import models


@pytest.mark.parametrize("steps", [None, 5])
@pytest.mark.parametrize(("norm", "gammas_and_betas"), [(None, 0), ("batch_norm", 3 * 2 * 8)])
def test_lstm_stack_has_as_many_parameters_as_counted_by_hand(norm, gammas_and_betas, steps):
    model = models.lstm_stack(3, 8, norm, steps=steps, in_features=6, num_classes=4)
    gates = 4 * 8 * (6 + 8 + 2) + 2 * 4 * 8 * (8 + 8 + 2)
    assert count(model) == gates + 9 * 4 + gammas_and_betas
    assert model(torch.randn(2, 5, 6)).shape == (2, 5, 4)


def test_lstm_stack_is_that_of_the_question():
    """One sentence, and the gradient that the first layer gets: none without norm, one that explodes with it."""
    sentence, following = torch.eye(50)[None], torch.arange(50).roll(-1)

    def gradient(depth, norm):
        model = models.lstm_stack(depth, norm=norm)
        F.cross_entropy(model(sentence)[0], following).backward()
        return model.lstms[0].weight_ih_l0.grad.norm().item()

    assert [gradient(depth, "batch_norm") for depth in (10, 20)] == pytest.approx([4.9, 43], rel=0.05)
    assert gradient(20, None) < 1e-10
    with torch.device("meta"):
        assert [len(models.lstm_stack().lstms), models.lstm_stack().lstms[0].hidden_size] == [100, 50]


@pytest.mark.parametrize(
    ("norm", "steps", "causal"),
    [("batch_norm", None, False), ("batch_norm", 5, True), ("layer_norm", None, True), ("layer_norm", 5, True)],
)
def test_a_later_character_counts_only_where_steps_share_statistics_of_the_batch(norm, steps, causal):
    model = models.lstm_stack(2, 8, norm, steps=steps, in_features=6)
    x = torch.randn(4, 5, 6)
    other = x.clone()
    other[:, -1] += 1
    assert torch.allclose(model(x)[:, :-1], model(other)[:, :-1], atol=1e-6) == causal


def states(steps, samples=7):
    """The norm of an LSTM layer, what goes into it, (N, T, C), and what comes out."""
    model = models.lstm_stack(1, 8, "batch_norm", steps=steps, in_features=6)
    before = model.lstms[0](torch.randn(samples, 5, 6) + torch.arange(5.0)[:, None])[0]
    return model.norms[0], before, model.norms[0](before)


def test_statistics_are_over_the_samples_of_each_step_or_over_all():
    norm, before, each = states(steps=5)
    torch.testing.assert_close(each.mean(0), torch.zeros(5, 8), rtol=0, atol=1e-5)
    tracked = torch.stack([step.running_mean for step in norm.norms])
    torch.testing.assert_close(tracked, 0.1 * before.mean(0))
    norm, before, shared = states(steps=None)
    torch.testing.assert_close(shared.mean((0, 1)), torch.zeros(8), rtol=0, atol=1e-5)
    torch.testing.assert_close(norm.norm.running_mean, 0.1 * before.mean((0, 1)))
    assert shared.mean(0).abs().max() > 0.1


def test_one_sentence_is_a_batch_of_one_for_each_step():
    assert not states(steps=5, samples=1)[-1].any()


@pytest.mark.parametrize("norm", ["batch_norm", "full_norm", lambda channels: nn.Sequential(drawing(channels))])
def test_steps_share_gamma_and_beta_also_in_copies_and_after_training(norm):
    model = copy.deepcopy(models.lstm_stack(2, 8, norm, steps=3, in_features=6))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(4, 3, 6)).square().mean().backward()
    optimiser.step()
    twin = models.lstm_stack(2, 8, norm, steps=3, in_features=6, seed=1)
    twin.load_state_dict(model.state_dict())
    for each in (model, twin):
        for layer in each.norms:
            first, *others = (list(step.parameters()) for step in layer.norms)
            assert len(first) == 2 and all(one is two for step in others for one, two in zip(first, step, strict=True))
    assert not torch.equal(model.norms[0].norms[0].state_dict().popitem()[1], torch.zeros(8))
    x = torch.randn(4, 3, 6)
    torch.testing.assert_close(model.eval()(x), twin.eval()(x), rtol=0, atol=0)


def test_a_sentence_can_be_shorter_than_the_steps_but_not_longer():
    model = models.lstm_stack(2, 8, "batch_norm", steps=3, in_features=6, num_classes=4)
    assert model(torch.randn(4, 2, 6)).shape == (4, 2, 4)
    with pytest.raises(ValueError, match="input must have at most steps=3 time steps, got 4"):
        model(torch.randn(4, 4, 6))
