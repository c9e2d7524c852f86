"""Repeat cells of ``label_skew`` in real processes with DistributedDataParallel and gloo; count messages and bytes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cache, partial
from inspect import signature

import numpy as np
import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from bnlib import FullNorm, SyncBatchNorm, distributed
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.machines.label_skew import GLOBAL_BATCH_SIZE, LEARNING_RATE, METHODS, digits, network, simulate
from bnlib.samplers import PerWorker
from bnlib.training import error_rate

WORKERS, SKEWS, STEPS = (2, 4), (0.0, 1.0), 20
"""Few steps, because messages are slow if processes outnumber cores."""
COMPARED = tuple(method for method in METHODS if method != "without normalisation")
_BUFFERS = "forward_sync_buffers"
if _BUFFERS not in signature(DistributedDataParallel).parameters:
    _BUFFERS = "broadcast_buffers"  # its name before torch 2.13
SEEDS = {"quick": range(2), "paper": range(10)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return two and four processes, without label skew and with full skew."""
    return {setting: SEEDS[scale] for setting in itertools.product(WORKERS, SKEWS)}


def _layer(method: str) -> Callable[[int], nn.Module] | str | None:
    """Return the norm with which a process normalises as ``METHODS`` does in the simulation."""
    shared = partial(FullNorm, process_group=torch.distributed.group.WORLD)
    return {"SyncBN": SyncBatchNorm, "shared FN": shared}.get(method, METHODS[method].norm)


class _Counter:
    """Count the messages and bytes that this process sends, in total and for gradients."""

    def __init__(self) -> None:
        self.all, self.gradients = np.zeros(2), np.zeros(2)

    def all_reduce(self, tensor, *args, send=torch.distributed.all_reduce, **options):
        self.all += 1, tensor.nbytes
        return send(tensor, *args, **options)

    def all_gather(self, found, tensor, *args, send=torch.distributed.all_gather, **options):
        self.all += 1, tensor.nbytes
        return send(found, tensor, *args, **options)

    def hook(self, group, bucket):
        self.gradients += 1, bucket.buffer().nbytes
        return allreduce_hook(group, bucket)


def train_in_process(
    method: str, x: np.ndarray, y: np.ndarray, skew: float, seed: int, batch_size: int, steps: int, broadcast: bool
) -> dict:
    """Train in each process that calls this function; see ``distributed.run_in_processes``.

    Arguments:
        x, y: the training data of all workers; this process takes its shard.
        method, skew, seed, batch_size, steps: see ``label_skew.simulate``.
        broadcast: overwrite the running statistics with those of process 0 before each step, the default of
            DistributedDataParallel.

    Returns:
        ``state``: state dict of this process; ``statistics`` and ``gradients``: messages and bytes per step.
    """
    torch.set_num_threads(1)
    rank, workers = distributed.rank_and_world_size()
    x, y, counter = torch.from_numpy(x), torch.from_numpy(y), _Counter()
    torch.distributed.all_reduce, torch.distributed.all_gather = counter.all_reduce, counter.all_gather
    model = network(_layer(method), seed).train()
    called = DistributedDataParallel(model, **{_BUFFERS: broadcast})
    called.register_comm_hook(None, counter.hook)
    optimiser = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    stream = PerWorker(rank, workers, skew=skew)(y, batch_size, seed)
    for index in itertools.islice(stream, steps):
        optimiser.zero_grad()
        F.cross_entropy(called(x[index]), y[index]).backward()
        optimiser.step()
    return {
        "state": {name: value.numpy() for name, value in model.state_dict().items()},
        "statistics": (counter.all - counter.gradients) / steps,
        "gradients": counter.gradients / steps,
    }


def _train_all_in_process(settings: Sequence[tuple[str, bool]], *arguments) -> list[dict]:
    return [train_in_process(method, *arguments, broadcast) for method, broadcast in settings]


def run(
    settings: Sequence[tuple[str, bool]], workers: int, skew: float, seed: int, *, batch_size: int, steps: int
) -> list[list[dict]]:
    """Run ``train_in_process`` for each pair of method and ``broadcast``; return its results, one per process.

    The processes are started once and receive the data, which is faster than loading them.
    """
    data = digits().train_x.numpy(), digits().train_y.numpy()
    done = distributed.run_in_processes(_train_all_in_process, workers, settings, *data, skew, seed, batch_size, steps)
    return [list(each) for each in zip(*done, strict=True)]


def largest_difference(states: Sequence[dict[str, np.ndarray]], models: Sequence[nn.Module]) -> float:
    """Return the largest difference of parameters and running statistics between processes and simulated workers.

    FullNorm's gradient estimates are excluded: a process estimates them for its own mean loss.
    """
    return max(
        float(np.abs(state[name] - value.numpy()).max())
        for state, model in zip(states, models, strict=True)
        for name, value in model.state_dict().items()
        if "running_grad" not in name
    )


def measure(workers: int, skew: float, *, seed: int, device) -> dict[str, list]:
    """Train in real processes, compare with the simulation, and count messages.

    Returns:
        lists over ``COMPARED``: ``agrees``: 1 if every weight and running statistic is within 1e-6 of the simulation;
        ``error``: test error (a share) with the statistics of process 0; ``statistics`` and ``gradients``: messages and
        bytes that a process sends per step.
    """
    size, found = GLOBAL_BATCH_SIZE // workers, {"agrees": [], "error": [], "statistics": [], "gradients": []}
    done = run([(method, False) for method in COMPARED], workers, skew, seed, batch_size=size, steps=STEPS)
    for method, each in zip(COMPARED, done, strict=True):
        ((_, models),) = simulate(method, workers, skew, seed, batch_size=size, steps=STEPS, lr=LEARNING_RATE)
        found["agrees"].append(float(largest_difference([one["state"] for one in each], models) < 1e-6))
        models[0].load_state_dict({name: torch.as_tensor(value) for name, value in each[0]["state"].items()})
        found["error"].append(error_rate(models[0], digits().test_x, digits().test_y))
        for name in ("statistics", "gradients"):
            found[name].append(each[0][name].tolist())
    return found


EXPERIMENT = Measurement(
    name="machines.real_processes",
    question="Do real processes agree with the simulated workers, and how much do they send?",
    source="Lian and Liu 2019, sections 1 and 4, on distributed training",
    axes=("workers", "skew"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def message_rows(workers: int = 4, skew: float = 1.0) -> list[dict]:
    """Return the messages and bytes that a process sends per step by method, counted; bytes have four digits."""
    found = load()[workers, skew]
    rows = []
    for number, method in enumerate(COMPARED):
        row: dict = {"method": method}
        for name in ("statistics", "gradients"):
            messages, size = found[name][0, number]
            row[name, "messages"], row[name, "kB"] = int(messages), size / 1000
        rows.append(row)
    return rows
