"""Two processes that train one network: DistributedDataParallel in its variants, and FSDP2."""

from __future__ import annotations

import contextlib
import functools
import warnings

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from bnlib.compatibility.networks import LAYERS, Maker, batch, check_equal, network
from bnlib.distributed import run_in_processes
from bnlib.norm import BatchNorm, SyncBatchNorm

_STEPS, _RATE = 3, 0.05
VARIANTS = {
    "plain": {},
    "static graph": {"static_graph": True},
    "unused parameters": {"find_unused_parameters": True},
    "no_sync": {},
    "fsdp": {},
}
"""How the two processes are joined, and the options of DistributedDataParallel."""

State = dict[str, Tensor]


class _Net(nn.Module):
    """The small network, with parameters that no batch uses if ``variant`` says so."""

    def __init__(self, make: Maker, variant: str) -> None:
        super().__init__()
        self.used = network(make)
        if variant == "unused parameters":
            self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


def _batches(step: int, rank: int, variant: str) -> list[Tensor]:
    """Return the batches of a process in a step; with ``no_sync`` their gradients are added up."""
    return [batch(100 * step + 10 * rank + part) for part in range(2 if variant == "no_sync" else 1)]


def _train(name: str, variant: str) -> State | str:
    """Train in this process, which is one of two, and return the state at the end, or the error as text."""
    rank = distributed.get_rank()
    model = _Net(LAYERS[name], variant)
    try:
        if variant == "fsdp":
            called = fully_shard(model, mesh=distributed.device_mesh.init_device_mesh("cpu", (2,)))
        else:
            called = DistributedDataParallel(model, **VARIANTS[variant])
        optimiser = torch.optim.SGD(model.parameters(), lr=_RATE)
        for step in range(_STEPS):
            optimiser.zero_grad()
            *earlier, last = _batches(step, rank, variant)
            with called.no_sync() if earlier else contextlib.nullcontext():
                for x in earlier:
                    called(x).square().mean().backward()
            called(last).square().mean().backward()
            optimiser.step()
    except Exception as error:  # it becomes the outcome of the cell
        return f"{type(error).__name__}: {error}"
    whole = {key: getattr(value, "full_tensor", lambda value=value: value)() for key, value in _tensors(model).items()}
    return {key: value.detach().clone() for key, value in whole.items()}


def _tensors(model: nn.Module) -> State:
    return dict((*model.used.named_parameters(), *model.used.named_buffers()))


def _train_all() -> dict[tuple[str, str], State | str]:
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {(name, variant): _train(name, variant) for variant in VARIANTS for name in LAYERS}


@functools.cache
def _trained() -> list[dict[tuple[str, str], State | str]]:
    """Return what each of the two processes has in the end, for all layers and variants at once."""
    return run_in_processes(_train_all, 2)


def _expected(name: str, variant: str) -> list[State]:
    """Return what two processes should have in the end, computed in one."""
    if isinstance(LAYERS[name](), SyncBatchNorm):
        return _expected_of_global_batches(variant)
    models = [_Net(LAYERS[name], variant) for _ in range(2)]
    for step in range(_STEPS):
        if variant != "fsdp":  # DistributedDataParallel sends the buffers of process 0 to the others
            for buffer, other in zip(models[0].buffers(), models[1].buffers(), strict=True):
                other.copy_(buffer)
        for rank, model in enumerate(models):
            model.zero_grad()
            for x in _batches(step, rank, variant):
                model(x).square().mean().backward()
        _step(models)
    return [_tensors(model) for model in models]


def _expected_of_global_batches(variant: str) -> list[State]:
    model = _Net(lambda **options: BatchNorm(4, **options), variant)
    for step in range(_STEPS):
        model.zero_grad()
        for parts in zip(*(_batches(step, rank, variant) for rank in range(2)), strict=True):
            model(torch.cat(parts)).square().mean().backward()
        _step([model])
    return [_tensors(model)] * 2


def _step(models: list[_Net]) -> None:
    with torch.no_grad():
        for values in zip(*(model.used.parameters() for model in models), strict=True):
            mean = torch.stack([value.grad for value in values]).mean(0)
            for value in values:
                value.sub_(mean, alpha=_RATE)


def in_two_processes(make: Maker, variant: str) -> None:
    """Train in two processes: the gradient is the mean of those of the processes, computed in one process."""
    name = next(name for name, other in LAYERS.items() if other is make)
    for found, expected in zip((each[name, variant] for each in _trained()), _expected(name, variant), strict=True):
        if isinstance(found, str):
            raise RuntimeError(found)
        check_equal(found, {key: value.detach() for key, value in expected.items()})
