"""Compare time and memory of FullNorm and bnlib.BatchNorm with those of torch.nn.BatchNorm, situation by situation.

``python benchmarks/full_norm.py`` prints one table: the median over interleaved rounds of the time of a forward and
backward pass, divided by the time of torch.nn.BatchNorm in the same situation and round. The row "noise" compares
torch.nn.BatchNorm with itself; a size is measured a second time if that ratio is not within 5 % of 1, and a line says
so where it never is. With ``--save`` it also writes ``data/results/benchmarks/full_norm_THREADS.json``.

Where a goal (``GOALS``) is missed, the goal and the floor of that row stand beside the ratio. A floor is what no
FullNorm written in Python can be faster than, without its numbers being right: a ``torch.autograd.Function`` that calls
the kernels that pass over the data and nothing else (``full_norm_floors``).

Above the floor, FullNorm with the running oracle calls 17 operations on numbers of each channel. A call takes 1 to 2
microseconds in a loop of its own and about 5 in a training step, where the first call of a kind costs three times as
much as the next ones. At (64, 512), a prototype with only these operations, one Python function per pass and no check
of arguments, takes 1.78 times the time of batch norm, the layer 1.88, and the layer before this was measured 2.07, all
on a busy machine. Left out of the prototype one at a time, in per cent of the time of batch norm: new estimates 11, the
check that they are no special case 11, their copies into the buffers 8, the check of the two sums 7, scale and slope 5,
gradient estimates 5, offset and rest 3. So without all of them it would take about 1.28; the sums are 30, the
statistics of the batch 14, the gradient of the input 12.

What was tried and gained nothing: two operations in one call of ``torch._foreach_``, because each is dispatched inside
again; to read and write the number of batches in memory; to take scale times gradient from the kernel of the sums;
NumPy. A hook on PyTorch's own node for batch norm in eval mode in place of the ``Function`` was 1.98 for 2.39; one
function of TorchScript, which PyTorch has deprecated, 1.57 for 2.05.

In eval mode the check that the means are near 0 is two such calls.

At (4096, 256) the layer takes 0.23 ms more than its floor (1.70 and 1.47 ms in passes without page faults), though it
calls no further pass over the data, and twenty calls of one multiplication of numbers of each channel add only 0.02 ms
to the floor. Probably the passes leave nothing else in the processor's caches, so that each of the small operations,
which are all of different kinds, starts slowly. The quartiles are far apart at this size because the memory of a new
tensor of 4 MB costs either no page fault or 1024 of them.

Compiled at (64, 512), the floor takes 0.95 and 1.01 as a module; the layer took 1.31 in the same run, and 1.24 without
the guards, of which it has three times as many as batch norm. Its kernels take less time than those of batch norm
(together 29 and 38 microseconds). What is left is around them: a second kernel, one operator that torch.compile must
not compute again in the backward pass, and more tensors that are passed and saved. Without that operator it took 1.36,
with a slower backward pass. Since these measurements the layer also counts its backward passes in compiled code, and
checks the value of a schedule that can leave (0, 1] (a `PowerSchedule` with a floor, such as the default, cannot). With
the count it takes 1.65 in the committed result with one thread.

In eval mode, vectors pay for copies of the running statistics: a training step before the backward pass would else
change the gradient, as it does in PyTorch.
"""

import argparse
import time
from functools import partial

import numpy as np
import torch
from full_norm_floors import Floor, LeaveOneOut, Offset, Running, compiled_floor
from layers import machine, until_quiet
from new_tensors import kept, peak_of_backward
from torch import nn

import bnlib
from bnlib.experiments.framework.results import write_result

