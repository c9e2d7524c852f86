"""Compare 35 stacked runs (7 learning rates x 5 seeds, the network of chapter 1) with the same runs one after another.

``python benchmarks/sweep.py`` prints the ratio of the times, the time per step and model, and the memory used; and the
time of a step of 35 stacked models over that of the same step written with ``torch.func.vmap``, interleaved.
"""

import argparse
import itertools
import resource
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from bnlib import BatchNorm, FullNorm, datasets, models, stacked, training

RATES, SEEDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), range(5)
EPOCHS = {1: 1, 4: 2, 16: 4, 64: 8}


def build(norm, seed: int) -> torch.nn.Module:
    """Build the network of chapter 1."""
    return models.mlp((64, 100, 100, 10), norm, seed=seed)


def last(steps) -> tuple:
    """Return the total number of steps and the last histories that a training generator yields."""
    *_, (_, total, result) = steps
    return total, result


def compare(norm, batch_size: int, device: str) -> None:
    """Train all runs stacked and one after another; print the ratio of the times and the difference of the curves."""
    data = datasets.load("digits").to(device)
    settings = {"batch_size": batch_size, "epochs": EPOCHS[batch_size], "checkpoints": 4, "device": device}
    cells = list(itertools.product(RATES, SEEDS))
    lrs, seeds = zip(*cells, strict=True)

    began = time.perf_counter()
    steps, stacked_histories = last(
        training.iterate_many([build(norm, seed) for seed in seeds], data, lrs=lrs, seeds=seeds, **settings)
    )
    stacked = time.perf_counter() - began
    began = time.perf_counter()
    single_histories = [
        last(training.iterate(build(norm, seed), data, lr=lr, seed=seed, **settings))[1] for lr, seed in cells
    ]
    loop = time.perf_counter() - began

    # With larger learning rates, rounding differences grow until the runs are completely different.
    pairs = [(a, b) for a, b, lr in zip(stacked_histories, single_histories, lrs, strict=True) if lr <= 0.03]
    difference = max(abs(a.train_loss[-1] - b.train_loss[-1]) / b.train_loss[-1] for a, b in pairs)
    each = stacked / steps / len(cells) * 1e6
    print(
        f"{norm.__name__:9} batch size {batch_size:2}: {loop / stacked:4.1f} times faster, {each:5.0f} us per step and "
        f"model; final losses at the two smallest learning rates differ by {difference:.0e}"
    )


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
        optimiser.zero_grad(set_to_none=False)
        losses = F.cross_entropy(whole(x).flatten(0, 1), y.flatten(), reduction="none")
        losses.div(x.size(1)).sum().backward()
        optimiser.step()

    return step


def compare_with_vmap(norm, batch_size: int) -> None:
    """Print the median and the quartiles of the ratio of the times of a step, from interleaved rounds on the CPU."""
    x, y = torch.randn(35, batch_size, 64), torch.randint(10, (35, batch_size))
    steps, times = [make(norm, x, y) for make in (vmapped_step, stacked_step)], []
    for _ in range(16):  # the first round is not counted
        times.append([])
        for step in steps:
            began = time.perf_counter()
            for _ in range(5):
                step()
            times[-1].append(time.perf_counter() - began)
    times = np.array(times[1:])
    low, middle, high = np.percentile(times[:, 1] / times[:, 0], [25, 50, 75])
    print(f"{norm.__name__:9} batch size {batch_size:3}: stacked / vmap {middle:.2f} ({low:.2f} to {high:.2f})")


def main() -> None:
    """Compare two normalisations at four batch sizes, and with vmap at three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    for norm, batch_size in itertools.product((BatchNorm, FullNorm), EPOCHS):
        compare(norm, batch_size, device)
    print(f"largest memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    torch.set_num_threads(1)
    for norm, batch_size in itertools.product((BatchNorm, FullNorm), (8, 32, 128)):
        compare_with_vmap(norm, batch_size)


if __name__ == "__main__":
    main()
