"""Learn the value of a policy from a replay buffer: target networks, BN in separate or joint batches, layer norm.

In each step the Q network sees two batches: the states and actions of the buffer, and the next states with the actions
that the policy would take there. The problem is linear with a quadratic reward, so the values are known exactly.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from bnlib import BatchNorm
from bnlib.experiments.framework.best_rates import best_rates
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp

DISCOUNT, TAU = 0.9, 0.05
"""Weight of the next value; share of the online network that each step mixes into the target network."""
POLICY, BUFFER = (-0.5, 1.0, 0.0), (0.0, 0.0, 1.0)
"""Slope, offset and noise of the action as a function of the state: of the policy, and of the one in the buffer.

The buffer holds random actions with mean 0; the policy aims at state 1."""
LEARNING_RATES = (0.001, 0.004, 0.016, 0.064)
SIZES, BATCH_SIZE, STEPS = (2, 64, 64, 1), 128, 800
SEEDS = {"quick": range(5), "paper": range(20)}
ARMS = {
    "without normalisation, target network": (None, "target"),
    "without normalisation, no target network": (None, "online"),
    "batch norm, separate batches, target network": (BatchNorm, "target"),
    "batch norm, target network in eval mode": (BatchNorm, "target, eval mode"),
    "batch norm, joint batch, no target network": (BatchNorm, "joint"),
    "layer norm, target network": ("layer_norm", "target"),
}
"""The normalisation, and what computes the next value."""


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return one cell per arm and learning rate."""
    return {cell: SEEDS[scale] for cell in itertools.product(ARMS, LEARNING_RATES)}


def measure(arm: str, lr: float, *, seed: int, device) -> dict[str, float]:
    """Train a Q network with Adam on new transitions in each step, and compare it in eval mode with exact values.

    Returns:
        over states and actions of the buffer, in units of the standard deviation of the exact values of the policy:
        ``test_error``: root mean square error of the network; ``bias``: mean of its values minus the exact mean;
        ``error_of_buffer_policy``: root mean square distance to the exact values of the buffer's own policy.
    """
    generator = torch.Generator().manual_seed(seed)
    model = trained(arm, lr, seed, generator)
    state, action = draw_buffer(4000, generator)
    with torch.no_grad():
        found = model.eval()(torch.stack((state, action), 1))[:, 0]
    exact, of_buffer = q_values(state, action, POLICY), q_values(state, action, BUFFER)
    scale = exact.std()
    return {
        "test_error": ((found - exact).square().mean().sqrt() / scale).item(),
        "bias": ((found - exact).mean() / scale).item(),
        "error_of_buffer_policy": ((found - of_buffer).square().mean().sqrt() / scale).item(),
    }


def trained(arm: str, lr: float, seed: int, generator: torch.Generator, steps: int = STEPS) -> nn.Module:
    """Train the Q network of an arm; ``generator`` draws the transitions."""
    norm, source = ARMS[arm]
    model = mlp(SIZES, norm, seed=seed)
    target, optimiser = copy.deepcopy(model), torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    ours, theirs = (_parameters_and_statistics(each) for each in (model, target))
    for _ in range(steps):
        state, action = draw_buffer(BATCH_SIZE, generator)
        following = next_state(state, action, torch.randn(BATCH_SIZE, generator=generator))
        now = torch.stack((state, action), 1)
        then = torch.stack((following, act(following, POLICY, 0)), 1)
        values, next_values = both_values(model, target, now, then, source)
        loss = (values - reward(state, action) - DISCOUNT * next_values).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        torch._foreach_lerp_(theirs, ours, TAU)
    return model


def _parameters_and_statistics(model: nn.Module) -> list[Tensor]:
    """Return the parameters and the running statistics, outside the graph of the gradient."""
    return [each for each in model.state_dict().values() if each.is_floating_point()]


