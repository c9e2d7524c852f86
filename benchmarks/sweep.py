"""Compare 35 stacked runs (7 learning rates x 5 seeds, the network of chapter 1) with the same runs one after another.

``python benchmarks/sweep.py`` prints, within a minute on a quiet machine with two cores: the ratio of the times, of
which those one after another are taken from three of the runs; the time beside two busy processes over that without;
and the time of a step of 35 stacked models over that of the same step written with ``torch.func.vmap``, interleaved.
The ratio of the times cannot be larger than the one that is printed as the limit: the stack would reach it if all but
its products of matrices took no time. At batch sizes 1, 4 and 64 these products are a third, a fifth and a half of
a step; the rest are passes over the activations and weights of all models and some 70 calls of operators.
With ``--save`` it also writes ``data/results/benchmarks/sweep_DEVICE.json``. It uses as many threads as PyTorch does
by itself, and ``training`` decides about them.
"""

import argparse
import itertools
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from layers import machine
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from bnlib import BatchNorm, FullNorm, datasets, models, stacked, training
from bnlib.experiments.framework.results import write_result

RATES, SEEDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), range(5)
EPOCHS = {1: 1, 4: 2, 64: 8}
SAMPLES = 480  # a third of the digits
ALONE = 3  # so many runs are also trained one after another
BUSY = 2


