"""Training in several processes, which ``torchrun`` starts: each has a shard of the data and draws its own batches.

The set of batches is then the union of those of all workers, as in section 3 of Lian and Liu (2019). Batch
normalisation takes the statistics of a worker's own batch; Full Normalization shares one set of estimates.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from bnlib.norm import FullNorm

T = TypeVar("T")


def world() -> tuple[int, int]:
    """Number of this process and of all that train together; 0 and 1 if this one is alone."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the processes that ``torchrun`` has started, if it has, and yield the device of this one.

    Arguments:
        device: ``"cuda"`` gives each process of a machine a GPU of its own (NCCL); ``"cpu"`` is for gloo.

    Raises:
        ValueError: fewer GPUs than processes on this machine.
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


def spread(model: nn.Module) -> nn.Module:
    """What to call in place of ``model`` so that the gradients are the means over all processes."""
    if world()[1] == 1:
        return model
    for layer in model.modules():
        if isinstance(layer, FullNorm) and layer.process_group is None:
            layer.process_group = distributed.group.WORLD
    device = next(model.parameters()).device
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def mean(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    size = world()[1]
    if size == 1:
        return values
    total = values.cuda() if distributed.get_backend() == "nccl" else values.clone()
    distributed.all_reduce(total)
    return total.to(values.device) / size


def agreed(value: T) -> T:
    """What process 0 says, which all must know or do alike."""
    if world()[1] == 1:
        return value
    said = [value]
    distributed.broadcast_object_list(said)
    return said[0]
