#!/usr/bin/env bash
# torch 2.13.0: torch.distributed.checkpoint saves the state_dict of a data-parallel network. Each process has running
# statistics of its own (DistributedDataParallel sends those of process 0 before a step, and each process then moves its
# copy). The checkpoint takes the running mean from process 0 and the running variance from process 1, because tensors
# that all processes have are shared out, so that all write equally much. There is no message.
# Expected: the statistics of one process.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/save.py" <<'PY'
import sys
import warnings

import torch
from torch import distributed, multiprocessing, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint import DefaultSavePlanner
from torch.nn.parallel import DistributedDataParallel

warnings.simplefilter("ignore")


def statistics(state):
    return [round(state[name].item(), 2) for name in ("running_mean", "running_var")]


def work(rank, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    measure(rank, folder)  # the wrapper is gone before the process group is
    distributed.barrier()
    distributed.destroy_process_group()


def measure(rank, folder):
    layer = nn.BatchNorm1d(1)
    model = DistributedDataParallel(layer)
    x = torch.tensor([[9.0], [11.0], [9.0], [11.0]])
    for _ in range(3):
        model(x if rank == 0 else 2 * x + 20).sum().backward()
    own = [None, None]
    distributed.all_gather_object(own, statistics(layer.state_dict()))
    loaded = {}
    for name, planner in (("default", None), ("lowest", DefaultSavePlanner(dedup_save_to_lowest_rank=True))):
        checkpoint.save(layer.state_dict(), checkpoint_id=f"{folder}/{name}", planner=planner)
        state = nn.BatchNorm1d(1).state_dict()
        checkpoint.load(state, checkpoint_id=f"{folder}/{name}")
        loaded[name] = statistics(state)
    if rank == 0:
        print("running mean and variance of process 0:", own[0], "and of process 1:", own[1])
        print("in the checkpoint:", loaded["default"])
        print("with dedup_save_to_lowest_rank=True:", loaded["lowest"])
        assert own == [[2.71, 1.09], [5.71, 1.49]], own
        assert loaded == {"default": [2.71, 1.49], "lowest": [2.71, 1.09]}, loaded


if __name__ == "__main__":
    print("torch", torch.__version__)
    multiprocessing.spawn(work, (sys.argv[1],), nprocs=2)
PY
"$folder/venv/bin/python" "$folder/save.py" "$folder"
