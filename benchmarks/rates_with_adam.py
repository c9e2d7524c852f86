"""How much time does it save to stack models of different learning rates with Adam, too?

``python benchmarks/rates_with_adam.py`` trains the networks of chapter 5's contest, five learning rates with two seeds
each, as one stack, and as five stacks of equal rates, in interleaved rounds. It prints the processor time of the five
over that of the one, with quartiles. With ``--save`` it also writes
``data/results/benchmarks/rates_with_adam_cpu.json``.
"""

import time

import numpy as np
from layers import main

from bnlib import training
from bnlib.experiments.full_normalization import rivals

STEPS, ROUNDS = {4: 40, 16: 20, 64: 10}, 7
NORMS = ("batch norm", "Full Norm", "weight standardisation + GN", "without normalisation")


def seconds(norm: str, batch_size: int, rates: list[float], seeds: list[int], device: str) -> float:
    """Return the processor time of some steps after the first checkpoint."""
    data, setting = rivals.selection_images(), next(iter(rivals.NORMS[norm]))
    networks = [rivals.model(norm, setting, seed=seed) for seed in seeds]
    checkpoints = len(data.train_x) // batch_size // STEPS[batch_size]
    settings = {"batch_size": batch_size, "optimiser": rivals.OPTIMISERS["Adam"], "epochs": 1, "device": device}
    trained = training.iterate_many(networks, data, lrs=rates, seeds=seeds, checkpoints=checkpoints, **settings)
    next(trained)
    began = time.process_time()
    next(trained)
    return time.process_time() - began


def compare(norm: str, batch_size: int, device: str) -> dict:
    """Print and return median and quartiles of the ratio."""
    rates, ratios = rivals.learning_rates("Adam", batch_size), []
    for _ in range(ROUNDS):
        together = seconds(norm, batch_size, [rate for rate in rates for _ in range(2)], [0, 1] * len(rates), device)
        ratios.append(sum(seconds(norm, batch_size, [rate] * 2, [0, 1], device) for rate in rates) / together)
    quartiles = [round(float(each), 2) for each in np.quantile(ratios, (0.25, 0.5, 0.75))]
    print(
        f"{norm:28} batch size {batch_size:2}: {quartiles[1]:.2f} ({quartiles[0]:.2f}–{quartiles[2]:.2f})", flush=True
    )
    return {"norm": norm, "batch_size": batch_size, "quartiles_of_ratio": quartiles}


def compare_all(device: str) -> list[dict]:
    """Compare some norms at all batch sizes."""
    return [compare(norm, batch_size, device) for batch_size in STEPS for norm in NORMS]


if __name__ == "__main__":
    main("rates_with_adam", __doc__, compare_all)
