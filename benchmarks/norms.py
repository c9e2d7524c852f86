"""Compare the time of a step of every normalisation in the registry with that of torch.nn.BatchNorm.

``python benchmarks/norms.py`` prints the ratios; with ``--save`` it also writes
``data/results/benchmarks/norms_DEVICE.json``.
A step is a forward and backward pass of a Linear or Conv2d layer with its normalisation; the baseline is the same layer
followed by torch.nn.BatchNorm, and the row "noise" compares it with itself.
"""

import copy
from collections.abc import Callable

from layers import compare, main
from torch import nn

import bnlib

WIDE, CHANNELS = 512, 64
CASES: dict[tuple[int, ...], tuple[Callable[[], nn.Module], nn.Module]] = {
    (64, WIDE): (lambda: nn.Linear(WIDE, WIDE), nn.BatchNorm1d(WIDE)),
    (64, CHANNELS, 16, 16): (lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS)),
}


def layers(shape: tuple[int, ...], device: str) -> dict[str, nn.Module]:
    """Return the layer with torch.nn.BatchNorm, first, and with every normalisation that can be applied to it."""
    make, batch_norm = CASES[shape]
    made = {"torch.nn.BatchNorm": nn.Sequential(make(), batch_norm)}
    made["noise"] = copy.deepcopy(made["torch.nn.BatchNorm"])
    made |= {name: norm.apply(make()) for name, norm in bnlib.NORMS.items() if isinstance(make(), norm.layer_types)}
    return {name: layer.to(device) for name, layer in made.items()}


def compare_all(device: str) -> list[dict]:
    """Compare all normalisations at both sizes."""
    return [row for shape in CASES for row in compare(layers(shape, device), shape, device)]


if __name__ == "__main__":
    main("norms", __doc__, compare_all)
