"""Compare the time of a forward and backward pass of every layer of bnlib.norm with that of torch.nn.BatchNorm.

``python benchmarks/layers.py`` prints the ratios; with ``--save`` it also writes
``data/results/benchmarks/layers_DEVICE.json``. The row "noise" compares torch.nn.BatchNorm with itself; a size is
measured again, at most four times in all, until that ratio is within 5 % of 1. If it never is, the last line says so.
"""

import argparse
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import bnlib
from bnlib.experiments.framework.results import write_result
from bnlib.reference import ORACLES
from bnlib.schedules import lian_figure_4_alpha

SIZES = {(64, 512): nn.BatchNorm1d, (4096, 256): nn.BatchNorm1d, (128, 64, 32, 32): nn.BatchNorm2d}
ROUNDS = {(64, 512): 60, (4096, 256): 60, (128, 64, 32, 32): 15}
MOST_NOISE, MOST_ATTEMPTS = 0.05, 4


def layers(shape: tuple[int, ...], device: str) -> dict[str, nn.Module]:
    """Return the layers by name; the first one is the baseline."""
    channels = shape[1]
    made = {"torch.nn.BatchNorm": SIZES[shape](channels), "noise": SIZES[shape](channels)}
    made["BatchNorm"] = bnlib.BatchNorm(channels)
    for oracle in ORACLES:
        made[f"FullNorm {oracle}"] = bnlib.FullNorm(channels, oracle=oracle, alpha=0.1)
    made["FullNorm running, alpha a schedule"] = bnlib.FullNorm(channels, alpha=lian_figure_4_alpha)
    made["BatchRenorm"] = bnlib.BatchRenorm(channels)
    made["LayerNorm"] = bnlib.NORMS["layer_norm"].make_layer(channels)
    made["GroupNorm"] = bnlib.NORMS["group_norm"].make_layer(channels)
    return {name: layer.to(device) for name, layer in made.items()}


def weight_layers(device: str) -> dict[str, nn.Module]:
    """Return layers that normalise weights, or products with weights; the first one is the baseline."""
    make = partial(nn.Linear, 512, 512)
    made = {"torch.nn.Linear": make(), "noise": make(), "CosineLinear": bnlib.CosineLinear(512, 512)}
    made |= {"weight_norm": weight_norm(make()), "weight standardisation": bnlib.weight_standardise(make())}
    return {name: layer.to(device) for name, layer in made.items()}


def seconds(layer: nn.Module, x: torch.Tensor, grad_output: torch.Tensor, steps: int) -> float:
    """Return the time of ``steps`` forward and backward passes, in seconds: on the CPU that of this process alone."""
    wait = torch.cuda.synchronize if x.is_cuda else lambda: None
    clock = time.perf_counter if x.is_cuda else time.process_time
    wait()
    began = clock()
    for _ in range(steps):
        layer(x).backward(grad_output)
    wait()
    return clock() - began


def compare(made: dict[str, nn.Module], shape: tuple[int, ...], device: str) -> list[dict]:
    """Return median and quartiles of the ratio of each layer's time to the baseline's, from interleaved rounds."""
    x, grad_output = torch.randn(shape, device=device, requires_grad=True), torch.randn(shape, device=device)
    steps = max(1, 500_000 // x.numel())
    for layer in made.values():
        seconds(layer, x, grad_output, steps)
    base, *names = made

    def measured() -> dict[str, list[float]]:
        taken = [
            [seconds(layer, x, grad_output, steps) for layer in made.values()] for _ in range(ROUNDS.get(shape, 15))
        ]
        ratios = np.array(taken)[:, 1:] / np.array(taken)[:, :1]
        return dict(zip(names, np.percentile(ratios, [25, 50, 75], axis=0).T.round(3).tolist(), strict=True))

    rows = []
    for name, (low, middle, high) in until_quiet(measured).items():
        print(f"{shape!s:20} {name:36} / {base}: {middle:5.2f} ({low:.2f} to {high:.2f})", flush=True)
        rows.append({"layer": name, "against": base, "shape": shape, "quartiles_of_ratio": [low, middle, high]})
    return rows


def until_quiet(measured: Callable[[], dict[str, list[float]]], most: int = MOST_ATTEMPTS) -> dict[str, list[float]]:
    """Measure quartiles of ratios until the median of the row "noise" is near 1; return those with the least noise.

    They are measured ``most`` times at most, and once if there is no such row.
    """
    attempts: list[tuple[float, dict[str, list[float]]]] = []
    while len(attempts) < most and not (attempts and attempts[-1][0] <= MOST_NOISE):
        found = measured()
        attempts.append((abs(found["noise"][1] - 1) if "noise" in found else 0.0, found))
    noise, found = min(attempts, key=lambda each: each[0])
    if noise > MOST_NOISE:
        print(f"the next rows have a noise of {noise:.0%}: the machine is too busy to use them", flush=True)
    return found


def machine(device: str) -> str:
    """Return the name of the device and its processor."""
    if device == "cuda":
        return f"cuda ({torch.cuda.get_device_name()})"
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"cpu ({model}), one thread"


def main(name: str, description: str, measure: Callable[[str], list[dict]]) -> None:
    """Measure on the device that the command line names, with one thread on the CPU, and save the rows with --save."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--save", action="store_true", help=f"write data/results/benchmarks/{name}_DEVICE.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = arguments.device
    if not arguments.save:
        measure(device)
        return
    command = f"python benchmarks/{name}.py --save --device {device}"
    with write_result(f"benchmarks/{name}_{device}", command, [0], device=machine(device)) as result:
        result["rows"] = measure(device)


def compare_all(device: str) -> list[dict]:
    """Compare all layers at all sizes."""
    rows = [row for shape in SIZES for row in compare(layers(shape, device), shape, device)]
    return rows + compare(weight_layers(device), (64, 512), device)


if __name__ == "__main__":
    main("layers", __doc__, compare_all)