LAST = torch.channels_last
SIZES = [
    ((128, 64, 32, 32), torch.contiguous_format, 7),
    ((32, 256, 14, 14), torch.contiguous_format, 40),
    ((8, 64, 112, 112), torch.contiguous_format, 9),
    ((128, 64, 32, 32), LAST, 9),
    ((32, 256, 14, 14), LAST, 200),
    ((4096, 256), torch.contiguous_format, 200),
    ((64, 512), torch.contiguous_format, 200),
    ((16, 64), torch.contiguous_format, 200),
]
COMPILED = [((64, 512), 200), ((4096, 256), 200)]
SMALL = 2**16  # ten passes are timed together, because one takes less than a millisecond
OFFSET = 50.0
GOALS = {
    "running": 1.1,
    "leave-one-out": 1.3,
    "eval mode": 1.05,
    "no input gradient": 1.0,
    "offset 50 sigma": 1.5,
    "compiled": 1.1,
}
GOALS_OF_SIZES = {
    ("(128, 64, 32, 32)", "running"): 0.95,
    ("(32, 256, 14, 14)", "running"): 0.95,
    ("(8, 64, 112, 112)", "running"): 0.85,
    ("(64, 512)", "running"): 1.25,
    ("(16, 64)", "running"): 1.4,
    ("(128, 64, 32, 32)", "Batch Renorm"): 1.05,
    ("(32, 256, 14, 14)", "Batch Renorm"): 1.05,
    ("(8, 64, 112, 112)", "Batch Renorm"): 1.05,
    ("(64, 512)", "Batch Renorm"): 1.5,
}
FLOOR = "floor: only the kernels that pass over the data, in a Function; compiled: without a module and special cases"


def batch_norm(x: torch.Tensor) -> nn.Module:
    """Return PyTorch's layer for such an input."""
    return (nn.BatchNorm1d if x.dim() == 2 else nn.BatchNorm2d)(x.size(1))


def situations(x: torch.Tensor) -> dict[str, tuple[nn.Module, nn.Module, torch.Tensor]]:
    """Return for each row of the table the layer, PyTorch's layer, and the input."""
    channels, plain = x.size(1), x.clone().requires_grad_()
    off = (x + OFFSET).requires_grad_()
    made = {
        "noise": (batch_norm(x), plain),
        "BatchNorm": (bnlib.BatchNorm(channels), plain),
        "running": (bnlib.FullNorm(channels), plain),
        "batch": (bnlib.FullNorm(channels, oracle="batch"), plain),
        "Batch Renorm": (bnlib.BatchRenorm(channels), plain),
        "leave-one-out": (bnlib.FullNorm(channels, oracle="leave_one_out"), plain),
        "eval mode": (bnlib.FullNorm(channels).eval(), plain),
        "no input gradient": (bnlib.FullNorm(channels), x),
        "offset 50 sigma": (bnlib.FullNorm(channels), off),
        "running, floor": (Floor(channels, Running), plain),
        "leave-one-out, floor": (Floor(channels, LeaveOneOut), plain),
        "eval mode, floor": (Floor(channels, Running).eval(), plain),
        "no input gradient, floor": (Floor(channels, Running), x),
        "offset 50 sigma, floor": (Floor(channels, Offset), off),
    }
    made["offset 50 sigma"][0].running_mean.fill_(OFFSET)  # as after many steps
    return {name: (layer, batch_norm(x).train(layer.training), data) for name, (layer, data) in made.items()}


