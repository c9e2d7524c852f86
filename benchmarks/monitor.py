"""Compare the time of a training step with ``bnlib.Monitor`` and without it.

``python benchmarks/monitor.py`` prints the ratios; with ``--save`` it also writes
``data/results/benchmarks/monitor_DEVICE.json``.
Two copies of a network train side by side, one of them with a monitor, and take turns after each step. After half of
the steps the other copy has the monitor, because a copy can be slower by 3 % for the place of its memory. The monitor
measures every 20 steps, which form a cycle. The first four steps of a cycle contain the measurement, and in the others
the monitor only counts. For each of the two kinds, the median of the ratios of steps side by side is taken, so that
other programs hardly matter; the ratio is their mean over as many steps as lie between two measurements at the
monitor's default, and its range is that over five parts of the cycles. The row "noise" compares two copies without a
monitor.
"""

import copy
import inspect
import time
from collections.abc import Callable

import numpy as np
import torch
from layers import main
from torch import nn
from torch.nn import functional as F

import bnlib
from bnlib import models

EVERY = inspect.signature(bnlib.Monitor).parameters["every"].default
"""The default number of steps from one measurement to the next."""

CYCLE, WITH_A_MEASUREMENT = 20, 4
"""The number of steps from one measurement to the next in this benchmark, and how many of them contain it."""


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "mlp 64-50-50-10": (lambda: models.mlp((64, 50, 50, 10), nn.BatchNorm1d), (32, 64), 100),
    "mlp 784-256-256-10": (lambda: models.mlp((784, 256, 256, 10), nn.BatchNorm1d), (64, 784), 60),
    "deep stack, 30 layers of 64": (lambda: models.deep_stack(30, 64, nn.BatchNorm1d), (64, 50), 30),
    "small convolutional network": (lambda: models.small_cnn(10, 1, nn.BatchNorm2d, width=8), (16, 1, 28, 28), 40),
    "ResNet-18, width 8": (lambda: models.resnet18(10, 3, nn.BatchNorm2d, width=8), (8, 3, 16, 16), 30),
}


def seconds(model: nn.Module, optimiser: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the time of a training step: on the CPU that of the processor, which other programs change little."""
    wait, clock = (torch.cuda.synchronize, time.perf_counter) if x.is_cuda else (lambda: None, time.thread_time)
    wait()
    began = clock()
    optimiser.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimiser.step()
    wait()
    return clock() - began


def times(model: nn.Module, x: torch.Tensor, cycles: int, watched: bool) -> np.ndarray:
    """Return the times of two copies of a model, of which one perhaps has a monitor; shape (2, 2, cycles, CYCLE).

    The first index says which of the copies has the monitor, and the second is 0 for this copy and 1 for the other.
    """
    y = torch.randint(0, 10, (len(x),), device=x.device)
    pair = [model, copy.deepcopy(model)]
    trained = [(each, torch.optim.SGD(each.parameters(), lr=0.01)) for each in pair]
    found = np.zeros((2, 2, cycles + 1, CYCLE))
    for first in (0, 1):
        monitor = bnlib.Monitor(pair[first], every=CYCLE, warn=False) if watched else None
        for cycle in range(cycles + 1):
            for step in range(CYCLE):
                for which in (0, 1) if (step + cycle) % 2 else (1, 0):
                    found[first, which ^ first, cycle, step] = seconds(*trained[which], x, y)
        if monitor is not None:
            monitor.remove()
    return found[:, :, 1:]


def ratio(found: np.ndarray) -> float:
    """Return the time of ``EVERY`` steps of the copy with the monitor divided by that of the other one."""
    return round(float(np.prod([_ratio(*each) for each in found]) ** 0.5), 4)


def _ratio(first: np.ndarray, second: np.ndarray) -> float:
    # The copies take turns in being first, so two steps in a row have no bias.
    counting = np.log(first / second)[:, WITH_A_MEASUREMENT:].reshape(len(first), -1, 2).mean(2)
    measuring = first[:, :WITH_A_MEASUREMENT].sum(1) / second[:, :WITH_A_MEASUREMENT].sum(1)
    share = WITH_A_MEASUREMENT / EVERY
    return share * np.median(measuring) + (1 - share) * np.exp(np.median(counting))


def compare_all(device: str) -> list[dict]:
    """Compare all networks."""
    rows = []
    for name, (make, shape, cycles) in NETWORKS.items():
        x = torch.randn(shape, device=device)
        for watched in (True, False):
            found = times(make().to(device), x, cycles, watched)
            whole, parts = ratio(found), [ratio(part) for part in np.array_split(found, 5, axis=2)]
            what, step = "with a monitor" if watched else "noise", 1e6 * float(np.median(found[:, 1]))
            print(f"{name:30} {what:16} {whole:6.4f} ({min(parts):.4f} to {max(parts):.4f}), {step:.0f} us", flush=True)
            row = {
                "network": name,
                "what": what,
                "every": EVERY,
                "batch": list(shape),
                "microseconds_per_step": round(step),
            }
            rows.append({**row, "ratio": whole, "range": [min(parts), max(parts)]})
    return rows


if __name__ == "__main__":
    main("monitor", __doc__, compare_all)
