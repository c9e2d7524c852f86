"""The number of threads: one while a small network trains, and the caller's own whenever the caller runs."""

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import bnlib
from bnlib import models, stacked, sweep, training
from bnlib.training.threads import products_per_step, threads_for


@contextmanager
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_a_small_network_trains_with_one_thread_and_the_caller_keeps_two():
    seen = []

    def look(step, model, index):
        seen.append(torch.get_num_threads())

    with two_threads():
        model = models.three_point_network(seed=0)
        settings = {"batch_size": 3, "lr": 0.1, "epochs": 4, "checkpoints": 2}
        for _ in training.iterate(model, "three_points", callbacks=[look], **settings):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 2 and seen == [1] * 4
        for _ in training.iterate(model, "three_points", **settings):
            break  # the caller stops early
        assert torch.get_num_threads() == 2


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_in_a_step_restores_the_number(error):
    def fail(*_):
        raise error

    with two_threads():
        with pytest.raises(error):
            training.fit(
                models.three_point_network(), "three_points", batch_size=3, lr=0.1, callbacks=[fail], progress=False
            )
        assert torch.get_num_threads() == 2


def test_sweeps_and_stacks_restore_the_number(tmp_path):
    runs = [sweep.Run(models.three_point_network, "three_points", 3, 0.1, seed, epochs=2) for seed in range(2)]
    with two_threads():
        sweep.run(runs, tmp_path, progress=False)
        assert torch.get_num_threads() == 2


def test_large_steps_use_all_threads():
    with two_threads():
        with threads_for(1e9):
            assert torch.get_num_threads() == 2
        with threads_for(1e5):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2


def test_the_products_of_a_step():
    linear = nn.Sequential(nn.Linear(6, 4, bias=False), bnlib.BatchNorm(4))
    assert products_per_step(linear, (6,), 10) == 10 * (24 + 8)
    assert products_per_step(stacked.stack([nn.Linear(6, 4) for _ in range(3)]), (6,), 10) == 10 * 3 * 28
    convolution = nn.Conv2d(3, 5, 3, padding=1, bias=False)
    assert products_per_step(convolution, (3, 8, 8), 2) == 2 * convolution.weight.numel() * 64


@pytest.mark.parametrize("make", [bnlib.OnlineNorm, bnlib.FilterResponseNorm, bnlib.BatchNorm, bnlib.FullNorm])
def test_two_threads_can_call_one_stack_in_eval_mode(make):
    """A call must not change the layer, not even for its own duration."""
    stack = stacked.stack([nn.Sequential(nn.Conv2d(2, 4, 3), make(4)) for _ in range(2)]).eval()
    x = torch.randn(2, 3, 2, 6, 6)
    expected, interval = stack(x).detach(), sys.getswitchinterval()

    def call(_):
        with torch.no_grad():
            return torch.equal(stack(x), expected)

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as threads:
            assert all(threads.map(call, range(300)))
    finally:
        sys.setswitchinterval(interval)
