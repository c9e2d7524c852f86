"""Cells of ``many_machines`` with real processes, DistributedDataParallel and gloo; messages and bytes are counted."""

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
from bnlib.experiments.experiment import Scale
from bnlib.experiments.many_machines import JOINED, LEARNING_RATE, METHODS, digits, judge, network, simulate
from bnlib.experiments.measurement import Measurement
from bnlib.samplers import PerWorker

WORKERS, SKEWS = (2, 4), (0.0, 1.0)
STEPS = 60
"""A fifth of those of ``many_machines``: where processes outnumber cores, a message waits for its turn."""
_BUFFERS = "forward_sync_buffers"
if _BUFFERS not in signature(DistributedDataParallel).parameters:
    _BUFFERS = "broadcast_buffers"  # its name before torch 2.13
SEEDS = {"quick": range(3), "paper": range(10)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Each method in as many processes as two cores bear, without skew and with all of it."""
    methods = [method for method in METHODS if method != "no norm"]
    return {setting: SEEDS[scale] for setting in itertools.product(methods, WORKERS, SKEWS)}


def _layer(method: str) -> Callable[[int], nn.Module] | str | None:
    """What a process of its own needs to do what ``METHODS`` does with the joined batch."""
    shared = partial(FullNorm, process_group=torch.distributed.group.WORLD)
    return {"SyncBN": SyncBatchNorm, "shared FN": shared}.get(method, METHODS[method].norm)


class _Counter:
    """Messages and bytes that this process hands over, of all kinds and of gradients."""

    def __init__(self) -> None:
        self.all, self.gradients = np.zeros(2), np.zeros(2)

    def all_reduce(self, tensor, *args, send=torch.distributed.all_reduce, **options):
        self.all += 1, tensor.nbytes
        return send(tensor, *args, **options)

    def hook(self, group, bucket):
        self.gradients += 1, bucket.buffer().nbytes
        return allreduce_hook(group, bucket)


def work(method: str, skew: float, seed: int, batch_size: int, steps: int, broadcast: bool = False) -> dict:
    """Train in the processes that call this; see ``distributed.together``.

    Arguments:
        method, skew, seed, batch_size, steps: see ``many_machines.simulate``.
        broadcast: let DistributedDataParallel overwrite the running statistics with those of process 0 before each
            forward pass, as it does by default.

    Returns:
        ``state``: this process's; ``statistics`` and ``gradients``: messages and bytes of a step.
    """
    torch.set_num_threads(1)
    rank, workers = distributed.world()
    data, counter = digits(), _Counter()
    torch.distributed.all_reduce = counter.all_reduce
    model = network(_layer(method), seed).train()
    called = DistributedDataParallel(model, **{_BUFFERS: broadcast})
    called.register_comm_hook(None, counter.hook)
    optimiser = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    stream = PerWorker(rank, workers, skew=skew)(data.train_y, batch_size, seed)
    for index in itertools.islice(stream, steps):
        optimiser.zero_grad()
        F.cross_entropy(called(data.train_x[index]), data.train_y[index]).backward()
        optimiser.step()
    return {
        "state": {name: value.numpy() for name, value in model.state_dict().items()},
        "statistics": (counter.all - counter.gradients) / steps,
        "gradients": counter.gradients / steps,
    }


def work_on(settings: Sequence[tuple[str, bool]], *arguments) -> list[dict]:
    """``work`` for several pairs of method and ``broadcast``, one after the other in the same processes."""
    return [work(method, *arguments, broadcast=broadcast) for method, broadcast in settings]


def apart(states: Sequence[dict[str, np.ndarray]], models: Sequence[nn.Module]) -> float:
    """Largest difference of parameters and running statistics between processes and the workers of a simulation.

    FullNorm's estimates of gradients are left out: those of a process are for its own mean loss.
    """
    return max(
        float(np.abs(state[name] - value.numpy()).max())
        for state, model in zip(states, models, strict=True)
        for name, value in model.state_dict().items()
        if "running_grad" not in name
    )


def measure(method: str, workers: int, skew: float, *, seed: int, device) -> dict[str, float]:
    """Train in real processes, judge, and count.

    Returns:
        The errors of ``many_machines.judge``; ``agrees``: 1 if no number is further than 1e-6 from the simulation; what
        each process sends in a step: ``messages`` and ``bytes`` of statistics, ``gradient_messages`` and
        ``gradient_bytes``.
    """
    size = JOINED // workers
    done = distributed.together(work, workers, method, skew, seed, size, STEPS)
    ((_, models),) = simulate(method, workers, skew, seed, batch_size=size, steps=STEPS, lr=LEARNING_RATE)
    agrees = float(apart([each["state"] for each in done], models) < 1e-6)
    for model, each in zip(models, done, strict=True):
        model.load_state_dict({name: torch.as_tensor(value) for name, value in each["state"].items()})
    sent = dict(zip(("messages", "bytes"), done[0]["statistics"], strict=True))
    sent |= dict(zip(("gradient_messages", "gradient_bytes"), done[0]["gradients"], strict=True))
    return judge(models, size, skew, seed) | {"agrees": agrees} | sent


EXPERIMENT = Measurement(
    name="many_processes",
    question="Do real processes do what the simulated workers of many_machines do, and what do they send?",
    source="Lian and Liu 2019, sections 1 and 4, on distributed training",
    axes=("method", "workers", "skew"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """The committed result."""
    return EXPERIMENT.load("quick")
