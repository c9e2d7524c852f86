"""The values of schedules are checked at every step: eagerly, compiled, and in stacks of models."""

import copy
import math
import random

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad, stack_module_state, vmap

import bnlib


def by_table(values):
    """A schedule that takes its values from a table."""

    def schedule(step):
        if isinstance(step, torch.Tensor):
            found = torch.full_like(step, values[0])
            for at, value in enumerate(values):
                found = torch.where(step == at, value, found)
            return found
        return values[int(step)]

    return schedule


LAYERS = {
    "alpha": lambda values: bnlib.FullNorm(3, alpha=by_table(values)),
    "alpha, oracle": lambda values: bnlib.FullNorm(3, alpha=by_table(values), oracle="batch"),
    "r_max": lambda values: bnlib.BatchRenorm(3, r_max=by_table(values)),
    "d_max": lambda values: bnlib.BatchRenorm(3, d_max=by_table(values)),
    "r_max, MABN": lambda values: bnlib.MovingAverageBatchNorm(3, window=2, r_max=by_table(values)),
}
BOUNDS = {  # in words, the least and the largest value, and wrong values
    "alpha": (r"lie in \(0, 1\]", 1 / 64, 1, (0.0, -0.5, 1.25)),
    "r_max": ("be at least 1", 1, 5, (0.75, 0.0, -3.0)),
    "d_max": ("be at least 0", 0, 5, (-0.25, -3.0)),
}


def eager(layer):
    return layer, layer


def in_half(layer):  # the general step in place of a fast one
    layer = layer.bfloat16()
    return layer, lambda x: layer(x.bfloat16())


def compiled(layer):
    torch._dynamo.reset()
    return layer, torch.compile(layer, backend="aot_eager")


def mapped(layer):
    """Two models, of which the second one has seen one batch less."""
    state = stack_module_state([layer, copy.deepcopy(layer)])
    layer.num_batches_tracked = state[1]["num_batches_tracked"]
    state[1]["num_batches_tracked"][1] -= 1
    call = vmap(lambda state, x: functional_call(layer, state, (x,)), in_dims=(0, None))
    return layer, lambda x: call(state, x)


def mapped_gradients(layer):
    parameters, buffers = stack_module_state([layer, layer])
    layer.num_batches_tracked = buffers["num_batches_tracked"]
    loss = grad(lambda state, rest, x: functional_call(layer, (state, rest), (x,)).square().sum())
    return layer, lambda x: vmap(loss, in_dims=(0, 0, None))(parameters, buffers, x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch sets off its own when it compiles
@pytest.mark.parametrize("way", [eager, in_half, compiled, mapped, mapped_gradients], ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("seed", range(3))
def test_a_wrong_value_raises_an_error_at_its_step_and_changes_nothing(way, name, seed):
    argument = name.split(",")[0]
    text, low, high, wrong = BOUNDS[argument]
    rng = random.Random(seed)
    values, first_wrong = [rng.randint(round(64 * low), 64 * high) / 64 for _ in range(8)], rng.randint(2, 5)
    values[0], values[1] = rng.choice(((low, high), (high, low)))
    values[first_wrong] = rng.choice((*wrong, math.nan))
    layer, call = way(LAYERS[name](values))
    if way is mapped:
        layer.num_batches_tracked.add_(1)
    for step in range(first_wrong):
        if step or way is not mapped:
            call(torch.randn(6, 3) * 3 + 5)
    before = copy.deepcopy(layer.state_dict())
    expected = f"{argument} must {text} at every step, got {values[first_wrong]} at step {first_wrong};"
    with pytest.raises(ValueError, match=expected):
        call(torch.randn(6, 3) * 3 + 5)
    torch.testing.assert_close(layer.state_dict(), before, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize(
    ("way", "value"),
    [
        *[(eager, value) for value in ("x", None, 0.5j, torch.ones(2), torch.tensor(1j), np.ones(1))],
        *[(in_half, value) for value in ("x", torch.ones(2))],
        (compiled, torch.ones(2)),
    ],
)
@pytest.mark.parametrize("make", [lambda f: bnlib.FullNorm(3, alpha=f), lambda f: bnlib.BatchRenorm(3, r_max=f)])
def test_a_value_that_is_not_one_number_raises_an_error_at_its_step(way, value, make):
    layer, call = way(make(lambda step: 1.0 if step < 1 else value))
    call(torch.randn(6, 3))
    when = "" if way is compiled else " at step 1"
    with pytest.raises(TypeError, match=rf"(alpha|r_max) must be one number at every step, got .*{when}; change the s"):
        call(torch.randn(6, 3))
    assert layer.num_batches_tracked == 1


def test_a_schedule_may_return_an_array_of_one_number():
    layer = bnlib.FullNorm(3, alpha=lambda step: np.where(step < 1, 0.5, 0.25))
    for start, end in ((0, 1), (1, 1.25)):
        assert layer.running_mean.eq(start).all()
        layer(torch.full((6, 3), 2.0))
        assert layer.running_mean.eq(end).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("way", [compiled, mapped_gradients], ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", LAYERS)
def test_values_within_the_bounds_give_the_numbers_of_an_eager_layer(way, name):
    make, (_, low, high, _) = LAYERS[name], BOUNDS[name.split(",")[0]]
    values = [low, high, *torch.linspace(low, high, 6).tolist()]
    plain = make(values)
    layer, call = way(make(values))
    buffers = dict(layer.named_buffers())
    for step in range(6):
        x = torch.randn(6, 3) * 3 + 5
        plain(x), call(x)
        count = buffers["num_batches_tracked"] if way is compiled else layer.num_batches_tracked
        assert (count == step + 1).all()
    if way is compiled:
        torch.testing.assert_close(buffers, dict(plain.named_buffers()), rtol=1e-4, atol=1e-4)


class Twice(bnlib.schedules.PowerSchedule):
    """Its values are twice as large, so that the first ones are larger than 1."""

    def __call__(self, step):
        return 2 * super().__call__(step)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("way", [eager, compiled, mapped], ids=lambda way: way.__name__)
@pytest.mark.parametrize(
    "alpha, start, wrong",
    [(Twice(1, 1, floor=0.03), 0, "2.0"), (bnlib.schedules.PowerSchedule(1, 500), 5, "0.0")],
    ids=["a subclass", "a power of 500 without a floor, which is rounded to 0"],
)
def test_a_schedule_that_resembles_the_default_is_checked(way, alpha, start, wrong):
    layer, call = way(bnlib.FullNorm(3, alpha=0.5))  # the constructor would find the wrong value at step 0
    layer.alpha = alpha
    layer.num_batches_tracked.fill_(start)
    with pytest.raises(ValueError, match=rf"alpha must lie in \(0, 1\] at every step, got {wrong} at step {start};"):
        call(torch.randn(6, 3))


@pytest.mark.parametrize("seed", range(20))
def test_a_schedule_with_a_floor_never_leaves_the_bounds(seed):
    rng = random.Random(seed)
    scale, power, floor, start = 10 ** rng.uniform(-9, 9), 10 ** rng.uniform(-3, 4), 10 ** -rng.uniform(0, 300), 10.0
    schedule = bnlib.schedules.PowerSchedule(scale, power, floor, rng.choice((0, start)))
    for step in (0, 1, 7, 10**6, 2**62):
        assert 0 < schedule(step) <= 1
        assert 0 < schedule(torch.tensor(step, dtype=torch.float64)) <= 1
