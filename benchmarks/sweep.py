"""Compare 35 stacked runs (7 learning rates x 5 seeds, the network of chapter 1) with the same runs one after another.

``python benchmarks/sweep.py`` prints the ratio of the times, the time per step and model, and the memory used.
"""

import argparse
import itertools
import resource
import time

import torch

from bnlib import BatchNorm, FullNorm, datasets, models, training

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


def main() -> None:
    """Compare two normalisations at four batch sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    for norm, batch_size in itertools.product((BatchNorm, FullNorm), EPOCHS):
        compare(norm, batch_size, device)
    print(f"largest memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
