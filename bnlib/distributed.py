"""Training in several processes, which ``torchrun`` starts: each has a shard of the data and draws its own batches.

The set of batches is then the union of those of all workers, as in section 4 of Lian and Liu (2019). Batch
normalisation takes the statistics of a worker's own batch, ``SyncBatchNorm`` those of the joined batch; Full
Normalization shares one set of estimates.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from bnlib.norm import FullNorm
from bnlib.processes import run_jobs

T = TypeVar("T")


def rank_and_world_size() -> tuple[int, int]:
    """Number of this process and of all that train together; 0 and 1 if this one is alone.

    Example:
        >>> distributed.rank_and_world_size()
        (0, 1)
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


@contextmanager
def join_process_group(device: str) -> Iterator[str]:
    """Join the processes that ``torchrun`` has started, if it has, and yield the device of this one.

    Arguments:
        device: ``"cuda"`` gives each process of a machine a GPU of its own (NCCL); ``"cpu"`` is for gloo.

    Raises:
        ValueError: fewer GPUs than processes on this machine.

    Example:
        >>> with distributed.join_process_group("cpu") as device:
        ...     print(device, distributed.rank_and_world_size())
        cpu (0, 1)
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield device
        return
    on_gpu, local = torch.device(device).type == "cuda", int(os.environ["LOCAL_RANK"])
    if on_gpu and local >= torch.cuda.device_count():
        raise ValueError(
            f"torchrun must start one process for each GPU of this machine ({torch.cuda.device_count()}), got process "
            f"{local + 1}"
        )
    device = f"cuda:{local}" if on_gpu else device
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def run_in_processes(function: Callable[..., T], workers: int, *arguments: Any) -> list[T]:
    """Call ``function(*arguments)`` in ``workers`` new processes of this machine, which are joined with gloo.

    Arguments:
        function: one that can be imported; what it returns must be such as can be pickled, and no tensors.
        workers: at least 1.
        arguments: the same for all; ``rank_and_world_size`` says who is who.

    Returns:
        What each process has returned, by its number.

    Example:
        >>> distributed.run_in_processes(distributed.rank_and_world_size, 2)
        [(0, 2), (1, 2)]
    """
    with tempfile.TemporaryDirectory() as folder:
        jobs = [(function, rank, workers, folder, arguments) for rank in range(workers)]
        done = dict(run_jobs(_call_joined, jobs, workers, preload=[__name__, function.__module__]))
    return [done[rank] for rank in range(workers)]


def _call_joined(function: Callable[..., T], rank: int, workers: int, folder: str, arguments: tuple) -> tuple[int, T]:
    # Who waits for one that has failed must not do so for gloo's half an hour.
    limit = timedelta(minutes=2)
    meet = f"file://{folder}/meet"
    distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=workers, timeout=limit)
    try:
        # One that is done at once must not hang up while another is still connecting.
        distributed.barrier()
        return rank, function(*arguments)
    finally:
        distributed.destroy_process_group()


def data_parallel(model: nn.Module) -> nn.Module:
    """What to call in place of ``model`` so that the gradients are the means over all processes.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> distributed.data_parallel(model) is model  # nothing to do for a single process
        True
    """
    if rank_and_world_size()[1] == 1:
        return model
    for layer in model.modules():
        if isinstance(layer, FullNorm) and layer.process_group is None:
            layer.process_group = distributed.group.WORLD
    device = next(model.parameters()).device
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes.

    Example:
        >>> distributed.mean_over_processes(torch.tensor([1.0, 2.0]))  # of one process
        tensor([1., 2.])
    """
    size = rank_and_world_size()[1]
    if size == 1:
        return values
    total = values.cuda() if distributed.get_backend() == "nccl" else values.clone()
    distributed.all_reduce(total)
    return total.to(values.device) / size


def broadcast_from_rank_0(value: T) -> T:
    """What process 0 says, which all must know or do alike.

    Example:
        >>> distributed.broadcast_from_rank_0("go on")
        'go on'
    """
    if rank_and_world_size()[1] == 1:
        return value
    said = [value]
    distributed.broadcast_object_list(said)
    return said[0]
