"""35 runs at once (7 learning rates x 5 seeds, the network of chapter 1) against the same runs one after another.

``python benchmarks/sweep.py`` prints the ratio of the times, the time per step of one model, and the memory taken.
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
    """The network of chapter 1."""
    return models.mlp((64, 100, 100, 10), norm, seed=seed)


def last(steps) -> tuple:
    """What a training generator yields last."""
    *_, (_, total, result) = steps
    return total, result


def compare(norm, batch_size: int, device: str) -> None:
    """Train all runs both ways, print the ratio and how far apart the curves are."""
    data = datasets.load("digits").to(device)
    settings = {"batch_size": batch_size, "epochs": EPOCHS[batch_size], "checkpoints": 4, "device": device}
    cells = list(itertools.product(RATES, SEEDS))
    lrs, seeds = zip(*cells, strict=True)

    began = time.perf_counter()
    steps, together = last(
        training.iterate_many([build(norm, seed) for seed in seeds], data, lrs=lrs, seeds=seeds, **settings)
    )
    stacked = time.perf_counter() - began
    began = time.perf_counter()
    alone = [last(training.iterate(build(norm, seed), data, lr=lr, seed=seed, **settings))[1] for lr, seed in cells]
    loop = time.perf_counter() - began

    # With larger rates a difference in the last bit grows until the runs have nothing in common.
    calm = [(a, b) for a, b, lr in zip(together, alone, lrs, strict=True) if lr <= 0.03]
    apart = max(abs(a.train_loss[-1] - b.train_loss[-1]) / b.train_loss[-1] for a, b in calm)
    each = stacked / steps / len(cells) * 1e6
    print(
        f"{norm.__name__:9} batch size {batch_size:2}: {loop / stacked:4.1f} times faster, {each:5.0f} us a step and "
        f"model; curves differ by {apart:.0e} at the end, for the two least rates"
    )


def main() -> None:
    """Compare for two norms and four batch sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    for norm, batch_size in itertools.product((BatchNorm, FullNorm), EPOCHS):
        compare(norm, batch_size, device)
    print(f"largest memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
