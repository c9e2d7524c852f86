"""Compare time and memory of a training step of the contest's network with each of its norms with those of batch norm.

``python benchmarks/rivals.py`` prints, for each batch size, the time of a step over that with batch norm, the memory
that the forward pass keeps for the backward pass, and the size of the buffers; with ``--save`` it also writes
``data/results/benchmarks/rivals_DEVICE.json``. The norms are those of
``bnlib.experiments.full_normalization.rivals`` in their first settings. A step is a forward and a backward pass and a
step of SGD. The row "noise" compares batch norm with itself.
"""

from __future__ import annotations

import itertools
import time

import numpy as np
import torch
from layers import main
from new_tensors import NewTensors
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bnlib.experiments.full_normalization import rivals

ROUNDS = 31
BASE = "batch norm"


class Network:
    """The contest's network with one norm, and what is needed for a step of its training."""

    def __init__(self, norm: str, device: str) -> None:
        self.model = rivals.model(norm, next(iter(rivals.NORMS[norm])), seed=0).to(device)
        self.optimiser = torch.optim.SGD(self.model.parameters(), 1e-4)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of a batch."""
        return cross_entropy(self.model(x), y)

    def step(self, x: Tensor, y: Tensor) -> None:
        """Do one step of training."""
        self.optimiser.zero_grad()
        self.loss(x, y).backward()
        self.optimiser.step()


def seconds(network: Network, x: Tensor, y: Tensor, steps: int) -> float:
    """Return the time of ``steps`` steps: processor time on the CPU, so that other work does not count."""
    wait = torch.cuda.synchronize if x.is_cuda else lambda: None
    clock = time.perf_counter if x.is_cuda else time.process_time
    wait()
    began = clock()
    for _ in range(steps):
        network.step(x, y)
    wait()
    return clock() - began


def kept_by_forward(network: Network, x: Tensor, y: Tensor) -> int:
    """Return the bytes that a forward pass keeps for the backward pass."""
    with NewTensors() as new:
        loss = network.loss(x, y)
    assert loss.requires_grad
    return new.alive


def state(model: nn.Module) -> int:
    """Return the bytes of the buffers, which a norm keeps between steps."""
    return sum(each.untyped_storage().nbytes() for each in model.buffers())


def measure_size(batch_size: int, device: str) -> list[dict]:
    """Measure and print all norms at a batch size, in interleaved rounds."""
    data = rivals.images()
    x, y = data.train_x[:batch_size].to(device), data.train_y[:batch_size].to(device)
    networks = {"noise": Network(BASE, device)} | {norm: Network(norm, device) for norm in rivals.NORMS}
    for network in networks.values():  # the optimiser, and averages over the last batches, are made by then
        seconds(network, x, y, 20)
    times = np.array([[seconds(each, x, y, 3) for each in networks.values()] for _ in range(ROUNDS)])
    base = list(networks).index(BASE)
    quartiles = np.percentile(times / times[:, [base]], [25, 50, 75], axis=0).T
    rows = []
    for (name, network), (low, middle, high) in zip(networks.items(), quartiles, strict=True):
        row = {
            "norm": name,
            "batch_size": batch_size,
            "quartiles_of_ratio": [round(float(q), 3) for q in (low, middle, high)],
        }
        row |= {"kept_bytes": kept_by_forward(network, x, y), "state_bytes": state(network.model)}
        print(
            f"b = {batch_size:2}  {name:28} time {middle:5.2f} ({low:.2f} to {high:.2f})  "
            f"kept {row['kept_bytes'] / 1024:7.0f} KiB  buffers {row['state_bytes'] / 1024:5.1f} KiB",
            flush=True,
        )
        rows.append(row)
    return rows


def measure(device: str) -> list[dict]:
    """Measure all norms at all batch sizes of the contest."""
    return list(itertools.chain.from_iterable(measure_size(size, device) for size in rivals.BATCH_SIZES))


if __name__ == "__main__":
    main("rivals", __doc__, measure)