def build(norm, seed: int) -> torch.nn.Module:
    """Build the network of chapter 1."""
    return models.mlp((64, 100, 100, 10), norm, seed=seed)


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Run so many processes that do nothing but use a processor, for the duration of a ``with`` block."""
    command = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(command) for _ in range(number)]
    try:
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()


def last(steps) -> tuple:
    """Return the total number of steps and the last histories that a training generator yields."""
    *_, (_, total, result) = steps
    return total, result


def timed(train: Callable[[], tuple]) -> tuple[float, int, list]:
    """Return the time of a training in seconds, its number of steps, and its histories."""
    began = time.perf_counter()
    steps, histories = last(train())
    return time.perf_counter() - began, steps, histories


def seconds_of_products(stacked_models: int, batch_size: int, device: str) -> float:
    """Return the time of the products of matrices in a step, with one thread."""
    sizes = [(64, 100), (100, 100), (100, 10)]
    parts = [
        [
            torch.randn(stacked_models, *each, device=device)
            for each in ((batch_size, into), (into, out), (batch_size, out))
        ]
        for into, out in sizes
    ]
    times = []
    with training.threads.threads_for(0):
        for _ in range(30):
            began = time.perf_counter()
            for x, weight, g in parts:
                torch.bmm(x, weight)
                torch.bmm(x.transpose(1, 2), g)
                if weight is not parts[0][1]:  # the data need no gradient
                    torch.bmm(g, weight.transpose(1, 2))
            times.append(time.perf_counter() - began)
    return min(times)


def compare(norm, batch_size: int, device: str) -> dict:
    """Train all runs stacked, quiet and beside busy processes, and some one after another; print and return ratios."""
    data = datasets.load("digits")
    data = replace(data, train_x=data.train_x[:SAMPLES], train_y=data.train_y[:SAMPLES]).to(device)
    settings = {"batch_size": batch_size, "epochs": EPOCHS[batch_size], "checkpoints": 4, "device": device}
    cells = list(itertools.product(RATES, SEEDS))
    lrs, seeds = zip(*cells, strict=True)

    def stacked_runs():
        return training.iterate_many([build(norm, seed) for seed in seeds], data, lrs=lrs, seeds=seeds, **settings)

    quiet, steps, histories = min(
        (timed(stacked_runs) for _ in range(2)), key=lambda each: each[0]
    )  # the first one also warms up
    alone = [timed(lambda cell=cell: training.iterate(build(norm, cell[1]), data, lr=cell[0], seed=cell[1], **settings))
             for cell in cells[:ALONE]]  # fmt: skip
    loop = sum(seconds for seconds, *_ in alone) / ALONE * len(cells)
    with busy_processes(BUSY):
        busy, *_ = timed(stacked_runs)
    difference = max(
        abs(ours.train_loss[-1] - history.train_loss[-1]) / history.train_loss[-1]
        for ours, (_, _, history) in zip(histories, alone, strict=False)
    )
    each = quiet / steps / len(cells) * 1e6
    limit = loop / steps / seconds_of_products(len(cells), batch_size, device)
    print(
        f"{norm.__name__:9} batch size {batch_size:2}: {loop / quiet:4.1f} times faster (limit {limit:3.0f}), "
        f"{each:4.0f} us per step and model, {busy / quiet:4.2f} of the time beside {BUSY} busy processes; "
        f"final losses differ by {difference:.0e}",
        flush=True,
    )
    return {
        "layer": norm.__name__,
        "batch_size": batch_size,
        "one_after_another_over_stacked": round(loop / quiet, 2),
        "limit_of_that_by_products": round(limit, 1),
        "busy_over_quiet": round(busy / quiet, 2),
        "microseconds_per_step_and_model": round(each, 1),
        "largest_difference_of_losses": difference,
    }


def vmapped_step(norm, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """Return a step of SGD on many networks, as one writes it with ``torch.func``."""
    networks = [build(norm, seed) for seed in range(len(x))]
    parameters, buffers = stack_module_state(networks)
    parameters = {name: value.detach() for name, value in parameters.items()}

    def loss(parameters, buffers, x, y):
        return F.cross_entropy(functional_call(networks[0], (parameters, buffers), (x,)), y)

    def step() -> None:
        gradients = vmap(grad(loss))(parameters, buffers, x, y)
        for name, value in parameters.items():
            value.sub_(gradients[name], alpha=0.01)

    return step


def stacked_step(norm, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """Return the same step on a stack of the networks."""
    whole = stacked.stack([build(norm, seed) for seed in range(len(x))]).to(x.device)
    optimiser = torch.optim.SGD(whole.parameters(), lr=0.01)

    def step() -> None:
        optimiser.zero_grad()
        losses = F.cross_entropy(whole(x).flatten(0, 1), y.flatten(), reduction="none")
        losses.div(x.size(1)).sum().backward()
        optimiser.step()

    return step


def compare_with_vmap(norm, batch_size: int) -> dict:
    """Print and return quartiles of the ratio of the times of a step, from interleaved rounds with one thread."""
    x, y = torch.randn(35, batch_size, 64), torch.randint(10, (35, batch_size))
    steps, times = [make(norm, x, y) for make in (vmapped_step, stacked_step)], []
    for _ in range(12):  # the first round is not counted
        times.append([])
        for step in steps:
            began = time.perf_counter()
            for _ in range(5):
                step()
            times[-1].append(time.perf_counter() - began)
    times = np.array(times[1:])
    quartiles = [round(float(each), 3) for each in np.percentile(times[:, 1] / times[:, 0], [25, 50, 75])]
    low, middle, high = quartiles
    print(f"{norm.__name__:9} batch size {batch_size:3}: stacked / vmap {middle:.2f} ({low:.2f} to {high:.2f})")
    return {"layer": norm.__name__, "batch_size": batch_size, "quartiles_of_stacked_over_vmap": quartiles}


def compare_all(device: str) -> list[dict]:
    """Compare two normalisations at three batch sizes each."""
    rows = [compare(*case, device) for case in itertools.product((BatchNorm, FullNorm), EPOCHS)]
    print(f"largest memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    torch.set_num_threads(1)
    return rows + [compare_with_vmap(*case) for case in itertools.product((BatchNorm, FullNorm), (8, 32, 128))]


def main() -> None:
    """Compare, and save the rows with --save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    if not arguments.save:
        compare_all(arguments.device)
        return
    command = f"python benchmarks/sweep.py --save --device {arguments.device}"
    device = machine(arguments.device).replace("one thread", f"{torch.get_num_threads()} threads")
    with write_result(f"benchmarks/sweep_{arguments.device}", command, [0], device=device) as result:
        result["load_of_the_machine_before"] = round(os.getloadavg()[0], 1)
        result["rows"] = compare_all(arguments.device)


if __name__ == "__main__":
    main()