def seconds(layer: nn.Module, x: torch.Tensor, gradient: torch.Tensor) -> float:
    """Return the time of forward and backward passes; with one thread, that of this process alone."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    began = clock()
    for _ in range(10 if x.numel() < SMALL else 1):
        x.grad = None
        layer(x).backward(gradient)
    return clock() - began


def ratios(made: dict[str, tuple], gradient: torch.Tensor, rounds: int) -> dict[str, list[float]]:
    """Return quartiles of the ratio of the times, from interleaved rounds in alternating order."""
    times = {name: [] for name in made}
    for k in range(rounds + 2):
        for name, (*pair, x) in made.items():
            order = (0, 1) if k % 2 else (1, 0)
            taken = {which: seconds(pair[which], x, gradient) for which in order}
            times[name].append(taken[0] / taken[1])
    return {name: [round(float(q), 3) for q in np.percentile(each[2:], [25, 50, 75])] for name, each in times.items()}


def compiled(shape: tuple[int, ...]) -> dict[str, tuple]:
    """Return compiled FullNorm, its floor and compiled torch.nn.BatchNorm."""
    x = torch.randn(shape, requires_grad=True)
    ours, theirs, again = (torch.compile(each) for each in (bnlib.FullNorm(shape[1]), batch_norm(x), batch_norm(x)))
    made = {"noise": again, "compiled": ours, "compiled, floor": compiled_floor(shape[1])}
    return {name: (each, theirs, x) for name, each in made.items()}


def row(threads: int, size: str, name: str, found: dict[str, list[float]]) -> dict:
    """Return a row of the table, and print it with the floor if its goal is missed; a floor is not printed itself."""
    low, middle, high = found[name]
    goal = GOALS_OF_SIZES.get((size, name), GOALS.get(name, float("inf")))
    title = "compiled, noise" if "compiled" in found and name == "noise" else name
    text = f"{threads} thread(s)  {size:34} {title:18} {middle:5.2f} ({low:.2f} to {high:.2f})"
    if middle > goal:
        text += f"  goal {goal:.2f}"
        if floor := found.get(f"{name}, floor"):
            text += f", floor {floor[1]:.2f}"
    if not name.endswith("floor"):
        print(text, flush=True)
    return {"size": size, "layer": title, "quartiles_of_ratio": found[name]}


def measure(threads: int) -> list[dict]:
    """Measure and print all rows with so many threads."""
    torch.set_num_threads(threads)
    rows = measure_memory()
    print(FLOOR)
    plans = [
        (shape, layout, rounds, partial(situations, torch.randn(shape).contiguous(memory_format=layout)))
        for shape, layout, rounds in SIZES
    ]
    plans += [(shape, torch.contiguous_format, rounds, partial(compiled, shape)) for shape, rounds in COMPILED]
    for shape, layout, rounds, make in plans:
        size = f"{shape}{' channels-last' * (layout is LAST)}"
        gradient = torch.randn(shape).contiguous(memory_format=layout)

        def measured(make=make, gradient=gradient, rounds=rounds) -> dict[str, list[float]]:
            return ratios(make(), gradient, rounds)  # new layers, because some places in memory are slower

        found = until_quiet(measured, most=2)
        rows += [row(threads, size, name, found) for name in found]
    return rows


def measure_memory() -> list[dict]:
    """Measure and print memory in sizes of the input, for one size: it is proportional."""
    x = torch.randn(16, 64, 32, 32, requires_grad=True)
    numbers = {
        "leave-one-out, peak of the backward pass": peak_of_backward(bnlib.FullNorm(64, oracle="leave_one_out"), x),
        "running, peak of the backward pass": peak_of_backward(bnlib.FullNorm(64), x),
        "eval mode, kept by the forward pass": kept(bnlib.FullNorm(64).eval(), x),
        "torch.nn.BatchNorm in eval mode, kept": kept(nn.BatchNorm2d(64).eval(), x),
    }
    for name, size in numbers.items():
        print(f"{name:44} {size:4.2f} times the input")
    return [{"memory": name, "inputs": round(size, 3)} for name, size in numbers.items()]


def main() -> None:
    """Print the table for the numbers of threads of the command line, and save it with --save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--save", action="store_true", help="write data/results/benchmarks/full_norm_THREADS.json")
    arguments = parser.parse_args()
    for threads in arguments.threads:
        torch.manual_seed(0)
        if not arguments.save:
            measure(threads)
            continue
        device = machine("cpu").replace("one thread", f"{threads} thread(s)")
        command = f"python benchmarks/full_norm.py --save --threads {threads}"
        with write_result(f"benchmarks/full_norm_{threads}", command, [0], device=device) as result:
            result["rows"] = measure(threads)


if __name__ == "__main__":
    main()
