"""Two processes: DistributedDataParallel, FSDP2, averaged parameters, and checkpoints that all of them write."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable

import torch
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint as distributed_checkpoint
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.distributed.algorithms.model_averaging.utils import average_parameters
from torch.distributed.checkpoint import DefaultSavePlanner
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from bnlib.distributed import run_in_processes
from bnlib.norm import SyncBatchNorm
from bnlib.torch_parts.measuring import (
    BATCH,
    Measured,
    Numbers,
    Part,
    attempt,
    network,
    statistics,
    train,
    without_warnings,
)


def _batch(rank: int) -> Tensor:
    """Return the batch of a process: the mean is 10 in process 0 and 40 in process 1, the variance 1 and 4."""
    return BATCH if rank == 0 else 2 * BATCH + 20


def _train(called: nn.Module) -> None:
    for _ in range(3):
        called(_batch(distributed.get_rank())).square().sum().backward()


def _ddp(sync: bool = False, **options) -> Numbers:
    model = network(SyncBatchNorm(1) if sync else None)
    _train(DistributedDataParallel(model, **options))
    return statistics(model)


def _ddp_at_inference(wrapped: bool) -> Numbers:
    model = network()
    called = DistributedDataParallel(model)
    _train(called)
    (called if wrapped else called.module).eval()(BATCH)
    return statistics(model)


def _fsdp(sync: bool = False) -> Numbers:
    model = network(SyncBatchNorm(1) if sync else None)
    _train(fully_shard(model, mesh=_mesh()))
    return statistics(model)


def _fsdp_in_half_precision(apart: bool) -> Numbers:
    model, policy = network(), MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    if apart:
        fully_shard(model[1], mesh=_mesh())
    _train(fully_shard(model, mesh=_mesh(), mp_policy=policy))
    return statistics(model)


def _mesh():
    return distributed.device_mesh.init_device_mesh("cpu", (2,))


def _averager(buffers: bool) -> Numbers:
    model, averager = network(), PeriodicModelAverager(period=1, warmup_steps=0)
    for _ in range(3):
        model(_batch(distributed.get_rank())).square().sum().backward()
        averager.average_parameters(model.parameters())
        if buffers:
            average_parameters((model[1].running_mean, model[1].running_var), distributed.group.WORLD)
    return statistics(model)


def _checkpoint(folder: str, **options) -> Numbers:
    model, loaded = network(), network()
    _train(DistributedDataParallel(model))
    distributed_checkpoint.save(model.state_dict(), checkpoint_id=folder, **options)
    state = loaded.state_dict()
    distributed_checkpoint.load(state, checkpoint_id=folder)
    loaded.load_state_dict(state)
    return statistics(loaded)


def _all(folder: str) -> dict[str, Numbers]:
    """Measure everything in this process, which is one of two."""
    torch.set_num_threads(1)
    lowest = DefaultSavePlanner(dedup_save_to_lowest_rank=True)
    questions: dict[str, Callable[[], Numbers]] = {
        "ddp": _ddp,
        "ddp, no broadcast": lambda: _ddp(broadcast_buffers=False),
        "ddp, sync": lambda: _ddp(sync=True),
        "ddp, eval": lambda: _ddp_at_inference(wrapped=True),
        "ddp, module": lambda: _ddp_at_inference(wrapped=False),
        "fsdp": _fsdp,
        "fsdp, sync": lambda: _fsdp(sync=True),
        "fsdp, bfloat16": lambda: attempt(lambda: _fsdp_in_half_precision(apart=False)),
        "fsdp, bfloat16, apart": lambda: _fsdp_in_half_precision(apart=True),
        "averager": lambda: _averager(buffers=False),
        "averager, buffers": lambda: _averager(buffers=True),
        "checkpoint": lambda: _checkpoint(f"{folder}/plain"),
        "checkpoint, lowest": lambda: _checkpoint(f"{folder}/lowest", planner=lowest),
    }
    with without_warnings():
        return {name: question() for name, question in questions.items()}


@functools.cache
def _measured() -> list[dict[str, Numbers]]:
    """Return what the two processes measured; they are started once for all parts."""
    with tempfile.TemporaryDirectory() as folder:
        return run_in_processes(_all, 2, folder)


def _of_both(name: str) -> Numbers:
    """Return the running statistics of both processes."""
    return {
        f"{what}, process {rank}": each[name][what]
        for rank, each in enumerate(_measured())
        for what in ("running mean", "running variance")
    }


def _of_the_global_batch() -> Numbers:
    found = train(network(), batches=[torch.cat([_batch(0), _batch(1)])] * 3)
    names = ("running mean", "running variance")
    return {f"{what}, process {rank}": found[what] for rank in range(2) for what in names}


def data_parallel() -> Measured:
    """Train with DistributedDataParallel, which sends the buffers of process 0 to the others before each pass."""
    return Measured(_of_the_global_batch(), _of_both("ddp"), _of_both("ddp, sync"))


def data_parallel_without_broadcast() -> Measured:
    """Train with DistributedDataParallel and ``broadcast_buffers=False``."""
    return Measured(_of_the_global_batch(), _of_both("ddp, no broadcast"), _of_both("ddp, sync"))


def data_parallel_at_inference() -> Measured:
    """Call the wrapper in eval mode after training, and look at process 1."""
    before, after, remedied = (_measured()[1][name] for name in ("ddp", "ddp, eval", "ddp, module"))
    return Measured(before, after, remedied)


def sharded() -> Measured:
    """Train with FSDP2, which shards parameters only."""
    return Measured(_of_the_global_batch(), _of_both("fsdp"), _of_both("fsdp, sync"))


def sharded_in_half_precision() -> Measured:
    """Train with FSDP2 and parameters in bfloat16; the remedy shards the batch norm by itself, in float32."""
    found, remedied = (_measured()[0][name] for name in ("fsdp, bfloat16", "fsdp, bfloat16, apart"))
    return Measured(train(network()), found, remedied)


def averaged_parameters() -> Measured:
    """Average the parameters of two processes after each step."""
    each = [train(network(), batches=[_batch(rank)] * 3) for rank in range(2)]
    mean = {what: (each[0][what] + each[1][what]) / 2 for what in ("running mean", "running variance")}
    expected = {f"{what}, process {rank}": mean[what] for rank in range(2) for what in mean}
    return Measured(expected, _of_both("averager"), _of_both("averager, buffers"))


def shared_checkpoint() -> Measured:
    """Save a checkpoint that both processes write, and load it: one network should come back, that of process 0."""
    return Measured(*(_measured()[0][name] for name in ("ddp", "checkpoint", "checkpoint, lowest")))


_WHOSE = "[chapter 10](10_many_machines.ipynb#whose-statistics)"
_SYNC = "Share the statistics: PyTorch's `SyncBatchNorm` on GPUs, `bnlib.SyncBatchNorm` also on CPUs"
PARTS = [
    Part(
        "DistributedDataParallel",
        "means 10 and 40 in two processes",
        data_parallel,
        "Process 0 keeps the statistics of its own batches. The others start each step from those of process 0, and "
        "end with one update of their own.",
        "`running_mean` differs between the processes.",
        f"{_SYNC}: {_WHOSE}.",
    ),
    Part(
        "DistributedDataParallel",
        "`broadcast_buffers=False`",
        data_parallel_without_broadcast,
        "Each process has the statistics of its own batches.",
        "`running_mean` differs between the processes.",
        f"{_SYNC}.",
    ),
    Part(
        "DistributedDataParallel",
        "a forward pass of the wrapper in eval mode, seen from process 1",
        data_parallel_at_inference,
        "Also in eval mode the wrapper first sends the buffers of process 0, so a forward pass in eval mode changes "
        "the statistics of process 1.",
        "`running_mean` of process 1 changes although the model is in eval mode.",
        "Evaluate `wrapper.module`, and decide yourself whose statistics to save.",
    ),
    Part(
        "fully_shard (FSDP2)",
        "means 10 and 40 in two processes",
        sharded,
        "Parameters are sharded, buffers are not: each process has the statistics of its own batches, and a full "
        "`state_dict` has those of process 0.",
        "`running_mean` differs between the processes.",
        f"{_SYNC}.",
    ),
    Part(
        "fully_shard (FSDP2)",
        "`MixedPrecisionPolicy(param_dtype=torch.bfloat16)`, on CPUs",
        sharded_in_half_precision,
        "The weight of the batch norm becomes bfloat16, its statistics stay float32, and the CPU has no such kernel.",
        "The error.",
        "Call `fully_shard` on each batch norm without the policy, before the whole model.",
    ),
    Part(
        "PeriodicModelAverager",
        "means 10 and 40 in two processes",
        averaged_parameters,
        "Parameters are averaged, buffers are not.",
        "`running_mean` differs between the processes.",
        "Average the running statistics, too, with `model_averaging.utils.average_parameters`. The averaged variance "
        "leaves out that the means differ; only shared statistics contain it.",
    ),
    Part(
        "torch.distributed.checkpoint",
        "the `state_dict` of a data-parallel network",
        shared_checkpoint,
        "A tensor that all processes have is written by one of them, chosen so that all write equally much. So the "
        "running mean is that of process 0, and the running variance that of process 1.",
        "The loaded statistics are those of no process.",
        "Save with `planner=DefaultSavePlanner(dedup_save_to_lowest_rank=True)`, or share the statistics.",
    ),
]
"""The parts of this file."""