def both_values(model: nn.Module, target: nn.Module, now: Tensor, then: Tensor, source: str) -> tuple[Tensor, Tensor]:
    """Return the values now, and then without gradient; ``source`` says what computes the latter, see ``ARMS``."""
    if source == "joint":
        values, next_values = model(torch.cat((now, then)))[:, 0].chunk(2)
        return values, next_values.detach()
    network = model if source == "online" else target.train(source == "target")
    with torch.no_grad():
        next_values = network(then)[:, 0]
    return model(now)[:, 0], next_values


def draw_buffer(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw states and actions of the buffer: those of its policy after many steps, all normally distributed."""
    # The actions do not depend on the state, so the variance of the states solves v = 0.64 v + 0.16 + 0.09.
    state = torch.randn(count, generator=generator) * (0.25 / 0.36) ** 0.5
    return state, act(state, BUFFER, torch.randn(count, generator=generator))


def act(state: Tensor, policy: tuple[float, float, float], noise: Tensor | float) -> Tensor:
    """Return the actions of a policy; ``noise`` has variance 1."""
    slope, offset, deviation = policy
    return slope * state + offset + deviation * noise


def next_state(state: Tensor, action: Tensor, noise: Tensor | float) -> Tensor:
    """Return the next states; ``noise`` has variance 1."""
    return 0.8 * state + 0.4 * action + 0.3 * noise


def reward(state: Tensor, action: Tensor) -> Tensor:
    """Return the reward, which is largest at state 1."""
    return -(state - 1).square() - 0.1 * action.square()


def state_value(policy: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return the coefficients of the exact value of a state, a quadratic polynomial: of 1, of s and of s squared.

    The value of a state is the mean reward there plus ``DISCOUNT`` times the mean value of the next state; comparing
    the coefficients of both sides gives one equation for each.
    """
    slope, offset, noise = policy
    turn, drift, variance = 0.8 + 0.4 * slope, 0.4 * offset, (0.4 * noise) ** 2 + 0.3**2
    square = (-1 - 0.1 * slope**2) / (1 - DISCOUNT * turn**2)
    linear = (2 - 0.2 * slope * offset + DISCOUNT * square * 2 * turn * drift) / (1 - DISCOUNT * turn)
    now = -1 - 0.1 * (offset**2 + noise**2)
    return (now + DISCOUNT * (square * (drift**2 + variance) + linear * drift)) / (1 - DISCOUNT), linear, square


def q_values(state: Tensor, action: Tensor, policy: tuple[float, float, float]) -> Tensor:
    """Return the exact value of an action in a state, if the policy acts afterwards."""
    constant, linear, square = state_value(policy)
    mean = next_state(state, action, 0.0)
    return reward(state, action) + DISCOUNT * (constant + linear * mean + square * (mean.square() + 0.3**2))


EXPERIMENT = Measurement(
    name="perils.target_networks",
    question="What does a Q network with BN learn, if the next values come from another batch, or from the same one?",
    source="Bhatt et al. 2024",
    axes=("arm", "lr"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def at_best_rate(arm: str) -> dict[str, np.ndarray]:
    """Return the committed numbers of an arm at the learning rate with its smallest median error."""
    return load()[arm, best_rates(load(), EXPERIMENT.axes, "test_error")[arm,].rate]


def error_rows() -> list[dict]:
    """Return for ``tables.Table`` the errors of each arm at its best learning rate."""
    rates = best_rates(load(), EXPERIMENT.axes, "test_error")
    return [
        {
            "normalisation": arm.partition(", ")[0],
            "batches, next value": arm.partition(", ")[2],
            "learning rate": f"{rates[arm,].rate:g}",
            ("root mean square distance to the exact values", "of the policy"): at_best_rate(arm)["test_error"],
            ("root mean square distance to the exact values", "of the random actions"): at_best_rate(arm)[
                "error_of_buffer_policy"
            ],
        }
        for arm in ARMS
    ]
