"""FullNorm with a process group: several processes, each with its part of a batch, are one process with all of it."""

import pytest
import torch
import torch.distributed
import torch.nn.parallel

import bnlib
from bnlib import distributed
from bnlib.reference import ORACLES

STEPS, SHAPE = 3, (9, 4, 2)
# Samples of each process. They differ, and one may have none.
PARTS = {2: [5, 4], 3: [2, 0, 7]}


def batch(step):
    generator = torch.Generator().manual_seed(step)
    # A constant channel is clamped to eps; an offset must not cost digits.
    x = torch.randn(SHAPE, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.0, 0.1]).view(4, 1)
    return x + torch.tensor([0.0, 1e3, 5.0, -1.0]).view(4, 1), torch.randn(
        SHAPE, generator=generator, dtype=torch.float64
    )


def train(oracle, part=slice(None), process_group=None):
    """Outputs and gradients of each step on a part of the batches, and the state at the end."""
    layer = bnlib.FullNorm(4, alpha=0.4, oracle=oracle, process_group=process_group, dtype=torch.float64)
    steps = []
    for step in range(STEPS):
        x, g = (each[part] for each in batch(step))
        x, y = x.clone().requires_grad_(), None
        y = layer(x)
        steps.append((y.detach(), *torch.autograd.grad(y, (x, layer.weight, layer.bias), g)))
    return steps, layer.state_dict()


def after_a_broadcast(rank):
    """DistributedDataParallel writes the estimates of process 0 into those of the others, without a new version."""
    layer = bnlib.FullNorm(2, alpha=0.3)
    model = torch.nn.parallel.DistributedDataParallel(layer)
    for step in range(60):
        x = torch.randn(8, 2, generator=torch.Generator().manual_seed(step)) * (rank > 0)  # process 0 has a dead unit
        model(x).sum().backward()
    x = torch.full((8, 2), 1e-3) * (rank > 0)
    x[0] *= 1.1
    y = model(x)
    deviation = layer.running_var.clamp(min=layer.eps).sqrt()
    torch.testing.assert_close(y, (x - layer.running_mean) / deviation, rtol=1e-4, atol=1e-4)


def of_one(parts, folder):
    torch.set_num_threads(1)
    rank, _ = distributed.rank_and_world_size()
    after_a_broadcast(rank)
    begin = sum(parts[:rank])
    part = slice(begin, begin + parts[rank])
    message = "at least two samples, counted over all processes, for oracle='leave_one_out', got 1"
    with pytest.raises(ValueError, match=message):
        alone = bnlib.FullNorm(4, oracle="leave_one_out", process_group=torch.distributed.group.WORLD)
        alone(torch.ones(int(rank == 0), 4, 2))
    results = {oracle: train(oracle, part, torch.distributed.group.WORLD) for oracle in ORACLES}
    torch.save(results, f"{folder}/{rank}.pt")


@pytest.mark.parametrize("processes", sorted(PARTS))
def test_processes_together_equal_one_on_the_joined_batch(processes, tmp_path):
    distributed.run_in_processes(of_one, processes, PARTS[processes], str(tmp_path))
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(processes)]
    for oracle in ORACLES:
        steps, state = train(oracle)
        for step, expected in enumerate(steps):
            found = [part[oracle][0][step] for part in parts]
            joined = [torch.cat([each[i] for each in found]) for i in range(2)]
            summed = [sum(each[i] for each in found) for i in (2, 3)]
            torch.testing.assert_close(
                (*joined, *summed), expected, rtol=1e-9, atol=1e-9, msg=lambda m, oracle=oracle: f"{oracle}: {m}"
            )
        for part in parts:
            torch.testing.assert_close(part[oracle][1], state, rtol=1e-9, atol=1e-9)
