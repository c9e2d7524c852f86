"""Training in several processes that ``torchrun`` starts, each of which draws batches from its own shard of the data.

The set of batches is the union of the batches of all workers, as in section 4 of Lian and Liu (2019). Batch
Normalization uses the statistics of the worker's own batch, ``SyncBatchNorm`` those of the global batch, and Full
Normalization shares one set of estimates between the workers.
"""

from __future__ import annotations

import copyreg
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from bnlib.arguments import check_integer, check_kind, check_usual
from bnlib.norm import FullNorm
from bnlib.processes import run_jobs

T = TypeVar("T")


def rank_and_world_size() -> tuple[int, int]:
    """Return the rank of this process and the number of processes that train together; (0, 1) for a single process.

    Example:
        >>> distributed.rank_and_world_size()
        (0, 1)
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


@contextmanager
def join_process_group(device: str) -> Iterator[str]:
    """Join the process group of ``torchrun`` for the duration of a ``with`` block and yield the device of this process.

    Without ``torchrun`` it does nothing and yields ``device``.

    Arguments:
        device: ``"cuda"`` uses NCCL and gives each process of a machine its own GPU; ``"cpu"`` uses gloo.

    Raises:
        ValueError: if ``device`` is none, or this machine has fewer GPUs than processes.

    Example:
        >>> with distributed.join_process_group("cpu") as device:
        ...     print(device, distributed.rank_and_world_size())
        cpu (0, 1)
    """
    try:
        torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be a device such as 'cpu' or 'cuda', got {device!r}") from error
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
        _wait_for_the_others()
    finally:
        distributed.destroy_process_group()


def run_in_processes(function: Callable[..., T], workers: int, *arguments: Any) -> list[T]:
    """Call ``function(*arguments)`` in several new processes of this machine that form one process group (gloo).

    Arguments:
        function: a function that can be imported. It can call ``rank_and_world_size`` to find out its rank. Its result
            must be picklable and must not contain tensors.
        workers: number of processes, at least 1.
        arguments: arguments of the function, the same in all processes.

    Returns:
        The results of the processes in the order of their ranks.

    Raises:
        TypeError: if ``function`` cannot be called or ``workers`` is not an integer.
        ValueError: if ``function`` cannot be imported, such as a lambda, or ``workers`` is below 1.

    Example:
        >>> distributed.run_in_processes(distributed.rank_and_world_size, 2)
        [(0, 2), (1, 2)]
    """
    if not callable(function):
        raise TypeError(f"function must be a function that can be imported, got {function!r}")
    if "<" in getattr(function, "__qualname__", ""):
        raise ValueError(f"function must be defined in a module, where other processes find it, got {function!r}")
    check_integer("workers", workers)
    with tempfile.TemporaryDirectory() as folder:
        jobs = [(function, rank, workers, folder, arguments) for rank in range(workers)]
        preload = [__name__, function.__module__, "torch._dynamo"]  # the last one is imported by every optimiser
        done = dict(run_jobs(_call_in_group, jobs, workers, preload))
    return [done[rank] for rank in range(workers)]


def _call_in_group(function: Callable[..., T], rank: int, workers: int, folder: str, arguments: tuple) -> tuple[int, T]:
    # If one process fails, the others should not wait for gloo's default of half an hour.
    limit = timedelta(minutes=2)
    meet = f"file://{folder}/meet"
    distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=workers, timeout=limit)
    try:
        distributed.barrier()
        result = function(*arguments)
        _wait_for_the_others()
        return rank, result
    finally:
        distributed.destroy_process_group()


def _wait_for_the_others() -> None:
    # A process must not disconnect while another one is still connecting, for example to a group that was made last:
    # PyTorch does not wait after new_group. A process that failed reports its own error.
    with suppress(RuntimeError):
        distributed.barrier()


def data_parallel(model: nn.Module) -> nn.Module:
    """Wrap ``model`` so that its gradients are averaged over all processes; a single process gets ``model`` itself.

    Full Normalization layers without a process group get the group of all processes. The model can still be copied and
    stored: a copy has the same group, and a model that is loaded in another process has the group of that name there,
    or none if that process works alone.

    Raises:
        TypeError: if ``model`` is not an ``nn.Module``.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> distributed.data_parallel(model) is model  # a single process
        True
    """
    check_kind("model", model, nn.Module, "an nn.Module")
    if rank_and_world_size()[1] == 1:
        return model
    for layer in model.modules():
        if isinstance(layer, FullNorm) and layer.process_group is None:
            layer.process_group = distributed.group.WORLD
    device = next(model.parameters()).device
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def _group_named(name: str, of_all: bool) -> distributed.ProcessGroup | None:
    """Return the process group that ``_name_of`` describes in this process."""
    if not distributed.is_initialized():
        return None
    if of_all:
        return distributed.group.WORLD
    groups = {known: group for group, known in distributed.distributed_c10d._world.pg_names.items()}
    if name not in groups:
        raise RuntimeError(
            f"process_group {name!r} must exist where a model that uses it is loaded; make the groups first, in the "
            "same order as where the model was stored"
        )
    return groups[name]


def _name_of(group: distributed.ProcessGroup) -> tuple:
    return _group_named, (group.group_name, group is distributed.group.WORLD)


# A layer may hold a process group, which PyTorch can neither copy nor store: copy.deepcopy, torch.save and
# AveragedModel would fail for every model with such a layer.
if distributed.is_available():
    copyreg.pickle(distributed.ProcessGroup, _name_of)


def mean_over_processes(values: Tensor) -> Tensor:
    """Return the elementwise mean of a tensor over all processes.

    Example:
        >>> distributed.mean_over_processes(torch.tensor([1.0, 2.0]))  # a single process
        tensor([1., 2.])
    """
    check_usual(values=values)
    size = rank_and_world_size()[1]
    if size == 1:
        return values
    total = values.cuda() if distributed.get_backend() == "nccl" else values.clone()
    distributed.all_reduce(total)
    return total.to(values.device) / size


def broadcast_from_rank_0(value: T) -> T:
    """Return the value that process 0 passed, in every process.

    Arguments:
        value: a picklable object; its value matters in process 0 only.

    Example:
        >>> distributed.broadcast_from_rank_0("continue")
        'continue'
    """
    if rank_and_world_size()[1] == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]
