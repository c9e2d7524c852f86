#!/usr/bin/env bash
# torch 2.13.0: a forward pass of DistributedDataParallel in eval mode and without gradients changes the running
# statistics of all processes but one: the wrapper sends the buffers of process 0 before every forward pass
# (broadcast_buffers=True is the default).
# Expected: eval mode changes no statistics.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/evaluate.py" <<'PY'
import sys
import warnings

import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

warnings.simplefilter("ignore")


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
    found = [round(layer.running_mean.item(), 2)]
    with torch.no_grad():
        for call in (model.eval().module, model.eval()):
            call(x)
            found.append(round(layer.running_mean.item(), 2))
    both = [None, None]
    distributed.all_gather_object(both, found)
    if rank == 0:
        moments = ("after training", "after model.module(x) in eval mode", "after model(x) in eval mode")
        for when, first, second in zip(moments, *both):
            print(f"running mean {when}: process 0 {first}, process 1 {second}")
        assert both == [[2.71, 2.71, 2.71], [5.71, 5.71, 2.71]], both


if __name__ == "__main__":
    print("torch", torch.__version__)
    multiprocessing.spawn(work, (sys.argv[1],), nprocs=2)
PY
"$folder/venv/bin/python" "$folder/evaluate.py" "$folder"
