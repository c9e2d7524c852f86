"""Dependence on the batch and on the mode, for every norm of the registry and random shapes, sizes and data."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bnlib import FullNorm
from bnlib.norm.registry import NORMS
from bnlib.probes import batch_dependence, train_eval_difference

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
CASES = [
    pytest.param(norm, kind, id=f"{norm.name}-{kind.__name__}")
    for norm in NORMS.values()
    for kind in KINDS
    if issubclass(kind, norm.layer_types)
]
SITUATIONS = {
    "samples": st.integers(1, 9),
    "fan_in": st.integers(2, 6),
    "channels": st.integers(4, 12),
    "steps": st.integers(0, 4),
    "offset": st.floats(-3, 3),
    "scale": st.floats(0.1, 10),
    "seed": st.integers(0, 2**31),
}
# The smallest change seen in 1,500 random situations is 0.006: FullNorm, whose estimates give a batch of small inputs
# little weight.
KEPT, BROKEN = 1e-3, 3e-3


def situation(norm, kind, samples, fan_in, channels, steps, offset, scale, seed):
    """A layer with its norm after some steps of training, and a batch."""
    torch.manual_seed(seed)
    layer = kind(fan_in, channels, *[1] * (kind is not nn.Linear))
    # Positions that differ, and enough of them for each sample to have a variance of its own.
    shape = (fan_in, *[3] * KINDS.index(kind))
    model = norm.apply(layer)
    if norm.name == "online_norm":
        model[1].alpha_forward = 0.5  # with the paper's 0.999, a few samples move the averages by less than KEPT
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        model(torch.randn(6, *shape)).sin().mean().backward()
        optimiser.step()
    return model, scale * (torch.randn(samples, *shape) + offset)


@pytest.mark.parametrize(("norm", "kind"), CASES)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(given=st.fixed_dictionaries(SITUATIONS))
def test_other_samples_change_the_output_of_norms_that_depend_on_the_batch(norm, kind, given):
    change = batch_dependence(*situation(norm, kind, **given))
    assert change < KEPT if norm.batch_independent else change > BROKEN


@pytest.mark.parametrize(("norm", "kind"), CASES)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(given=st.fixed_dictionaries(SITUATIONS))
def test_eval_mode_is_another_function_for_norms_that_are_not_the_same_in_eval(norm, kind, given):
    difference = train_eval_difference(*situation(norm, kind, **given))
    assert difference < KEPT if norm.eval_matches_train else difference > BROKEN


@pytest.mark.parametrize(("norm", "kind"), CASES)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(given=st.fixed_dictionaries(SITUATIONS), frozen=st.booleans())
def test_measuring_leaves_no_trace(norm, kind, given, frozen):
    model, x = situation(norm, kind, **given)
    model.train()
    if frozen:
        list(model.modules())[-1].eval()
    modes = [each.training for each in model.modules()]
    state, generator = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    for parameter in model.parameters():
        parameter.grad = None
    batch_dependence(model, x)
    train_eval_difference(model, x)
    after = model.state_dict()
    assert all(torch.equal(state[name], after[name]) for name in state)
    assert [each.training for each in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None for parameter in model.parameters())


@settings(max_examples=50, deadline=None, derandomize=True)
@given(alpha=st.floats(0.01, 1), samples=st.integers(1, 8), seed=st.integers(0, 2**31))
def test_full_norm_depends_on_the_batch_in_proportion_to_alpha_and_not_on_the_mode(alpha, samples, seed):
    torch.manual_seed(seed)
    layer, x = FullNorm(5, alpha=alpha, affine=False), torch.randn(samples, 5)
    assert train_eval_difference(layer, x) < 1e-4
    changes = [batch_dependence(FullNorm(5, alpha=each, affine=False), x) for each in (alpha / 100, alpha)]
    assert changes[0] < changes[1] and changes[0] < 0.2


def test_a_batch_of_one_sample_is_compared_with_the_same_sample_in_a_larger_batch():
    torch.manual_seed(0)
    x = torch.randn(1, 4)
    assert batch_dependence(NORMS["batch_norm"].make_layer(4), x) > 0.5
    assert batch_dependence(nn.Linear(4, 3), x) < 1e-5


def test_other_samples_with_the_same_statistics_change_nothing():
    torch.manual_seed(0)
    layer, x = NORMS["batch_norm"].make_layer(4), torch.randn(8, 4)
    assert batch_dependence(layer, x, other_samples=x) < 1e-5 < 1e-1 < batch_dependence(layer, x, other_samples=x + 1)
    assert batch_dependence(layer, torch.zeros(8, 4)) > 0.1


def test_dropout_is_another_function_in_eval_mode():
    torch.manual_seed(0)
    assert train_eval_difference(nn.Dropout(0.5), torch.randn(16, 4)) > 0.5


def test_a_module_without_output_but_zeros_keeps_them():
    assert batch_dependence(nn.Threshold(1e9, 0.0), torch.randn(3, 2)) == 0


@pytest.mark.parametrize(
    ("inputs", "other_samples", "message"),
    [
        (torch.zeros(0, 3), None, r"inputs must hold at least one sample, got shape \(0, 3\)"),
        (torch.tensor(1.0), None, r"inputs must hold at least one sample, got shape \(\)"),
        (
            torch.zeros(2, 3),
            torch.zeros(2, 4),
            r"other_samples must have samples of the shape \(3,\) of inputs, got \(4,\)",
        ),
        (torch.zeros(2, 3), torch.zeros(0, 3), "other_samples must hold at least one sample"),
    ],
)
def test_bad_samples_are_named(inputs, other_samples, message):
    with pytest.raises(ValueError, match=message):
        batch_dependence(nn.Identity(), inputs, other_samples)
