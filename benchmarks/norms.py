"""Every norm of the registry behind, or in, the layer it is for: time of a step, as a ratio to torch.nn.BatchNorm.

``python benchmarks/norms.py`` prints the ratios; with ``--save`` it also writes ``data/results/norms_DEVICE.json``.
Forward and backward of a layer with its norm, over those of the same layer with torch's BatchNorm behind it.
"""

import argparse
from collections.abc import Callable

import torch
from layers import compare, machine
from torch import nn

import bnlib
from bnlib.experiments.results import write_result

WIDE, CHANNELS = 512, 64
CASES: dict[tuple[int, ...], tuple[Callable[[], nn.Module], nn.Module]] = {
    (64, WIDE): (lambda: nn.Linear(WIDE, WIDE), nn.BatchNorm1d(WIDE)),
    (64, CHANNELS, 16, 16): (lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS)),
}


def layers(shape: tuple[int, ...], device: str) -> dict[str, nn.Module]:
    """The layer with torch's BatchNorm, first, and with every norm of the registry that it takes."""
    make, batch_norm = CASES[shape]
    made = {"torch.nn.BatchNorm": nn.Sequential(make(), batch_norm)}
    made |= {name: norm.apply(make()) for name, norm in bnlib.NORMS.items() if isinstance(make(), norm.takes)}
    return {name: layer.to(device) for name, layer in made.items()}


def main() -> None:
    """Compare, on the CPU with one thread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--save", action="store_true", help="write data/results/norms_DEVICE.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    def run() -> list[dict]:
        return [row for shape in CASES for row in compare(layers(shape, arguments.device), shape, arguments.device)]

    if not arguments.save:
        run()
        return
    command = f"python benchmarks/norms.py --save --device {arguments.device}"
    with write_result(f"norms_{arguments.device}", command, [0], device=machine(arguments.device)) as result:
        result["rows"] = run()


if __name__ == "__main__":
    main()
